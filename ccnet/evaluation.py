"""Accuracy of a checkpoint on a data set: one scale sequence, ensembles of several, and how both depend on the draw.

The logits of every sequence of a pool are computed once; every number below is made from them.

    one sequence       the first `draws` sequences of the pool, each alone
    ensembles of k     `draws` different random subsets of k sequences of the pool (all subsets where there are fewer);
                       the logits of a subset are averaged

    views              instead of sequences: the picture mirrored and moved (`ccnet.views`), the logits of the first k
                       views averaged, at as many passes; a `CCNet` sees all of them under the pool's first sequence

Mean and std (with n - 1) are over those draws, on the same images. Subsets of one pool share members, so for k near
the size of the pool the std understates what independent draws would show (the method that is reported says so, and a
larger pool mends it); the raw numbers and the members stand beside it.
"""

import inspect
import itertools
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccnet import provenance
from ccnet.augmentation import derived_seed
from ccnet.checkpoint import Checkpoint, write_metrics
from ccnet.data import LabelledPictures
from ccnet.ensemble import MAX_PASSES
from ccnet.errors import CcnetError
from ccnet.models import CCNet
from ccnet.passes import can_plan, plan_passes
from ccnet.preprocessing import Preprocessing
from ccnet.progress import ProgressReport
from ccnet.sequences import ScaleSequence, sample_scale_sequences
from ccnet.views import View, input_views

__all__ = ["evaluate", "member_logits", "takes_sequence", "write_metrics"]


def takes_sequence(model: nn.Module) -> bool:
    """Whether the network's forward pass takes a scale sequence beside the images: `CCNet` does, `ConvNet` does not."""
    return "sequence" in inspect.signature(model.forward).parameters


def evaluate(
    model: Checkpoint | nn.Module,
    dataset: LabelledPictures,
    *,
    preprocessing: Preprocessing | None = None,
    sizes: Sequence[int] = (1, 2, 3, 4, 8),
    draws: int = 10,
    pool: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    limit: int | None = None,
    sampler: dict[str, Any] | None = None,
    views: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure accuracy and negative log-likelihood.

    Args:
        model: a checkpoint, or a network with its `preprocessing`.
        dataset: images with labels that the network knows.
        preprocessing: needed with a bare network; ignored with a checkpoint.
        sizes: ensemble sizes k, each at least 1; of a network without sequences, numbers of views.
        draws: sequences measured alone, and subsets measured for each k.
        pool: sequences drawn in all, None for the larger of `draws` and twice the largest size, which keeps the std of
            large ensembles honest. It costs its size in passes an image.
        seed: of the sequences and subsets.
        batch_size: images a pass.
        limit: only the first `limit` images, None for all.
        sampler: options of `sample_scale_sequences`; None takes those of the checkpoint (`Checkpoint.sampler`).
        views: measure averages over views of the picture too, what test-time augmentation gives at equal passes.
        progress: show progress on stderr.

    Returns:
        JSON-able: `n`, `accuracy`, `nll` (one sequence, the mean over draws) and for a `CCNet` `accuracy_std`,
        `ensembles` (one row a size, with mean, std, raw numbers and members) and `sequences`; if asked for, `views`
        (one row a size: accuracy, nll, and the shares of pictures that were `gained` and `lost` against one view);
        and how it was measured: `method`, `seed`, `hardware`, `versions`, `git_commit`, `date`, `seconds`.

    Raises:
        CcnetError: a size, draw, limit or batch size below 1, a pool that is too small, or a data set of other classes.
    """
    network, preprocessing = _network(model, preprocessing)
    sizes = sorted(set(sizes))
    _check_numbers(sizes, draws, batch_size, limit)
    seen_as = input_views(sizes[-1]) if views else []
    dataset = dataset if limit is None else dataset.first(limit)
    started = time.monotonic()
    device = next(network.parameters()).device
    sequences = _draw_pool(model, network, preprocessing, sizes, draws, pool, seed, sampler)
    logits = member_logits(network, preprocessing, dataset, sequences, batch_size=batch_size, progress=progress)
    if logits.shape[-1] != len(dataset.classes):
        raise CcnetError(f"the network has {logits.shape[-1]} classes, {dataset.name} has {len(dataset.classes)}")
    labels = torch.from_numpy(dataset.labels)
    measured = _plain(logits, labels) if not sequences else _ensembles(logits, labels, sizes, draws, seed, sequences)
    if seen_as:
        seen = member_logits(
            network, preprocessing, dataset, sequences[:1], views=seen_as, batch_size=batch_size, progress=progress
        )
        measured["views"] = [_views_row(size, seen, labels) for size in sizes]
    return {
        "dataset": dataset.name,
        "split": dataset.split,
        "n": len(dataset),
        "seed": seed,
        **measured,
        "hardware": provenance.hardware(device),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "date": provenance.now(),
        "seconds": round(time.monotonic() - started, 1),
    }


@torch.no_grad()  # not inference_mode: a network in training keeps nothing that autograd could not use later
def member_logits(
    network: nn.Module,
    preprocessing: Preprocessing,
    dataset: LabelledPictures,
    sequences: Sequence[ScaleSequence],
    *,
    views: Sequence[View] = (View(),),
    batch_size: int = 250,
    progress: bool = False,
) -> Tensor:
    """float32 [members x views, N, classes] on the CPU, all views of the first member first.

    There is one member, the plain pass, where `sequences` is empty.
    """
    device = next(network.parameters()).device
    passes: list[tuple[ScaleSequence, ...]] = [(sequence,) for sequence in sequences] or [()]
    total = len(dataset) * len(passes) * len(views)
    members = []
    was_training = network.training
    with ProgressReport(f"evaluating {dataset.name}", total, enabled=progress, stream=sys.stderr) as report:
        network.eval()
        for arguments in passes:
            run = _pass_of(network, arguments)
            for view in views:
                batches = []
                for start in range(0, len(dataset), batch_size):
                    x = preprocessing(dataset.images[start : start + batch_size]).to(device)
                    batches.append(run(view(x, preprocessing.black)).float().cpu())
                    report.advance(len(x))
                members.append(torch.cat(batches))
    network.train(was_training)
    return torch.stack(members)


def _pass_of(network: nn.Module, arguments: tuple[ScaleSequence, ...]) -> Callable[[Tensor], Tensor]:
    """One member's pass; where the network has plans its weights are generated once for all batches."""
    if arguments and isinstance(network, CCNet) and can_plan(network):
        plan = plan_passes(network, arguments)
        return lambda x: torch.cat([plan(images)[0] for images in x.split(MAX_PASSES)])
    return lambda x: network(x, *arguments)


def _network(model: Checkpoint | nn.Module, preprocessing: Preprocessing | None) -> tuple[nn.Module, Preprocessing]:
    if isinstance(model, Checkpoint):
        return model.model, model.preprocessing
    if preprocessing is None:
        raise CcnetError("a bare network needs its preprocessing; give preprocessing=..., or a checkpoint")
    return model, preprocessing


def _check_numbers(sizes: Sequence[int], draws: int, batch_size: int, limit: int | None) -> None:
    if not sizes or sizes[0] < 1:
        raise CcnetError(f"ensemble sizes {list(sizes)}; at least one is needed, each 1 or more")
    for name, number in (("draws", draws), ("batch_size", batch_size), ("limit", 1 if limit is None else limit)):
        if number < 1:
            raise CcnetError(f"{name} {number}; at least 1 is needed")


def default_pool(draws: int, sizes: Sequence[int]) -> int:
    """Sequences drawn where nobody says how many: twice the largest ensemble, so that its draws are not all alike."""
    largest = max(sizes)
    return max(draws, 2 * largest if largest > 1 else 1)


def _draw_pool(
    model: Checkpoint | nn.Module,
    network: nn.Module,
    preprocessing: Preprocessing,
    sizes: Sequence[int],
    draws: int,
    pool: int | None,
    seed: int,
    sampler: dict[str, Any] | None,
) -> list[ScaleSequence]:
    """The sequences whose logits are computed; none for a network that takes none."""
    if not takes_sequence(network):
        return []
    needed = max(draws, *sizes)
    if pool is not None and pool < needed:
        raise CcnetError(f"a pool of {pool} sequences; {draws} draws and sizes up to {max(sizes)} need {needed}")
    if sampler is None:
        sampler = model.sampler if isinstance(model, Checkpoint) else {}
    pool = pool or default_pool(draws, sizes)
    return sample_scale_sequences(pool, seed=seed, in_size=preprocessing.input_size, **sampler)


def _plain(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    accuracy, nll = _score(logits[0], labels)
    return {"accuracy": accuracy, "nll": nll, "method": "One pass; the network takes no scale sequence."}


def _ensembles(
    logits: Tensor, labels: Tensor, sizes: Sequence[int], draws: int, seed: int, sequences: Sequence[ScaleSequence]
) -> dict[str, Any]:
    alone = _row(1, [(member,) for member in range(draws)], logits, labels)
    rows = [alone if k == 1 else _row(k, subsets_of(len(logits), k, draws, seed), logits, labels) for k in sizes]
    return {
        "draws": draws,
        "accuracy": alone["accuracy_mean"],
        "accuracy_std": alone["accuracy_std"],
        "nll": alone["nll_mean"],
        "method": method_of_draws(draws, len(sequences)),
        "ensembles": rows,
        "sequences": [str(sequence) for sequence in sequences],
    }


def method_of_draws(draws: int, pool: int) -> str:
    """In words how ensembles are drawn."""
    return (
        f"Mean ± std over {draws} draws from a pool of {pool} sampled scale sequences: one sequence is each of the "
        f"first {draws} alone, k sequences are up to {draws} different random subsets of the pool with their logits "
        f"averaged. Subsets share members: the nearer k is to {pool}, the more the std understates what independent "
        "draws would show."
    )


def subsets_of(pool: int, size: int, draws: int, seed: int) -> list[tuple[int, ...]]:
    """`draws` different subsets of range(pool), or all of them where there are fewer; always the same for a seed."""
    if math.comb(pool, size) <= draws:
        return list(itertools.combinations(range(pool), size))
    dice = random.Random(derived_seed(seed, "subsets", size))
    subsets: dict[tuple[int, ...], None] = {}
    while len(subsets) < draws:
        subsets[tuple(sorted(dice.sample(range(pool), size)))] = None
    return list(subsets)


def _row(size: int, subsets: list[tuple[int, ...]], logits: Tensor, labels: Tensor) -> dict[str, Any]:
    scores = [_score(logits[list(members)].double().mean(0), labels) for members in subsets]
    accuracies, nlls = [accuracy for accuracy, _ in scores], [nll for _, nll in scores]
    return {
        "size": size,
        "accuracy_mean": statistics.fmean(accuracies),
        "accuracy_std": _std(accuracies),
        "nll_mean": statistics.fmean(nlls),
        "nll_std": _std(nlls),
        "accuracies": accuracies,
        "nlls": nlls,
        "members": [list(members) for members in subsets],
    }


def _views_row(size: int, logits: Tensor, labels: Tensor) -> dict[str, Any]:
    averaged = logits[:size].double().mean(0)
    accuracy, nll = _score(averaged, labels)
    alone, together = logits[0].argmax(1) == labels, averaged.argmax(1) == labels
    gained, lost = (float(share.double().mean()) for share in (together & ~alone, alone & ~together))
    return {"size": size, "accuracy": accuracy, "nll": nll, "gained": gained, "lost": lost}


def _std(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """(accuracy, mean negative log-likelihood) of logits [N, classes]."""
    correct = (logits.argmax(1) == labels).double().mean()
    return float(correct), float(F.cross_entropy(logits.double(), labels))
