"""Initial weights under which no map fades."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ccnet import BlurConvNet, CCConv2d, CCNet, CcnetError, ConvNet, sample_scale_sequences
from ccnet.initialisation import unit_variance_

SIZE = (16, 16)
(SEQUENCE,) = sample_scale_sequences(1, seed=0, in_size=SIZE)


def networks() -> list[tuple[nn.Module, tuple[object, ...]]]:
    torch.manual_seed(0)
    return [
        (CCNet(1, in_size=SIZE), (SEQUENCE,)),
        (CCNet(1, in_size=SIZE, kernel_input="distance"), (SEQUENCE,)),
        (ConvNet(1, in_size=SIZE), ()),
        (BlurConvNet(1, in_size=SIZE), ()),
    ]


def outputs(network: nn.Module, *arguments: object) -> list[Tensor]:
    """Of every layer with weights, in order."""
    seen: list[Tensor] = []
    kinds = (CCConv2d, nn.Conv2d, nn.Linear)
    handles = [
        layer.register_forward_hook(lambda _layer, _inputs, out: seen.append(out.detach()))
        for name, layer in network.named_modules()
        if isinstance(layer, kinds) and ".kernel." not in name
    ]
    network(*arguments)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("index", range(4))
def test_every_layer_but_the_last_has_outputs_of_variance_one(index: int):
    network, more = networks()[index]
    x = torch.randn(8, 1, *SIZE)
    unit_variance_(network, x, *more)
    *inner, _ = outputs(network, x, *more)
    assert len(inner) == 10
    for out in inner:
        assert float(out.std()) == pytest.approx(1, abs=1e-3)


def test_the_last_layer_is_left_as_it_is_and_no_hook_stays():
    network, x = ConvNet(1, in_size=SIZE), torch.randn(8, 1, *SIZE)
    before = copy.deepcopy(network.head[-1].state_dict())
    unit_variance_(network, x)
    assert all(torch.equal(value, before[key]) for key, value in network.head[-1].state_dict().items())
    logits = network(x)
    assert torch.equal(network(x), logits)


def test_the_same_batch_gives_the_same_weights():
    (one, _), (two, _) = networks()[2], networks()[2]
    x = torch.randn(8, 1, *SIZE)
    for network in (one, two):
        unit_variance_(network, x)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_layer_that_says_the_same_of_everything_is_refused():
    network = ConvNet(1, in_size=SIZE)
    with torch.no_grad():
        for parameter in network.layers[3].parameters():
            parameter.zero_()
    with pytest.raises(CcnetError, match=r"output of a Conv2d has standard deviation 0\.0"):
        unit_variance_(network, torch.randn(8, 1, *SIZE))
