"""The shift probes: controls whose answer is known, literal oracles, and every named choice of the protocol."""

import json
import math
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.equivariance import (
    Choices,
    Protocol,
    ShiftSimilarity,
    cosine_after_cut,
    draw_shifts,
    measure,
    noise_images,
    shift_images,
    shift_map_back,
    shift_similarity,
    similarity_map,
    table1,
)
from ccnet.errors import CcnetError
from ccnet.models import CCNet, ConvNet
from ccnet.sequences import ScaleSequence, sample_scale_sequences
from tests.ccnet.literal_shifts import shift_images_literal, shift_map_back_literal


def circular(total_scale: Fraction | int = 1) -> Choices:
    """What makes a circular network's shift undoable to the last bit: wrap everywhere, cut nothing."""
    return {"border": "circular", "cut": 0, "total_scale": total_scale}


class CircularNet(nn.Module):
    """3x3 circular convolutions; stride 1 is exactly equivariant, stride 2 to even shifts only."""

    def __init__(self, stride: int = 1, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(2, 6, 3, padding=1, padding_mode="circular", dtype=dtype)
        self.last = nn.Conv2d(6, 4, 3, stride=stride, padding=1, padding_mode="circular", dtype=dtype)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu()).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean(dim=(2, 3))


class SequenceNet(CircularNet):
    """A stand-in whose first scale is added to the images: each sequence gives another map."""

    def features(self, x: Tensor, sequence: ScaleSequence) -> Tensor:  # type: ignore[override]
        return super().features(x + float(sequence.vertical[0]))

    def forward(self, x: Tensor, sequence: ScaleSequence) -> Tensor:  # type: ignore[override]
        return self.features(x, sequence).mean(dim=(2, 3))


def sequences_of(*scales: str) -> list[ScaleSequence]:
    return [ScaleSequence.parse(scale) for scale in scales]


def images(n: int = 5, size: int = 12, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_exact(result: ShiftSimilarity, tolerance: float = 1e-12) -> None:
    """Every image's map moved along perfectly."""
    assert result.skipped == 0
    for value in (result.cosine_mean, *result.per_image, *result.ci95):
        assert value is not None
        assert abs(value - 1) <= tolerance, f"similarity {value}, want 1"
    assert result.cosine_std <= tolerance
    assert result.consistency in (None, 1.0)


# ---------------------------------------------------------------- controls with a known answer


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("cosine", ["flatten", "position"])
def test_shift_zero_scores_exactly_one(dtype: torch.dtype, tolerance: float, cosine: str) -> None:
    net = CircularNet(stride=2, dtype=dtype)
    result = shift_similarity(net, images(dtype=dtype), 0, total_scale=Fraction(1, 2), cut=1, cosine=cosine)  # type: ignore[arg-type]
    assert_exact(result, tolerance)
    assert result.consistency == 1


def test_a_circular_net_of_stride_one_is_exact_at_any_shift() -> None:
    assert_exact(shift_similarity(CircularNet(), images(), 6, samples=60, **circular()))


def test_a_stride_two_net_is_exact_at_even_shifts_only() -> None:
    found = similarity_map(CircularNet(stride=2), images(8), 3, **circular(Fraction(1, 2)))
    assert len(found.cosine) == 7
    assert all(len(row) == 7 for row in found.cosine)
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            value = found.cosine[3 + dy][3 + dx]
            assert value is not None
            if dy % 2 == 0 and dx % 2 == 0:
                assert abs(value - 1) < 1e-12, (dy, dx, value)
            else:
                assert value < 0.98, (dy, dx, value)


def ignore_the_shift(features: Tensor, dy: Tensor, dx: Tensor, **_: object) -> Tensor:
    return features


def shift_the_wrong_way(features: Tensor, dy: Tensor, dx: Tensor, **options: object) -> Tensor:
    return shift_map_back(features, -dy, -dx, **options)  # type: ignore[arg-type]


def swap_the_axes(features: Tensor, dy: Tensor, dx: Tensor, **options: object) -> Tensor:
    return shift_map_back(features, dx, dy, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", [ignore_the_shift, shift_the_wrong_way, swap_the_axes])
def test_the_control_catches_a_faulty_probe(fault: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "shift_map_back", fault)
    with pytest.raises(AssertionError, match="want 1"):
        assert_exact(shift_similarity(CircularNet(), images(), 6, samples=60, **circular()))


def test_the_control_catches_a_probe_that_never_shifts_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "shift_images", lambda batch, dy, dx, **_: batch)
    with pytest.raises(AssertionError, match="want 1"):
        assert_exact(shift_similarity(CircularNet(), images(), 6, samples=60, **circular()))


def test_quarter_pixel_shifts_of_a_smooth_net_are_undone_well_and_get_worse_for_a_wrong_total_scale() -> None:
    smooth = F.interpolate(images(6, size=6), size=(32, 32), mode="bicubic", align_corners=False)
    pool = partial(F.avg_pool2d, kernel_size=4)
    right = shift_similarity(pool, smooth, 6, samples=60, border="reflect")
    wrong = shift_similarity(pool, smooth, 6, samples=60, border="reflect", total_scale=Fraction(1, 3))
    assert right.consistency is None
    assert right.cosine_mean > 0.97
    assert wrong.cosine_mean < right.cosine_mean - 0.02


# ---------------------------------------------------------------- what is reported


class CornerNet(CircularNet):
    """Its label is read at one corner of the map, so that it does change when the image moves."""

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[:, :, 0, 0]


@pytest.mark.parametrize(
    ("border", "fill", "cubic_a", "outside", "cosine"),
    [
        ("zero", 0.0, -0.5, "edge", "flatten"),
        ("reflect", 0.0, -0.75, "zero", "flatten"),
        ("zero", 0.7, -0.5, "edge", "position"),
    ],
)
def test_the_row_is_what_its_pairs_say_one_by_one(border, fill, cubic_a, outside, cosine) -> None:
    net, batch = CornerNet(stride=2), images(4, size=10)
    choices: Choices = {"border": border, "fill": fill, "cubic_a": cubic_a, "outside": outside, "cosine": cosine}
    choices |= {"cut": 1, "total_scale": Fraction(1, 2)}
    result = shift_similarity(net, batch, 3, samples=10, seed=9, **choices)
    values, same = [], []
    with torch.no_grad():
        for p, (dy, dx) in enumerate(draw_shifts(10, 3, seed=9)[:, :, None]):
            image = batch[p % 4][None]
            moved = shift_images_literal(image, dy, dx, border, fill)
            back = shift_map_back_literal(net.features(moved), dy / 2, dx / 2, cubic_a, outside)
            values.append(cosine_after_cut(net.features(image), back, cut=1, per=cosine).item())
            same.append(bool(net(image).argmax() == net(moved).argmax()))
    assert result.cosine_mean == pytest.approx(sum(values) / 10, abs=1e-12)
    assert result.cosine_std == pytest.approx(torch.tensor(values, dtype=torch.float64).std(correction=0).item())
    assert 0 < sum(same) < 10
    assert result.consistency == sum(same) / 10
    assert result.per_image == pytest.approx([sum(values[i::4]) / len(values[i::4]) for i in range(4)], abs=1e-12)
    assert result.samples == 10
    assert result.skipped == 0
    assert result.max_shift == 3
    assert result.ci95[0] < result.cosine_mean < result.ci95[1]
    assert result.sequence_means == ()
    assert result.sequence_std is None


def test_skipped_pairs_are_counted_and_left_out() -> None:
    batch = images(4)
    batch[1] = 0
    result = shift_similarity(lambda x: x.relu(), batch, 2, total_scale=1, samples=8)
    assert result.skipped == 2
    assert result.samples == 8
    assert result.per_image[1] is None
    assert None not in (result.per_image[0], *result.per_image[2:])
    with pytest.raises(CcnetError, match="nothing to compare"):
        shift_similarity(lambda x: x * 0, batch, 2, total_scale=1)


def test_fewer_samples_than_images_use_the_first_images() -> None:
    net = partial(F.avg_pool2d, kernel_size=2)
    few = shift_similarity(net, images(6), 2, samples=3, total_scale=Fraction(1, 2), cut=1)
    first = shift_similarity(net, images(6)[:3], 2, total_scale=Fraction(1, 2), cut=1)
    assert few.per_image == pytest.approx(first.per_image, abs=1e-12)
    assert len(few.per_image) == 3


def test_the_seed_decides_everything_and_the_batch_size_nothing() -> None:
    net = CircularNet(stride=2)
    run = partial(shift_similarity, net, images(7), 4, samples=30, total_scale=Fraction(1, 2), cut=1)
    once = run(seed=4)
    assert run(seed=4) == once
    assert run(seed=5).cosine_mean != once.cosine_mean
    for batch_size in (1, 3, 1000):
        other = run(seed=4, batch_size=batch_size)
        assert other.per_image == pytest.approx(once.per_image, abs=1e-12)
        assert other.consistency == once.consistency


def test_the_bootstrap_interval_covers_the_mean_and_narrows_with_more_images() -> None:
    net = CircularNet(stride=2)
    run = partial(shift_similarity, net, max_shift=3, total_scale=Fraction(1, 2), cut=1)
    few, many = run(images=images(8)), run(images=images(200))
    width = [row.ci95[1] - row.ci95[0] for row in (few, many)]
    assert 0 < width[1] < width[0] / 2
    # Independent of the bootstrap: 2 x 1.96 standard errors over images.
    assert width[1] == pytest.approx(2 * 1.96 * many.cosine_std / math.sqrt(200), rel=0.2)
    alone = run(images=images(1), samples=20)
    assert alone.ci95 == pytest.approx((alone.cosine_mean, alone.cosine_mean), abs=1e-12)


def test_the_protocol_is_json_and_names_every_choice() -> None:
    result = shift_similarity(
        CircularNet(), images(), 2, total_scale=1, include_zero=False, fill=[1.0, -1.0], cosine="position", cut=1
    )
    told = json.loads(json.dumps(result.protocol))
    for field in fields(Protocol):
        assert field.name in told
    assert told["fill"] == [1.0, -1.0]
    assert told["cosine"] == "position"
    assert told["cut"] == 1
    assert told["outside"] == "edge"
    assert told["include_zero"] is False
    assert told["total_scale"] == "1"
    assert told["seed"] == 0
    assert told["images"] == 5
    assert told["sequences"] == []
    assert json.loads(json.dumps(result.row()))["cosine_mean"] == result.cosine_mean


def test_every_field_of_the_protocol_is_a_keyword() -> None:
    assert Choices.__annotations__.keys() == {field.name for field in fields(Protocol)}


def test_a_circular_border_reads_round_the_map_unless_told_otherwise() -> None:
    assert Protocol().reads_outside == "edge"
    assert Protocol(border="circular").reads_outside == "circular"
    assert Protocol(border="circular", outside="zero").reads_outside == "zero"


def test_table_1_has_one_row_for_each_radius_and_one_progress() -> None:
    seen: list[tuple[int, int]] = []
    rows = table1(
        CircularNet(stride=2),
        images(size=16),
        (1, 2, 4),
        total_scale=Fraction(1, 2),
        batch_size=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert [row.max_shift for row in rows] == [1, 2, 4]
    assert rows[2] == shift_similarity(CircularNet(stride=2), images(size=16), 4, total_scale=Fraction(1, 2))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (15, 15)
    assert {total for _, total in seen} == {15}


def test_the_map_at_one_shift_is_the_mean_of_that_shift() -> None:
    batch, net = images(3), CircularNet(stride=2)
    found = similarity_map(net, batch, 2, total_scale=Fraction(1, 2), cut=1, batch_size=4)
    dy, dx = torch.full((3,), -1), torch.full((3,), 2)
    back = shift_map_back(net.features(shift_images(batch, dy, dx)), dy / 2, dx / 2)
    want = cosine_after_cut(net.features(batch), back, cut=1).mean().item()
    assert found.cosine[1][4] == pytest.approx(want, abs=1e-12)
    assert found.cosine[2][2] == pytest.approx(1, abs=1e-12)
    assert found.samples == 75
    assert found.skipped == 0
    assert json.loads(json.dumps(found.protocol))["images"] == 3


def test_noise_is_gaussian_and_seeded() -> None:
    noise = noise_images(64, (3, 32, 32), seed=2)
    assert noise.shape == (64, 3, 32, 32)
    assert noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert torch.equal(noise, noise_images(64, (3, 32, 32), seed=2))
    assert not torch.equal(noise, noise_images(64, (3, 32, 32), seed=3))


# ---------------------------------------------------------------- models


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


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_shift": -1}, "max_shift is a whole number of at least 0; got -1"),
        ({"max_shift": 1.5}, "max_shift is a whole number"),
        ({"max_shift": True}, "max_shift is a whole number"),
        ({"max_shift": 12}, "allowed are 0 to 11"),
        ({"samples": 0}, "samples is a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size is a whole number of at least 1"),
        ({"seed": -3}, "seed is a whole number of at least 0"),
        ({"border": "wrap"}, "border is one of 'zero', 'circular', 'reflect'; got 'wrap'"),
        ({"outside": "mirror"}, "outside is one of None, 'edge', 'zero', 'circular'"),
        ({"cosine": "mean"}, "cosine is one of"),
        ({"members": "all"}, "members is one of"),
        ({"cubic_a": 0.5}, r"cubic_a lies in \[-1, 0\]"),
        ({"cut": -1}, "cut is a whole number of at least 0"),
        ({"cut": 6}, "at most 5"),
        ({"fill": (1, 2, 3)}, "one a channel"),
        ({"total_scale": 0}, "a scale must be above 0"),
        ({"total_scale": Fraction(1, 4)}, "give the total_scale of this model"),
        ({"sequences": [1]}, "takes no scale sequence"),
    ],
    ids=str,
)
def test_an_argument_out_of_range_is_named(arguments: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"max_shift": 2, "total_scale": 1, "cut": 1}
    with pytest.raises(CcnetError, match=message):
        shift_similarity(CircularNet(), images(), **(good | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(2, 12, 12), torch.zeros(0, 2, 12, 12), torch.zeros(1, 2, 12, 12, dtype=torch.uint8), [[1.0]]],
    ids=["three axes", "no image", "bytes", "list"],
)
def test_images_of_another_kind_are_refused(bad: object) -> None:
    with pytest.raises(CcnetError, match=r"float tensor \[N, C, H, W\]"):
        shift_similarity(CircularNet(), bad, 2, total_scale=1)  # type: ignore[arg-type]


def test_maps_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(CcnetError, match=r"must be maps \[5, C, h, w\]; got shape \[5, 2\]"):
        shift_similarity(lambda x: x.mean(dim=(2, 3)), images(), 2, total_scale=1)
    with pytest.raises(CcnetError, match="NaN or infinity"):
        shift_similarity(lambda x: x / 0, images(), 2, total_scale=1)
    with pytest.raises(CcnetError, match="got int"):
        shift_similarity(3, images(), 2)  # type: ignore[arg-type]


def test_sequences_must_be_some() -> None:
    with pytest.raises(CcnetError, match="sequences is empty"):
        shift_similarity(SequenceNet(), images(), 2, sequences=[], total_scale=1)
    with pytest.raises(CcnetError, match="ensemble_size is a whole number of at least 1"):
        shift_similarity(SequenceNet(), images(), 2, ensemble_size=0, total_scale=1)
    with pytest.raises(CcnetError, match="max_shifts is empty"):
        table1(CircularNet(), images(), ())
