"""K_theta: shapes, and the variance of what it generates at initialisation (A.2)."""

import pytest
import torch
from torch import nn

from ccnet import CcnetError
from ccnet.internal_net import InternalNet


def test_shapes_of_both_inputs():
    points = torch.rand(5, 2)
    assert InternalNet(2, 3, (4, 1), kernel_input="distance")(points).shape == (5, 3, 2)
    assert InternalNet(2, 3, (4, 1), kernel_input="offset")(points).shape == (5, 3, 2, 4, 1)


def test_the_layers_are_those_of_table_2():
    net = InternalNet(32, 64, (3, 3), kernel_input="distance")
    assert [tuple(p.shape) for p in net.parameters() if p.dim() == 2] == [(16, 2), (16, 16), (64 * 32, 16)]


def test_the_hidden_layers_are_followed_by_leaky_relu_and_the_last_is_linear():
    net, points = InternalNet(2, 3, (3, 3), kernel_input="distance", hidden=(5, 4)), torch.randn(7, 2)
    hidden = [layer for linear in net.hidden for layer in (linear, nn.LeakyReLU())]
    torch.testing.assert_close(net(points), nn.Sequential(*hidden, net.last)(points).view(7, 3, 2))


def test_the_last_layers_rows_keep_the_order_that_checkpoints_have():
    net = InternalNet(2, 3, (4, 5)).requires_grad_(False)
    net.last.weight.zero_()
    net.last.bias.copy_(torch.arange(4 * 3 * 5 * 2))
    expected = torch.arange(4 * 3 * 5 * 2.0).view(4, 3, 5, 2).permute(1, 3, 0, 2)  # stored as (K_h, C_out, K_w, C_in)
    assert torch.equal(net(torch.zeros(1, 2))[0], expected)


@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
@pytest.mark.parametrize(("channels", "kernel_size"), [((32, 64), (3, 3)), ((16, 32), (4, 4)), ((3, 32), (3, 3))])
def test_generated_weights_start_with_the_variance_of_a_conv2d(kernel_input, channels, kernel_size):
    torch.manual_seed(0)
    reach = torch.tensor(kernel_size) if kernel_input == "distance" else torch.ones(2)
    points = (torch.rand(20, 2) - 0.5) * reach
    networks = [InternalNet(channels[0], channels[1], kernel_size, kernel_input=kernel_input) for _ in range(40)]
    weights = torch.stack([net(points).detach().flatten(1) for net in networks])  # [networks, offsets, weights]
    convolutions = [nn.Conv2d(channels[0], channels[1], kernel_size) for _ in range(40)]
    expected = torch.stack([convolution.weight.detach() for convolution in convolutions]).var()
    ratio = weights.transpose(0, 1).flatten(1).var(dim=1) / expected  # one variance an offset, over many networks
    assert float(ratio.mean()) == pytest.approx(1, abs=0.05)
    assert ratio.min() > 0.85  # the share that varies is smallest at the centre of the support and largest at its rim
    assert ratio.max() < 1.15


def test_generated_weights_vary_with_the_coordinate_from_the_start():
    torch.manual_seed(0)
    points = torch.tensor([[-0.4, -0.4], [0.4, 0.4]])
    weights = InternalNet(16, 16, (3, 3))(points)
    assert (weights[0] - weights[1]).std() > 0.05 * weights.std()


@pytest.mark.parametrize("points", [torch.rand(2), torch.rand(4, 3)])
def test_points_of_another_shape_are_refused(points):
    with pytest.raises(CcnetError, match=r"points are \[M, 2\]"):
        InternalNet(1, 1, (3, 3))(points)
