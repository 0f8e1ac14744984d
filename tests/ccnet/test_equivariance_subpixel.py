"""Shifts by fractions of a pixel: literal sums, and what must be exact."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ccnet.equivariance import shift_grid, shift_images, shift_map_back, shift_report
from ccnet.errors import CcnetError
from tests.ccnet.shift_controls import CircularNet, images

MOVES = (torch.tensor([0.5, -1.25, 2.0, 0.0]), torch.tensor([-0.75, 0.0, 1.0, 1 / 3]))


def moved_by_fourier(batch: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Each row and column as its Fourier series, read elsewhere; the highest frequency of an even size as a cosine."""

    def axis(values: np.ndarray, shift: float) -> np.ndarray:
        size = values.shape[-1]
        spectrum = np.fft.fft(values)
        out = np.zeros(values.shape)
        for i in range(size):
            for frequency in range(size):
                signed = frequency if frequency <= size // 2 else frequency - size
                angle = 2 * math.pi * signed * (i - shift) / size
                if 2 * frequency == size:  # half of it turns one way, half the other
                    out[..., i] += (spectrum[..., frequency] * math.cos(angle)).real / size
                else:
                    out[..., i] += (spectrum[..., frequency] * np.exp(1j * angle)).real / size
        return out

    found = []
    for image, down, right in zip(batch.numpy(), dy.tolist(), dx.tolist(), strict=True):
        found.append(np.swapaxes(axis(np.swapaxes(axis(image, right), -1, -2), down), -1, -2))
    return torch.from_numpy(np.stack(found))


def moved_by_lanczos(batch: Tensor, dy: Tensor, dx: Tensor, border: str, fill: float, margin: int) -> Tensor:
    """The weighted sum over six by six pixels, one output at a time."""

    def weights(position: float) -> list[tuple[int, float]]:
        found = []
        for tap in range(math.floor(position) - 2, math.floor(position) + 4):
            d = position - tap
            sinc = [1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x) for x in (d, d / 3)]
            found.append((tap, sinc[0] * sinc[1] if abs(d) < 3 else 0.0))
        total = sum(weight for _, weight in found)
        return [(tap, weight / total) for tap, weight in found]

    def inside(i: int, size: int) -> int:
        if border == "reflect":
            i = abs(i)
            return i if i < size else 2 * (size - 1) - i
        return i

    count, channels, height, width = batch.shape
    out = torch.zeros(count, channels, height - 2 * margin, width - 2 * margin, dtype=batch.dtype)
    for n in range(count):
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                for y, down in weights(i + margin - float(dy[n])):
                    for x, right in weights(j + margin - float(dx[n])):
                        row, column = inside(y, height), inside(x, width)
                        outside = not (0 <= row < height and 0 <= column < width)
                        pixel = (
                            torch.full((channels,), fill, dtype=batch.dtype) if outside else batch[n, :, row, column]
                        )
                        out[n, :, i, j] += down * right * pixel
    return out


@pytest.mark.parametrize("size", [7, 8])
def test_a_circular_shift_is_that_of_the_fourier_series(size: int) -> None:
    batch = images(4, size=size)
    torch.testing.assert_close(
        shift_images(batch, *MOVES, border="circular"), moved_by_fourier(batch, *MOVES), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("border", "fill", "margin"), [("zero", 0.7, 0), ("reflect", 0.0, 0), ("crop", 0.0, 5)])
def test_other_shifts_are_lanczos_sums(border: str, fill: float, margin: int) -> None:
    batch = images(4, size=14)
    found = shift_images(batch, *MOVES, border=border, fill=fill, margin=margin)  # type: ignore[arg-type]
    torch.testing.assert_close(found, moved_by_lanczos(batch, *MOVES, border, fill, margin), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("border", "margin"), [("zero", 0), ("circular", 0), ("reflect", 0), ("crop", 6)])
def test_a_whole_shift_beside_a_broken_one_changes_no_bit(border: str, margin: int) -> None:
    batch = images(3, size=15)
    whole = torch.tensor([2, -1, 0]), torch.tensor([0, 3, -2])
    broken = torch.cat([whole[0].double(), torch.tensor([0.5])]), torch.cat([whole[1].double(), torch.tensor([0.5])])
    alone = shift_images(batch, *whole, border=border, fill=0.3, margin=margin)  # type: ignore[arg-type]
    together = shift_images(batch[[0, 1, 2, 2]], *broken, border=border, fill=0.3, margin=margin)  # type: ignore[arg-type]
    torch.testing.assert_close(together[:3], alone, rtol=0, atol=1e-15)


def test_two_halves_make_a_whole_where_nothing_is_lost() -> None:
    batch, half = images(2, size=9), torch.tensor([0.5, 0.5])
    twice = shift_images(shift_images(batch, half, -half, border="circular"), half, -half, border="circular")
    torch.testing.assert_close(twice, batch.roll((1, -1), dims=(2, 3)), rtol=0, atol=1e-12)


def test_a_flat_picture_stays_flat() -> None:
    flat = torch.full((4, 2, 14, 14), 0.4, dtype=torch.float64)
    for border in ("circular", "reflect", "zero"):
        torch.testing.assert_close(shift_images(flat, *MOVES, border=border, fill=0.4), flat, rtol=0, atol=1e-12)


def test_a_crop_shows_what_lies_beyond() -> None:
    source = images(2, size=12)
    dy, dx = torch.tensor([2, -1]), torch.tensor([0, 3])
    found = shift_images(source, dy, dx, border="crop", margin=3)
    for n in range(2):
        top, left = 3 - int(dy[n]), 3 - int(dx[n])
        assert torch.equal(found[n], source[n, :, top : top + 6, left : left + 6])


@pytest.mark.parametrize("shift", [torch.tensor([4, 0]), torch.tensor([3.5, 0.0])])
def test_a_crop_that_leaves_its_margin_is_refused(shift: Tensor) -> None:
    with pytest.raises(CcnetError, match=r"shift less|larger margin"):
        shift_images(images(2, size=12), shift, shift, border="crop", margin=3)


def test_the_ideal_way_back_undoes_the_ideal_shift() -> None:
    batch = images(4, size=9)
    moved = shift_images(batch, *MOVES, border="circular")
    torch.testing.assert_close(shift_map_back(moved, *MOVES, undo="ideal"), batch, rtol=0, atol=1e-12)


class LinearNet(nn.Module):
    """A circular convolution and nothing else: it commutes with every shift, of fractions too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular", dtype=torch.float64)

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean(dim=(2, 3))


def test_a_linear_circular_net_is_exact_at_every_sub_pixel_shift_and_its_relu_is_not() -> None:
    batch, half_steps = images(3, size=9), shift_grid(1, Fraction(1, 2))
    choices = {"border": "circular", "cut": 0, "total_scale": 1, "undo": "ideal"}
    linear = shift_report(LinearNet(), batch, half_steps, **choices)  # type: ignore[arg-type]
    assert min(row["feature_snr_db"] or 999 for row in linear.per_shift) > 250
    with_relu = shift_report(CircularNet(), batch, half_steps, **choices)  # type: ignore[arg-type]
    for row in with_relu.per_shift:
        assert row["dy"] is not None
        assert row["dx"] is not None
        whole = row["dy"] % 1 == 0 and row["dx"] % 1 == 0
        assert ((row["feature_snr_db"] or 999) > 250) == whole, row
