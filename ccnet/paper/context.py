"""What an item is given: options, and steps that are kept, so that an interrupted run goes on where it was.

A step is one file, written aside and renamed: it is there whole or not at all, whatever moment the process dies at.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ccnet import provenance
from ccnet.checkpoint import WEIGHTS_FILE, Checkpoint, load_checkpoint
from ccnet.errors import CcnetError
from ccnet.files import write_atomically
from ccnet.progress import ProgressReport


@dataclass(frozen=True)
class Options:
    """What whoever runs an item may choose.

    Attributes:
        quick: few samples and small cases, minutes in all on a CPU: to see that it works.
        seed: of everything random.
        threads: of torch and of the native kernels.
        checkpoints: folder of trained networks.
        data_dir: folder of data sets, None for the usual places.
        device: "cpu" or "cuda".
    """

    quick: bool = False
    seed: int = 0
    threads: int = 1
    checkpoints: str = "checkpoints"
    data_dir: str | None = None
    device: str = "cpu"


@dataclass
class Context:
    """Of one item's run.

    Attributes:
        options: as chosen.
        folder: where its steps are kept.
        fresh: whether kept steps are ignored.
        shown: whether progress is shown on stderr.
        taken_up: steps that were not computed anew.
        commit: of the source tree that computes.
        commits: of the trees that computed the steps, in the order in which they were met.
    """

    options: Options
    folder: Path
    fresh: bool = False
    shown: bool = True
    taken_up: int = 0
    commit: str = field(default_factory=lambda: provenance.git_commit() or "unknown")
    commits: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    @property
    def quick(self) -> bool:
        """As in the options."""
        return self.options.quick

    @property
    def seed(self) -> int:
        """As in the options."""
        return self.options.seed

    def step(self, name: str, compute: Callable[[], Any], **settings: Any) -> Any:
        """The result of a step: kept from an interrupted run with equal settings, else computed now and kept.

        Args:
            name: of the step, unique in its item; letters, digits and dashes.
            compute: gives JSON values.
            settings: what the result depends on beside the options, JSON values (a checkpoint's fingerprint, sizes).
        """
        path, depends_on = self._place(f"{name}.json", settings)
        if not self.fresh and (kept := read_values(path, depends_on)) is not None:
            self._take_up(kept.get("git_commit"))
            return kept["result"]
        result = json.loads(json.dumps(compute()))  # what is computed now is the same value as what is read later
        path.parent.mkdir(parents=True, exist_ok=True)
        written = {"depends_on": depends_on, "git_commit": self.commit, "result": result}
        write_atomically(path, (json.dumps(written) + "\n").encode())
        self.note_commit(self.commit)
        return result

    def array_step(self, name: str, compute: Callable[[], Tensor], **settings: Any) -> Tensor:
        """As `step`, for a tensor, such as the logits of a data set: kept as safetensors, the settings in its header.

        Args:
            name: of the step, unique in its item; letters, digits and dashes.
            compute: gives a tensor.
            settings: what the result depends on beside the options, JSON values.

        Returns:
            the tensor on the CPU; what is read later is the same to the last bit.
        """
        path, depends_on = self._place(f"{name}.safetensors", settings)
        if not self.fresh and (kept := read_tensor(path, depends_on)) is not None:
            self._take_up(kept[1])
            return kept[0]
        result = compute().detach().cpu().contiguous()
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"depends_on": json.dumps(depends_on), "git_commit": self.commit}
        write_atomically(path, save({"result": result}, header))
        self.note_commit(self.commit)
        return result

    def note_commit(self, commit: str | None) -> None:
        """Remember which tree computed something that the findings are made of; None: nobody knows."""
        commit = commit or "unknown"
        if commit not in self.commits:
            self.commits.append(commit)

    def _place(self, file: str, settings: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        """Where a step is kept, and all that its result depends on."""
        if file in self._seen:
            raise CcnetError(f"step {Path(file).stem!r} is taken twice; its second result would be the first")
        self._seen.add(file)
        depends_on = json.loads(json.dumps({"options": asdict(self.options), **settings}))
        depends_on["options"].pop("threads")  # how fast, and not what
        return self.folder / file, depends_on

    def _take_up(self, commit: str | None) -> None:
        self.taken_up += 1
        self.note_commit(commit)

    def progress(self, title: str, total: int, unit: str) -> ProgressReport:
        """A progress bar on stderr."""
        return ProgressReport(title, total, unit=unit, enabled=self.shown, stream=sys.stderr)

    def checkpoint(self, name: str) -> Checkpoint:
        """A trained network by name.

        Raises:
            CheckpointError: it is not there.
        """
        return load_checkpoint(Path(self.options.checkpoints) / name, self.options.device)

    def fingerprint(self, name: str) -> str:
        """SHA-256 of a checkpoint's weights, for the settings of a step.

        Raises:
            OSError: it is not there.
        """
        return hashlib.sha256((Path(self.options.checkpoints) / name / WEIGHTS_FILE).read_bytes()).hexdigest()


def read_values(path: Path, depends_on: dict[str, Any]) -> dict[str, Any] | None:
    """A kept result with the commit that made it; None where there is none for these settings, or a damaged one."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_bytes())
    except ValueError:  # no JSON, or no UTF-8
        return None
    fits = isinstance(kept, dict) and "result" in kept and kept.get("depends_on") == depends_on
    return kept if fits else None


def read_tensor(path: Path, depends_on: dict[str, Any]) -> tuple[Tensor, str | None] | None:
    """A kept tensor and the commit that made it; None where there is none for these settings, or a damaged one."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            if json.loads(header.get("depends_on", "null")) != depends_on:
                return None
            return stream.get_tensor("result"), header.get("git_commit")
    except (SafetensorError, ValueError):
        return None
