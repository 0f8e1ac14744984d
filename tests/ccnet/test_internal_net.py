"""K_theta: shapes, and the variance of what it generates at initialisation (A.2)."""

import pytest
import torch

from ccnet import CCConv2d
from ccnet.internal_net import InternalNet


def test_shapes_of_both_inputs():
    points = torch.rand(5, 2)
    assert InternalNet(2, 3, (4, 1), kernel_input="distance")(points).shape == (5, 3, 2)
    assert InternalNet(2, 3, (4, 1), kernel_input="offset")(points).shape == (5, 3, 2, 4, 1)


def test_the_layers_are_those_of_table_2():
    net = InternalNet(32, 64, (3, 3), kernel_input="distance")
    assert [tuple(p.shape) for p in net.parameters() if p.dim() == 2] == [(16, 2), (16, 16), (64 * 32, 16)]


@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
@pytest.mark.parametrize(("channels", "kernel_size"), [((32, 64), (3, 3)), ((64, 64), (4, 4)), ((3, 32), (3, 3))])
def test_generated_weights_start_with_the_variance_of_a_conv2d(kernel_input, channels, kernel_size):
    torch.manual_seed(0)
    reach = torch.tensor(kernel_size) if kernel_input == "distance" else torch.ones(2)
    points = (torch.rand(30, 2) - 0.5) * reach
    ratios = []
    for _ in range(60):
        weights = CCConv2d(*channels, kernel_size, kernel_input=kernel_input).kernel(points).detach()
        reference = torch.nn.Conv2d(*channels, kernel_size).weight.detach().var()
        ratios.append(weights.flatten(1).var(dim=1) / reference)  # one variance an offset
    ratio = torch.stack(ratios)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.06)
    assert ratio.min() > 0.6
    assert ratio.max() < 1.6


def test_generated_weights_vary_with_the_coordinate_from_the_start():
    torch.manual_seed(0)
    points = torch.tensor([[-0.4, -0.4], [0.4, 0.4]])
    weights = InternalNet(16, 16, (3, 3))(points)
    assert (weights[0] - weights[1]).std() > 0.05 * weights.std()
