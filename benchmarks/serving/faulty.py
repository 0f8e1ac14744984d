"""A service whose model fails at one picture: `python -m benchmarks.serving.faulty`, with the settings of the service.

What a defect in a model or a kernel would be: an exception in the middle of a batch, on the inference thread.
"""

from typing import Any

from torch import Tensor

from ccnet import ScaleEnsemble
from service.__main__ import main

POISON = 249  # grey value of a picture of this one value, at which the model fails

_healthy = ScaleEnsemble.__call__


def _faulty(self: ScaleEnsemble, x: Tensor, *arguments: Any, **options: Any) -> Any:
    inner = x[:, :, 4:-4, 4:-4].flatten(1)
    uniform = inner.amax(dim=1) == inner.amin(dim=1)
    if bool((uniform & (x.flatten(1).amax(dim=1) > x.flatten(1).amin(dim=1))).any()):
        raise RuntimeError("a fault was injected here")
    return _healthy(self, x, *arguments, **options)


if __name__ == "__main__":
    ScaleEnsemble.__call__ = _faulty  # type: ignore[method-assign]
    main()
