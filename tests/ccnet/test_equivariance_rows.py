"""What the shift probes report: every named choice of the protocol, against literal oracles."""

import json
import math
from dataclasses import fields
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.equivariance import (
    Choices,
    Protocol,
    cosine_after_cut,
    draw_shifts,
    noise_images,
    shift_images,
    shift_map_back,
    shift_similarity,
    similarity_map,
    table1,
)
from ccnet.errors import CcnetError
from tests.ccnet.literal_shifts import shift_images_literal, shift_map_back_literal
from tests.ccnet.shift_controls import CircularNet, images


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
    run = partial(shift_similarity, net, images(7), 4, samples=15, total_scale=Fraction(1, 2), cut=1)
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
