"""Evaluation: what it reports is what one gets by hand from the same logits, and it says how it was measured."""

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccnet import CCNet, CcnetError, ConvNet, ScaleSequence, sample_scale_sequences
from ccnet.assessment import AssessmentOptions
from ccnet.checkpoint import load_checkpoint, read_config, save_checkpoint
from ccnet.data import ImageDataset, load_dataset
from ccnet.evaluation import default_pool, evaluate, member_logits, takes_sequence, write_metrics
from ccnet.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(1, (28, 28), (32, 32), (0.0,), (1.0,))


class Disagreeing(nn.Module):
    """Logits that depend on the image and on the sequence, in a way that a test can repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, sequence: ScaleSequence) -> Tensor:
        noise = torch.Generator().manual_seed(hash(sequence.vertical) % 2**31)
        direction = torch.randn(32 * 32, 10, generator=noise)
        return self.scale * x.flatten(1) @ direction


@pytest.fixture(scope="module")
def sample() -> ImageDataset:
    """The 500 real test images that come with the tests."""
    return load_dataset("fashion-mnist-sample", "test", Path(__file__).parents[1] / "data")


def test_one_sequence_and_ensembles_are_what_one_computes_by_hand(sample: ImageDataset) -> None:
    images = sample.first(60)
    network = Disagreeing()
    result = evaluate(
        network, images, preprocessing=PREPROCESSING, sizes=(3, 1), draws=4, pool=5, seed=7, batch_size=25
    )

    sequences = sample_scale_sequences(5, seed=7)
    assert result["sequences"] == [str(sequence) for sequence in sequences]
    x, labels = PREPROCESSING(images.images), torch.from_numpy(images.labels)
    logits = torch.stack([network(x, sequence).detach() for sequence in sequences]).double()

    alone, three = result["ensembles"]
    assert (alone["size"], three["size"]) == (1, 3)
    assert alone["members"] == [[0], [1], [2], [3]]
    for row in (alone, three):
        means = [logits[members].mean(0) for members in row["members"]]
        accuracies = [float((mean.argmax(1) == labels).double().mean()) for mean in means]
        nlls = [float(F.cross_entropy(mean, labels)) for mean in means]
        assert row["accuracies"] == pytest.approx(accuracies)
        assert row["nlls"] == pytest.approx(nlls)
        assert row["accuracy_mean"] == pytest.approx(statistics.fmean(accuracies))
        assert row["accuracy_std"] == pytest.approx(statistics.stdev(accuracies))
        assert row["nll_mean"] == pytest.approx(statistics.fmean(nlls))
    assert len(set(alone["accuracies"])) > 1, "the members must differ, or this shows nothing"
    assert (result["accuracy"], result["accuracy_std"]) == (alone["accuracy_mean"], alone["accuracy_std"])


@pytest.mark.parametrize("takes_sequences", [True, False])
def test_views_are_averaged_under_the_first_sequence_as_one_would_by_hand(
    takes_sequences, sample: ImageDataset
) -> None:
    images, preprocessing = sample.first(60), Preprocessing(1, (28, 28), (32, 32), (0.2,), (0.3,))
    torch.manual_seed(0)
    network = Disagreeing() if takes_sequences else ConvNet(1)
    options: dict[str, Any] = {"preprocessing": preprocessing, "sizes": (1, 2, 5), "draws": 2, "seed": 7}
    result = evaluate(network, images, views=True, batch_size=25, **options)
    assert "views" not in evaluate(network, images, **options)

    more = sample_scale_sequences(1, seed=7) if takes_sequences else []
    x, labels = preprocessing(images.images), torch.from_numpy(images.labels)
    moved = {move: torch.full_like(x, -0.2 / 0.3) for move in (1, -1)}
    moved[1][:, :, 1:, 1:] = x[:, :, :-1, :-1]
    moved[-1][:, :, :-1, :-1] = x[:, :, 1:, 1:]
    mirrored_and_moved = torch.full_like(x, -0.2 / 0.3)
    mirrored_and_moved[:, :, 1:, 1:] = x.flip(3)[:, :, :-1, :-1]
    seen = torch.stack(
        [network(view, *more).detach().double() for view in (x, x.flip(3), moved[1], mirrored_and_moved, moved[-1])]
    )
    alone = seen[0].argmax(1) == labels
    for row, size in zip(result["views"], (1, 2, 5), strict=True):
        mean = seen[:size].mean(0)
        right = mean.argmax(1) == labels
        assert row["size"] == size
        assert row["accuracy"] == pytest.approx(float(right.double().mean()))
        assert row["nll"] == pytest.approx(float(F.cross_entropy(mean, labels)), rel=1e-5)
        assert row["gained"] == pytest.approx(float((right & ~alone).double().mean()))
        assert row["lost"] == pytest.approx(float((alone & ~right).double().mean()))


def test_subsets_are_different_ones_of_the_pool_and_all_where_there_are_few(sample: ImageDataset) -> None:
    options: dict[str, Any] = {"preprocessing": PREPROCESSING, "sizes": (1, 2, 4, 5), "draws": 5, "pool": 5}
    rows = evaluate(Disagreeing(), sample.first(4), **options)["ensembles"]
    members = {row["size"]: [tuple(subset) for subset in row["members"]] for row in rows}
    assert len(set(members[2])) == 5
    assert all(len(set(subset)) == 2 and max(subset) < 5 for subset in members[2])
    assert members[4] == list(itertools.combinations(range(5), 4))
    assert members[5] == [(0, 1, 2, 3, 4)]
    assert rows[3]["accuracy_std"] == 0


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others(sample: ImageDataset) -> None:
    def numbers(seed: int) -> list[Any]:
        result = evaluate(
            Disagreeing(), sample.first(50), preprocessing=PREPROCESSING, draws=3, sizes=(1, 2), seed=seed
        )
        return [(row["accuracies"], row["members"]) for row in result["ensembles"]] + [result["sequences"]]

    assert numbers(0) == numbers(0)
    assert numbers(0) != numbers(1)


def test_a_real_ccnet_gives_the_same_logits_whatever_the_batch(sample: ImageDataset) -> None:
    torch.manual_seed(0)
    network = CCNet(1, 10).eval()
    sequences = sample_scale_sequences(2, seed=0)
    whole = member_logits(network, PREPROCESSING, sample.first(5), sequences)
    split = member_logits(network, PREPROCESSING, sample.first(5), sequences, batch_size=2)
    assert whole.shape == (2, 5, 10)
    torch.testing.assert_close(whole, split, rtol=1e-4, atol=1e-5)
    x = PREPROCESSING(sample.images[:5])
    torch.testing.assert_close(whole[1], network(x, sequences[1]).detach(), rtol=1e-4, atol=1e-5)


def test_a_convnet_is_measured_with_one_pass(sample: ImageDataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConvNet(1, 10)
    save_checkpoint(model, tmp_path / "net", labels=sample.classes, preprocessing=PREPROCESSING, dtype="float32")
    result = evaluate(load_checkpoint(tmp_path / "net"), sample, limit=100)
    logits = model(PREPROCESSING(sample.images[:100])).detach()
    labels = torch.from_numpy(sample.labels[:100])
    assert result["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert result["nll"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert result["n"] == 100
    assert "ensembles" not in result
    assert not takes_sequence(model)


def test_the_result_is_json_says_how_it_was_measured_and_goes_into_the_card(
    sample: ImageDataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    distribution = {"std": 0.03, "method": "corrected", "pool_size": 0}
    save_checkpoint(
        CCNet(1, 10, hidden=(4,)),
        tmp_path / "net",
        labels=sample.classes,
        preprocessing=PREPROCESSING,
        scale_distribution=distribution,
    )
    result = evaluate(load_checkpoint(tmp_path / "net"), sample.first(6), sizes=(1, 2), draws=2)
    assert result["sequences"] == [str(s) for s in sample_scale_sequences(4, seed=0, std=0.03)]  # twice 2
    assert json.loads(json.dumps(result)) == result
    assert {"hardware", "versions", "git_commit", "date", "seconds", "method", "seed"} <= result.keys()
    assert (result["dataset"], result["split"], result["n"]) == ("fashion-mnist-sample", "test", 6)
    write_metrics(tmp_path / "net", result)
    assert read_config(tmp_path / "net")["metrics"] == result
    card = (tmp_path / "net" / "README.md").read_text()
    for row in result["ensembles"]:
        assert f"{row['accuracy_mean']:.2%} ± {row['accuracy_std']:.2%}" in card


@pytest.mark.parametrize(
    "sampler",
    [{"std": 0.1, "method": "corrected"}, {"method": "conditioned"}, {"method": "conditioned", "max_numerator": 7}],
)
def test_a_checkpoint_is_measured_with_its_own_sampler_unless_another_is_given(
    sample: ImageDataset, tmp_path: Path, sampler: dict[str, Any]
) -> None:
    save_checkpoint(
        CCNet(1, 10, hidden=(4,)),
        tmp_path,
        labels=sample.classes,
        preprocessing=PREPROCESSING,
        scale_distribution=sampler,
    )
    checkpoint, images = load_checkpoint(tmp_path), sample.first(1)
    own = evaluate(checkpoint, images, sizes=(1,), draws=1)
    assert own["sequences"] == [str(s) for s in sample_scale_sequences(1, seed=0, **sampler)]
    other = evaluate(checkpoint, images, sizes=(1,), draws=1, sampler={"std": 0.02})
    assert other["sequences"] == [str(s) for s in sample_scale_sequences(1, seed=0, std=0.02)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ()}, "at least one is needed"),
        ({"sizes": (0, 2)}, "each 1 or more"),
        ({"draws": 0}, "draws 0; at least 1"),
        ({"limit": 0}, "limit 0; at least 1"),
        ({"batch_size": -1}, "batch_size -1; at least 1"),
        ({"pool": 3, "draws": 4}, "a pool of 3 sequences; 4 draws and sizes up to 8 need 8"),
        ({"preprocessing": None}, "needs its preprocessing"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(sample: ImageDataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CcnetError, match=message):
        evaluate(Disagreeing(), sample.first(2), **{"preprocessing": PREPROCESSING} | options)


def test_a_data_set_of_other_classes_is_refused() -> None:
    images = np.zeros((2, 28, 28, 1), dtype=np.uint8)
    other = ImageDataset("other", "test", images, np.zeros(2, dtype=np.int64), ("a", "b"), "memory")
    with pytest.raises(CcnetError, match="the network has 10 classes, other has 2"):
        evaluate(Disagreeing(), other, preprocessing=PREPROCESSING, sizes=(1,), draws=1)


@pytest.mark.parametrize(
    ("draws", "sizes", "pool"), [(10, (1, 2, 8), 16), (20, (1, 8), 20), (1, (1,), 1), (3, (1,), 3), (1, (2,), 4)]
)
def test_the_pool_is_twice_the_largest_ensemble_so_that_its_draws_are_not_all_alike(
    draws: int, sizes: tuple[int, ...], pool: int
) -> None:
    assert default_pool(draws, sizes) == pool
    assert AssessmentOptions(sizes=sizes, draws=draws).pool_size == pool
