"""What the shift probes refuse, and the words they do it with."""

from fractions import Fraction

import pytest
import torch

from ccnet.equivariance import shift_similarity, table1
from ccnet.errors import CcnetError
from tests.ccnet.shift_controls import CircularNet, SequenceNet, images


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
        ({"border": "wrap"}, "border is one of 'zero', 'circular', 'reflect', 'crop'; got 'wrap'"),
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
