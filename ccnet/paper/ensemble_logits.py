"""The logits behind `ensembles`: one kept step a pass over the test images, so that hours of them survive a stop."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ccnet.data import ImageDataset
from ccnet.evaluation import member_logits
from ccnet.paper.context import Context
from ccnet.paper.networks import Trained
from ccnet.progress import ProgressReport
from ccnet.sequences import ScaleSequence, sample_scale_sequences
from ccnet.views import View, input_views

SPREADS = tuple((std, method) for std in (0.01, 0.05, 0.1) for method in ("corrected", "conditioned"))


@dataclass(frozen=True)
class Extent:
    """How much is computed.

    Attributes:
        images: of the test set, the first ones.
        pool: scale sequences, of which ensembles are subsets.
        draws: ensembles of each size.
        sizes: of ensembles, and numbers of views.
        viewed: sequences, of the pool's first, under which all views are computed.
        mirrored: sequences, of the pool's first, under which pictures and their mirror images are.
        spread_images, spread_pool: images and sequences for other spreads of the scales.
    """

    images: int
    pool: int
    draws: int
    sizes: tuple[int, ...]
    viewed: int
    mirrored: int
    spread_images: int
    spread_pool: int

    def passes(self, baselines: int) -> int:
        """Images to be passed in all."""
        views = max(self.sizes) - 1
        own = self.pool + self.viewed * views + max(0, self.mirrored - self.viewed)
        of_spreads = (len(SPREADS) - 1) * self.spread_pool * self.spread_images
        return (own + baselines * (views + 1)) * self.images + of_spreads


FULL = Extent(10_000, 40, 20, (1, 2, 3, 4, 8, 16), 2, 8, 2_000, 8)
QUICK = Extent(500, 6, 5, (1, 2, 3, 4), 2, 2, 100, 4)


@dataclass(frozen=True)
class Logits:
    """All that is scored.

    Attributes:
        labels: int64 [N].
        pool: CCNet under every sequence, [pool, N, classes].
        views: CCNet under the first sequences, every view, [viewed, views, N, classes].
        mirrored: CCNet under the first sequences, pictures and mirror images, [mirrored, 2, N, classes].
        baselines: every view of each network without sequences, [views, N, classes].
        spreads: CCNet under sequences of other spreads by name, [sequences, fewer images, classes].
    """

    labels: Tensor
    pool: Tensor
    views: Tensor
    mirrored: Tensor
    baselines: dict[str, Tensor]
    spreads: dict[str, Tensor]


@dataclass
class Passes:
    """Passes of one network over a data set, each one step.

    Attributes:
        context: that keeps the steps.
        run: the network.
        dataset: the images.
        report: is told of every pass.
    """

    context: Context
    run: Trained
    dataset: ImageDataset
    report: ProgressReport
    _done: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, sequence: ScaleSequence | None, view: View | None = None) -> Tensor:
        """Logits of all images, float32 [N, classes].

        Args:
            name: of the sequence, in the step's name.
            sequence: None for a network without.
            view: of the pictures.
        """
        view = view or View()
        settings: dict[str, Any] = {
            "sequence": str(sequence),
            "view": [view.mirrored, view.down, view.right],
            "images": len(self.dataset),
            "data": self.dataset.name,
            **self.run.settings,
        }
        step = "-".join([self.run.kind.lower(), *([name] if name else []), f"{int(view.mirrored)}", *moves(view)])
        if step not in self._done:
            self._done[step] = self.context.array_step(step, lambda: self._compute(sequence, view), **settings)
            self.report.advance(len(self.dataset))
        return self._done[step]

    def _compute(self, sequence: ScaleSequence | None, view: View) -> Tensor:
        checkpoint = self.run.checkpoint
        sequences = [] if sequence is None else [sequence]
        return member_logits(checkpoint.model, checkpoint.preprocessing, self.dataset, sequences, views=[view])[0]


def moves(view: View) -> list[str]:
    """The move of a view in words for a file's name: "down1", "up1", "right0"."""
    named = (("down", "up", view.down), ("right", "left", view.right))
    return [f"{to if pixels >= 0 else fro}{abs(pixels)}" for to, fro, pixels in named]


def compute(
    context: Context, extent: Extent, ccnet: Trained, baselines: list[Trained], dataset: ImageDataset
) -> Logits:
    """Every pass, or its kept step."""
    dataset = dataset.first(extent.images)
    views = input_views(max(extent.sizes))
    in_size = ccnet.checkpoint.preprocessing.input_size
    sampler = ccnet.checkpoint.sampler
    sequences = sample_scale_sequences(extent.pool, seed=context.seed, in_size=in_size, **sampler)
    named = [(f"pool{number:02d}", sequence) for number, sequence in enumerate(sequences)]
    with context.progress("ensembles", extent.passes(len(baselines)), "passes") as report:
        passes = Passes(context, ccnet, dataset, report)
        pool = torch.stack([passes(*place) for place in named])
        viewed = torch.stack([_stacked(passes, place, views) for place in named[: extent.viewed]])
        mirrored = torch.stack([_stacked(passes, place, views[:2]) for place in named[: extent.mirrored]])
        plain = {run.kind: _stacked(Passes(context, run, dataset, report), ("", None), views) for run in baselines}
        few = Passes(context, ccnet, dataset.first(extent.spread_images), report)
        spreads = {}
        for std, method in SPREADS:
            if sampler == {"std": std, "method": method}:  # the pool's own
                spreads[f"std {std}, {method}"] = pool[: extent.spread_pool, : extent.spread_images]
                continue
            drawn = sample_scale_sequences(
                extent.spread_pool,
                seed=context.seed,
                in_size=in_size,
                std=std,
                method=method,  # type: ignore[arg-type]
            )
            spreads[f"std {std}, {method}"] = torch.stack(
                [few(f"std{std}-{method}{number:02d}".replace(".", ""), one) for number, one in enumerate(drawn)]
            )
    return Logits(torch.from_numpy(dataset.labels), pool, viewed, mirrored, plain, spreads)


def _stacked(passes: Passes, place: tuple[str, ScaleSequence | None], views: list[View]) -> Tensor:
    """[views, N, classes]."""
    return torch.stack([passes(*place, view) for view in views])
