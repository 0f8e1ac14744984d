"""Pictures of every size and colour become what a network takes, and a batch gives what its pictures give alone."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ccnet import CcnetError
from ccnet.preprocessing import Preprocessing

GREY = Preprocessing(1, (28, 28), (32, 32), (0.25,), (0.5,))
RGB = Preprocessing(3, (28, 28), (32, 32), (0.1, 0.2, 0.3), (0.5, 0.25, 1.0))
AS_IT_IS = Preprocessing(1, (28, 28), (32, 32), (0.0,), (1 / 255,))  # the pixel values themselves


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def test_a_picture_of_the_content_size_is_padded_and_otherwise_untouched() -> None:
    images = noise(3, 28, 28, 1)
    x = AS_IT_IS(images)
    expected = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))).transpose(0, 3, 1, 2).astype(np.float32)
    torch.testing.assert_close(x, torch.from_numpy(expected))
    assert x.dtype == torch.float32


def test_a_picture_of_the_input_size_is_taken_as_already_padded() -> None:
    images = noise(2, 32, 32, 1)
    torch.testing.assert_close(AS_IT_IS(images)[:, 0], torch.from_numpy(images[..., 0]).float())


def test_pixels_are_scaled_to_one_then_normalised_by_channel() -> None:
    image = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    torch.testing.assert_close(RGB(image)[0, :, 0, 0], torch.tensor([0.9 / 0.5, 0.8 / 0.25, 0.7]))


def test_black_is_what_a_black_picture_becomes_and_what_pictures_lie_on() -> None:
    for preprocessing in (GREY, RGB):
        x = preprocessing(np.zeros((1, 28, 28, preprocessing.channels), dtype=np.uint8))
        black = torch.tensor(preprocessing.black)
        assert len(black) == preprocessing.channels
        torch.testing.assert_close(x, black.view(1, -1, 1, 1).expand_as(x))
        white = preprocessing(np.full((1, 28, 28, preprocessing.channels), 255, dtype=np.uint8))
        torch.testing.assert_close(white[0, :, 0, 0], black)  # the padding


def test_rgb_becomes_grey_as_pillow_makes_it() -> None:
    images = noise(1, 28, 28, 3)
    grey = np.asarray(Image.fromarray(images[0]).convert("L"))[None, ..., None]
    torch.testing.assert_close(GREY(images), GREY(grey.copy()), rtol=0, atol=0)


def test_grey_becomes_rgb_with_three_equal_channels() -> None:
    images = noise(2, 28, 28, 1)
    torch.testing.assert_close(RGB(images), RGB(images.repeat(3, axis=3)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("size", "content"),
    [
        ((56, 56), (28, 28)),
        ((56, 28), (28, 14)),
        ((10, 40), (7, 28)),
        ((7, 7), (28, 28)),
        ((1, 1), (28, 28)),
        ((300, 2), (28, 1)),
    ],
)
def test_any_other_size_fits_the_content_centred_on_black(size: tuple[int, int], content: tuple[int, int]) -> None:
    x = AS_IT_IS(np.full((1, *size, 1), 200, dtype=np.uint8))[0, 0]
    filled = x > 100
    rows, columns = filled.any(1).nonzero().ravel(), filled.any(0).nonzero().ravel()
    assert (len(rows), len(columns)) == content
    assert (int(rows[0]), int(columns[0])) == ((32 - content[0]) // 2, (32 - content[1]) // 2)
    torch.testing.assert_close(x[filled], torch.full((content[0] * content[1],), 200.0))
    assert int(x[~filled].abs().sum()) == 0


def test_shrinking_averages_instead_of_dropping_pixels() -> None:
    stripes = np.zeros((1, 280, 280, 1), dtype=np.uint8)
    stripes[:, ::2] = 200
    inner = AS_IT_IS(stripes)[0, 0, 8:24, 8:24]
    torch.testing.assert_close(inner, torch.full_like(inner, 100.0), atol=2, rtol=0)


def test_a_list_of_mixed_pictures_gives_what_each_gives_alone() -> None:
    pictures = [noise(28, 28, 1), noise(32, 32, 3), noise(50, 20, 3), noise(28, 28, 1)]
    together = RGB(pictures)
    assert together.shape == (4, 3, 32, 32)
    for picture, row in zip(pictures, together, strict=True):
        torch.testing.assert_close(RGB([picture])[0], row, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(40, 30, 3), (28, 28, 3), (32, 32, 3), (28, 28, 1)])
def test_a_uniform_list_a_batch_and_tensors_agree(shape: tuple[int, int, int]) -> None:
    images = noise(4, *shape)
    batch = RGB(images)
    torch.testing.assert_close(RGB(list(images)), batch, rtol=0, atol=0)
    torch.testing.assert_close(RGB(torch.from_numpy(images)), batch, rtol=0, atol=0)
    torch.testing.assert_close(RGB([torch.from_numpy(image) for image in images]), batch, rtol=0, atol=0)


def test_read_only_and_flipped_arrays_are_taken() -> None:
    images = noise(2, 28, 28, 1)
    images.flags.writeable = False
    torch.testing.assert_close(GREY(images[:, ::-1]), GREY(images[:, ::-1].copy()), rtol=0, atol=0)
    torch.testing.assert_close(GREY(list(images[:, ::-1])), GREY(images[:, ::-1].copy()), rtol=0, atol=0)


def test_no_pictures_give_no_rows() -> None:
    assert RGB([]).shape == (0, 3, 32, 32)
    assert RGB(noise(0, 50, 40, 1)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param(np.zeros((1, 28, 28, 1), np.float32), r"float32 \[1, 28, 28, 1\]; allowed is uint8", id="floats"),
        pytest.param(noise(28, 28, 1), r"allowed is uint8 \[N, H, W, C\]", id="one picture"),
        pytest.param([noise(1, 28, 28, 1)], r"allowed is uint8 \[H, W, C\]", id="a batch in a list"),
        pytest.param([noise(28, 28, 4)], "must be 1 .grey. or 3 .RGB.", id="RGBA"),
        pytest.param(noise(1, 1, 28, 28), "C, the last number", id="channels first"),
        pytest.param([noise(0, 28, 1)], "hold no pixels", id="no rows"),
        pytest.param(["shoe.png"], "type str", id="a path"),
    ],
)
def test_anything_else_is_refused(images: object, message: str) -> None:
    with pytest.raises(CcnetError, match=message):
        GREY(images)  # type: ignore[arg-type]


def test_it_survives_json() -> None:
    for preprocessing in (GREY, RGB):
        assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 2},
        {"channels": 3},
        {"content_size": [33, 28]},
        {"content_size": [28]},
        {"std": [0.0]},
        {"mean": [float("nan")]},
        {"mean": "a"},
        {"more": 1},
    ],
    ids=str,
)
def test_values_that_cannot_be_right_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(CcnetError):
        Preprocessing.from_dict(GREY.to_dict() | change)


def test_training_images_get_zero_mean_and_unit_variance_padding_included() -> None:
    images = noise(50, 28, 28, 3) // np.array([1, 2, 3], dtype=np.uint8)
    x = Preprocessing.for_images(images)(images).double()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.var((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)
