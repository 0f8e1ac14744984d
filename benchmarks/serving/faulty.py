"""A service whose model fails at one picture: `python -m benchmarks.serving.faulty`, with the settings of the service.

What a defect in a model or a kernel would be: an exception in the middle of a batch, on the inference thread.
"""

from collections.abc import Sequence

from torch import Tensor

from ccnet import ScaleEnsemble, ScaleSequence
from service.__main__ import main

POISON = 249  # grey value of a picture of this one value, at which the model fails

_healthy = ScaleEnsemble.member_logits


def failing(self: ScaleEnsemble, batches: Sequence[tuple[Tensor, Sequence[ScaleSequence]]]) -> list[Tensor]:
    """`ScaleEnsemble.member_logits` with a defect."""
    if any(_is_poison(x) for x, _ in batches):
        raise RuntimeError("a fault was injected here")
    return _healthy(self, batches)


def _is_poison(x: Tensor) -> bool:
    """Whether one of the images has one value inside, and another one around it."""
    inner, whole = x[:, :, 4:-4, 4:-4].flatten(1), x.flatten(1)
    return bool(((inner.amax(1) == inner.amin(1)) & (whole.amax(1) > whole.amin(1))).any())


if __name__ == "__main__":
    ScaleEnsemble.member_logits = failing  # type: ignore[method-assign]
    main()
