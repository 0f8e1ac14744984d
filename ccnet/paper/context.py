"""What an item is given: options, and steps that are kept, so that an interrupted run goes on where it was."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ccnet.checkpoint import Checkpoint, load_checkpoint
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
    """

    options: Options
    folder: Path
    fresh: bool = False
    shown: bool = True
    taken_up: int = 0
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
        if name in self._seen:
            raise CcnetError(f"step {name!r} is taken twice; its second result would be the first")
        self._seen.add(name)
        path = self.folder / f"{name}.json"
        depends_on = json.loads(json.dumps({"options": asdict(self.options), **settings}))
        depends_on["options"].pop("threads")  # how fast, and not what
        if not self.fresh and path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["depends_on"] == depends_on:
                self.taken_up += 1
                return kept["result"]
        result = json.loads(json.dumps(compute()))  # what is computed now is the same value as what is read later
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps({"depends_on": depends_on, "result": result}) + "\n").encode())
        return result

    def progress(self, title: str, total: int, unit: str) -> ProgressReport:
        """A progress bar on stderr."""
        return ProgressReport(title, total, unit=unit, enabled=self.shown, stream=sys.stderr)

    def checkpoint(self, name: str) -> Checkpoint:
        """A trained network by name.

        Raises:
            CheckpointError: it is not there.
        """
        return load_checkpoint(Path(self.options.checkpoints) / name, self.options.device)
