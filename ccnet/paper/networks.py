"""The trained networks that are at hand: one or several training runs of each architecture, and their test images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccnet.checkpoint import CONFIG_FILE, Checkpoint
from ccnet.data import ImageDataset, load_dataset
from ccnet.errors import CcnetError
from ccnet.paper.context import Context

KINDS = ("ConvNet", "BlurConvNet", "CCNet")  # the paper's baseline, the antialiased one, the paper's network
_PREFIX = "fashion-mnist-"


@dataclass(frozen=True)
class Trained:
    """One training run.

    Attributes:
        kind: architecture.
        name: folder of its checkpoint.
        fingerprint: SHA-256 of its weights.
        checkpoint: the network.
    """

    kind: str
    name: str
    fingerprint: str
    checkpoint: Checkpoint

    @property
    def settings(self) -> dict[str, Any]:
        """What a step that it takes part in depends on."""
        return {"checkpoint": self.name, "fingerprint": self.fingerprint}


def runs_of(context: Context, kind: str) -> list[Trained]:
    """The training runs of an architecture: fashion-mnist-KIND, fashion-mnist-KIND-seed1, -seed2, ...; maybe none.

    Raises:
        CcnetError: a folder of that name holds another architecture.
    """
    base = _PREFIX + kind.lower()
    folders = [path.parent.name for path in Path(context.options.checkpoints).glob(f"{base}*/{CONFIG_FILE}")]
    names = [base] * (base in folders) + sorted(name for name in folders if name.startswith(f"{base}-seed"))
    runs = []
    for name in names:
        checkpoint = context.checkpoint(name)
        if (held := type(checkpoint.model).__name__) != kind:
            raise CcnetError(f"checkpoint {name} holds a {held} where a {kind} is expected; give it a name of its own")
        runs.append(Trained(kind, name, context.fingerprint(name), checkpoint))
    return runs


def needed(context: Context, kind: str) -> list[Trained]:
    """As `runs_of`, at least one.

    Raises:
        CcnetError: there is none.
    """
    runs = runs_of(context, kind)
    if not runs:
        raise CcnetError(
            f"no checkpoint {_PREFIX}{kind.lower()} in {context.options.checkpoints}; train one with `ccnet train "
            f"--arch {kind.lower()} --checkpoint FOLDER`, or set CCNET_CHECKPOINTS"
        )
    return runs


def images_of(context: Context, runs: list[Trained]) -> ImageDataset:
    """The test images of the data set that all these networks were trained on.

    Raises:
        CcnetError: they were not trained on the same one, or a card names none.
        DataError: it cannot be read.
    """
    names = {str((run.checkpoint.config.get("data") or {}).get("dataset")) for run in runs}
    if len(names) != 1 or "None" in names:
        raise CcnetError(f"networks are compared on one data set; these were trained on {', '.join(sorted(names))}")
    return load_dataset(names.pop(), "test", context.options.data_dir)


def missing_note(kind: str) -> str:
    """What is said where an architecture has no checkpoint."""
    return f"There is no checkpoint of a {kind}: what needs one is undecided."


def runs_note(runs: dict[str, list[Trained]]) -> str:
    """How many training runs stand behind each column."""
    counts = ", ".join(f"{kind} {len(found)} ({', '.join(run.name for run in found)})" for kind, found in runs.items())
    return (
        f"Training runs: {counts}. Where there are several, intervals also hold for others, by Student's t over the "
        "runs; of a single run they say how sure the figure of this very network is, and not what another training "
        "would give."
    )
