"""Mirrored and moved views of a picture."""

import pytest
import torch

from ccnet.errors import CcnetError
from ccnet.views import MAX_VIEWS, View, input_views


def literal(x: torch.Tensor, view: View, fill: float) -> torch.Tensor:
    """Pixel by pixel."""
    height, width = x.shape[2:]
    moved = torch.full_like(x, fill)
    for i in range(height):
        for j in range(width):
            row, column = i - view.down, j - view.right
            if 0 <= row < height and 0 <= column < width:
                moved[:, :, i, j] = x[:, :, row, width - 1 - column if view.mirrored else column]
    return moved


@pytest.mark.parametrize("view", [*input_views(MAX_VIEWS), View(True, 2, -3), View(False, 7, 0), View(True, 0, -9)])
def test_every_view_is_the_picture_mirrored_then_moved(view: View):
    x = torch.rand(2, 3, 5, 4)
    torch.testing.assert_close(view(x, [0.25]), literal(x, view, 0.25), rtol=0, atol=0)


def test_what_enters_at_the_rim_may_differ_from_channel_to_channel():
    moved = View(down=1)(torch.ones(1, 2, 3, 3), (5.0, 7.0))
    assert moved[0, :, 0].unique(dim=1).tolist() == [[5.0], [7.0]]
    assert (moved[:, :, 1:] == 1).all()


def test_views_begin_with_the_picture_itself_and_its_mirror_image_and_none_comes_twice():
    views = input_views(MAX_VIEWS)
    assert views[:2] == [View(), View(mirrored=True)]
    assert len(set(views)) == MAX_VIEWS
    assert all(input_views(k) == views[:k] for k in range(1, MAX_VIEWS + 1))


def test_the_picture_itself_is_not_copied_and_no_view_changes_it():
    x = torch.rand(1, 1, 4, 4)
    before = x.clone()
    for view in input_views(MAX_VIEWS):
        view(x)
    assert View()(x) is x
    assert torch.equal(x, before)


@pytest.mark.parametrize("count", [0, -1, MAX_VIEWS + 1])
def test_numbers_of_views_that_there_are_not_are_refused(count: int):
    with pytest.raises(CcnetError, match=f"views .*{count}$|{count} views"):
        input_views(count)
