"""Initial weights whose maps neither fade nor grow from layer to layer."""

import torch
from torch import Tensor, nn

from ccnet.errors import CcnetError
from ccnet.layer import CCConv2d


@torch.no_grad()
def unit_variance_(model: nn.Module, *arguments: object) -> None:
    """Scale every layer but the last, in place, so that its output has variance 1 on one batch.

    The layers are the `CCConv2d`, `Conv2d` and `Linear` ones, in the order in which a forward pass calls them; each is
    linear in what is scaled (of a CC layer the last layer of K_theta and the bias), so that one pass is enough. The
    last of the model's modules is left as it is: logits had better begin small.

    Args:
        model: the network; its parameters change.
        arguments: of its forward pass: images, and a scale sequence for a `CCNet`.

    Raises:
        CcnetError: the output of a layer does not vary, or is not finite.

    Source: Mishkin and Matas, "All you need is a good init", 2016 (arXiv 1511.06422), without its orthogonal start.
    """
    layers = _weighted_layers(model)
    handles = [layer.register_forward_hook(_scale) for layer in layers[:-1]]
    try:
        model(*arguments)
    finally:
        for handle in handles:
            handle.remove()


def _weighted_layers(model: nn.Module) -> list[nn.Module]:
    """In the order of the model's modules, without those inside a CC layer."""
    found: list[nn.Module] = []
    for child in model.children():
        found += [child] if isinstance(child, (CCConv2d, nn.Conv2d, nn.Linear)) else _weighted_layers(child)
    return found


def _scale(layer: nn.Module, _inputs: object, out: Tensor) -> Tensor:
    deviation = out.std()
    if not 0 < float(deviation) < float("inf"):
        raise CcnetError(f"the output of a {type(layer).__name__} has standard deviation {float(deviation)}")
    parts = [layer.kernel.last, layer] if isinstance(layer, CCConv2d) else [layer]
    for part in parts:
        for parameter in part.parameters(recurse=False):
            parameter.div_(deviation)
    return out / deviation
