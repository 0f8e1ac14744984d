"""The shift probes on models: modes, scale sequences and ensembles, and the networks of Table 3."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.equivariance import (
    cosine_after_cut,
    draw_shifts,
    shift_images,
    shift_map_back,
    shift_similarity,
    similarity_map,
    table1,
)
from ccnet.errors import CcnetError
from ccnet.models import CCNet, ConvNet
from ccnet.sequences import ScaleSequence, sample_scale_sequences
from tests.ccnet.shift_controls import SequenceNet, assert_exact, images, sequences_of


def test_a_model_is_measured_in_evaluation_mode_and_given_back_as_it_was() -> None:
    norm = nn.BatchNorm2d(3).eval()
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), norm, nn.Dropout(0.5), nn.BatchNorm2d(3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert_exact(shift_similarity(net, images(dtype=torch.float32), 0, total_scale=1), 1e-6)
    assert [module.training for module in net.modules()] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_training_model_is_given_back_even_when_the_probe_fails() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1))
    with pytest.raises(CcnetError, match="total_scale"):
        shift_similarity(net, images(dtype=torch.float32), 1)
    assert net.training


def test_pairs_are_dealt_out_among_sequences_and_their_means_reported() -> None:
    batch, sequences = images(6), sequences_of("1/10", "1/2", "4/5")
    run = partial(shift_similarity, max_shift=3, samples=12, total_scale=1, seed=3)
    split = run(SequenceNet(), batch, sequences=sequences)
    assert split.protocol["sequences"] == ["1/10", "1/2", "4/5"]
    by_hand = []
    for index, sequence in enumerate(sequences):
        alone = run(partial(SequenceNet().features, sequence=sequence), batch)
        # image i meets sequence i mod 3 the first time and (i + 1) mod 3 the second time
        pairs = [p for p in range(12) if (p % 6 + p // 6) % 3 == index]
        each = [_pair_value(SequenceNet(), batch, p, sequence) for p in pairs]
        by_hand.append(sum(each) / len(each))
        assert alone.sequence_means == ()
    assert split.sequence_means == pytest.approx(by_hand, abs=1e-12)
    assert split.cosine_mean == pytest.approx(sum(by_hand) / 3, abs=1e-12)
    assert split.sequence_std == pytest.approx(
        torch.tensor(by_hand, dtype=torch.float64).std(correction=0).item(), abs=1e-12
    )


def _pair_value(net: SequenceNet, batch: Tensor, pair: int, sequence: ScaleSequence) -> float:
    """Pair `pair` of the run with max shift 3 and seed 3, under one sequence."""
    dy, dx = draw_shifts(12, 3, seed=3)[pair][:, None]
    image = batch[pair % len(batch)][None]
    back = shift_map_back(net.features(shift_images(image, dy, dx), sequence), dy, dx)
    return cosine_after_cut(net.features(image, sequence), back).item()


def test_under_each_every_pair_meets_every_sequence() -> None:
    batch, sequences = images(4), sequences_of("1/10", "1")
    run = partial(shift_similarity, max_shift=2, total_scale=1)
    each = run(SequenceNet(), batch, sequences=sequences, members="each")
    alone = [run(partial(SequenceNet().features, sequence=sequence), batch) for sequence in sequences]
    assert each.sequence_means == pytest.approx([row.cosine_mean for row in alone], abs=1e-12)
    per_image = [sum(pair) / 2 for pair in zip(*(row.per_image for row in alone), strict=True)]
    assert each.per_image == pytest.approx(per_image, abs=1e-12)
    assert each.samples == 4


def test_an_ensemble_is_one_model_with_the_mean_map() -> None:
    batch, sequences = images(4), sequences_of("1/10", "1/2", "1")
    net = SequenceNet()
    together = shift_similarity(net, batch, 2, sequences=sequences, members="ensemble", total_scale=1)
    mean_map = shift_similarity(lambda x: sum(net.features(x, s) for s in sequences) / 3, batch, 2, total_scale=1)
    assert together.per_image == pytest.approx(mean_map.per_image, abs=1e-12)
    assert together.sequence_means == ()
    assert together.sequence_std is None
    assert together.consistency is not None


def test_a_map_of_similarities_keeps_one_sequence_for_an_image() -> None:
    batch, sequences = images(2), sequences_of("1/10", "1")
    found = similarity_map(SequenceNet(), batch, 1, sequences=sequences, total_scale=1)
    alone = [
        similarity_map(partial(SequenceNet().features, sequence=s), batch[i : i + 1], 1, total_scale=1)
        for i, s in enumerate(sequences)
    ]
    for row, (first, second) in zip(found.cosine, zip(*(part.cosine for part in alone), strict=True), strict=True):
        assert row == pytest.approx([(a + b) / 2 for a, b in zip(first, second, strict=True)], abs=1e-12)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Smooth grey pictures of 32 px, the size that the paper's networks take."""
    coarse = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    return F.interpolate(coarse, size=(32, 32), mode="bicubic", align_corners=False)


@pytest.fixture(scope="module")
def ccnet() -> CCNet:
    torch.manual_seed(0)
    return CCNet(in_channels=1, hidden=(4,))  # a small Internal-Net: generating weights would take most of the time


@pytest.fixture(scope="module")
def convnet() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(in_channels=1)


def test_table_1_runs_as_the_paper_has_it(ccnet: CCNet, convnet: ConvNet, photos: Tensor) -> None:
    for model, drawn in ((ccnet, sample_scale_sequences(2, seed=6)), (convnet, [])):
        rows = table1(model, photos, seed=6, ensemble_size=2)
        assert [row.max_shift for row in rows] == [2, 4, 6]
        for row in rows:
            assert row.protocol["sequences"] == [str(sequence) for sequence in drawn]
            assert len(row.sequence_means) == len(drawn)
            assert row.skipped == 0
            assert row.samples == 3
            assert len(row.per_image) == 3
            assert -1 <= row.ci95[0] <= row.cosine_mean <= row.ci95[1] < 1
        again = shift_similarity(model, photos, 6, seed=6, ensemble_size=2, batch_size=2)
        assert again.per_image == pytest.approx(rows[2].per_image, abs=1e-5)


def test_shift_zero_is_exact_for_the_real_models(ccnet: CCNet, convnet: ConvNet, photos: Tensor) -> None:
    for model in (ccnet, convnet):
        assert_exact(shift_similarity(model, photos, 0, ensemble_size=2, samples=6), 1e-6)
    assert_exact(shift_similarity(ccnet, photos, 0, ensemble_size=2, members="ensemble"), 1e-6)


def test_a_ccnet_row_is_the_mean_over_pairs_by_hand(ccnet: CCNet, photos: Tensor) -> None:
    sequences = sample_scale_sequences(2, seed=1)
    row = shift_similarity(ccnet, photos, 4, sequences=sequences, seed=1)
    shift = draw_shifts(3, 4, seed=1)
    values, same = [], []
    with torch.no_grad():
        for i, (image, (dy, dx)) in enumerate(zip(photos, shift[:, :, None], strict=True)):
            sequence = sequences[i % 2]
            moved = shift_images(image[None], dy, dx)
            back = shift_map_back(ccnet.features(moved, sequence), dy / 4, dx / 4)
            values.append(cosine_after_cut(ccnet.features(image[None], sequence), back).item())
            same.append(bool(ccnet(image[None], sequence).argmax() == ccnet(moved, sequence).argmax()))
    assert row.per_image == pytest.approx(values, abs=1e-5)
    assert row.consistency == sum(same) / 3


def test_few_images_name_only_the_sequences_that_they_met(ccnet: CCNet, photos: Tensor) -> None:
    row = shift_similarity(ccnet, photos[:1], 2, samples=2, ensemble_size=5)
    assert row.protocol["sequences"] == [str(sequence) for sequence in sample_scale_sequences(5, seed=0)[:2]]
