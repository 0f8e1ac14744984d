"""An assessor whose numbers can be foreseen, and which runs and stops as a test says."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ccnet.assessment import AssessmentOptions, Passes
from ccnet.data import LabelledPictures
from ccnet.plan_cache import PlanCache
from ccnet.sequences import ScaleSequence


class FakePasses:
    """Says 1 of every image."""

    def member_logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        return torch.ones(max(1, len(sequences)), len(images), 3)

    def maps_and_logits(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor]:
        return torch.ones(len(images), 1, 2, 2), torch.ones(len(images), 3)


class FakeAssessor:
    """One call of passes an image, each of one image; the document says what was asked and how many there were.

    Attributes:
        gate: Every call but the first waits for it.
        began: Set when a job has made its first call.
        error: Raised instead of a document.
        cost: Of an image, in passes.
        plans: Where the last job was to keep its weights.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.error: Exception | None = None
        self.cost = 1
        self.seen: list[LabelledPictures] = []
        self.plans: PlanCache | None = None

    def passes_needed(self, model: Any, images: int, options: AssessmentOptions | None = None) -> int:
        return images * self.cost

    def LocalPasses(self, model: Any, plans: PlanCache) -> Passes:
        self.plans = plans
        return FakePasses()

    def assess(
        self,
        model: Any,
        dataset: LabelledPictures,
        options: AssessmentOptions | None = None,
        *,
        passes: Passes | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        assert options is not None
        assert passes is not None
        assert on_progress is not None
        self.seen.append(dataset)
        total = min(len(dataset), options.limit or len(dataset))
        for done in range(total):
            passes.member_logits(torch.zeros(1, 1, 1, 1), ())
            on_progress(done + 1, total)
            self.began.set()
            assert self.gate.wait(30), "the test never opened the gate"
        if self.error is not None:
            raise self.error
        return {"dataset": dataset.name, "sizes": list(options.sizes), "seed": options.seed, "passes": total}

    def markdown(self, document: dict[str, Any]) -> str:
        return f"# {document['dataset']}"

    def html(self, document: dict[str, Any]) -> str:
        return f"<h1>{document['dataset']}</h1>"
