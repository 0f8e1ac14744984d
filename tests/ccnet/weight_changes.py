"""A small layer, and every way in which its weights may change under a plan that was made of them."""

from collections.abc import Callable

import torch
from torch import nn

from ccnet import CCConv2d
from ccnet.internal_net import InternalNet


def small_layer() -> CCConv2d:
    """The same weights each time."""
    torch.manual_seed(0)
    return CCConv2d(3, 20, 3).eval()


def train_a_step(layer: CCConv2d) -> None:
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    layer(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()


def load_another_state(layer: CCConv2d) -> None:
    torch.manual_seed(1)
    layer.load_state_dict(CCConv2d(3, 20, 3).state_dict())


def round_through_half_precision(layer: CCConv2d) -> None:
    layer.to(torch.float16).to(torch.float32)


def replace_a_parameter(layer: CCConv2d) -> None:
    layer.kernel.last.bias = nn.Parameter(torch.ones_like(layer.kernel.last.bias))


def replace_the_kernel(layer: CCConv2d) -> None:
    torch.manual_seed(1)
    layer.kernel = InternalNet(3, 20, (3, 3))


def change_the_bias_in_place(layer: CCConv2d) -> None:
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.add_(1)


CHANGES: tuple[Callable[[CCConv2d], None], ...] = (
    train_a_step,
    load_another_state,
    round_through_half_precision,
    replace_a_parameter,
    replace_the_kernel,
    change_the_bias_in_place,
)
