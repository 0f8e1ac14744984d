"""Controls of the shift probes: networks whose answer is known, and faults that must be caught."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.equivariance import measure, shift_map_back, shift_similarity, similarity_map
from tests.ccnet.shift_controls import CircularNet, assert_exact, circular, images


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
