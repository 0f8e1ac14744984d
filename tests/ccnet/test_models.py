"""The networks of Table 3."""

import json

import pytest
import torch
from torch import nn

from ccnet import (
    BlurConvNet,
    CCConv2d,
    CCNet,
    CcnetError,
    ConvNet,
    ScaleSequence,
    SequenceError,
    sample_scale_sequences,
)


def test_parameter_counts_are_the_papers():
    assert sum(p.numel() for p in CCNet(3).parameters()) == 6_595_882
    assert sum(p.numel() for p in CCNet(3, kernel_input="distance").parameters()) == 2_770_474
    assert sum(p.numel() for p in ConvNet(3).parameters()) == 2_614_570


def test_layers_are_those_of_table_3():
    cc = [(m.out_channels, m.kernel_size[0]) for m in CCNet(3).modules() if isinstance(m, CCConv2d)]
    conv = [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in ConvNet(3).modules() if isinstance(m, nn.Conv2d)]
    assert cc == [(c, k) for c, k, _ in conv]
    assert conv == [(32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 3, 1), (64, 3, 1), (64, 3, 1), (64, 3, 1), (64, 4, 2)]


def test_three_fully_connected_layers_follow_with_a_relu_after_each_but_the_last():
    for network in (CCNet(3, 7), ConvNet(3, 7)):
        assert [type(m) for m in network.head] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
        sizes = [m.out_features for m in network.head if isinstance(m, nn.Linear)]
        assert sizes == [512, 512, 7]


def test_a_relu_follows_every_convolution():
    torch.manual_seed(0)
    x, (sequence,) = torch.randn(2, 1, 16, 16), sample_scale_sequences(1, seed=0, in_size=(16, 16))
    for network, arguments in ((CCNet(1, in_size=(16, 16)), (x, sequence)), (ConvNet(1, in_size=(16, 16)), (x,))):
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        for layer in network.layers:
            layer.register_forward_hook(lambda _layer, inputs, out, seen=seen: seen.append((inputs[0], out)))
        last = network.features(*arguments)
        for (_, out), following in zip(seen, [*(inputs for inputs, _ in seen[1:]), last], strict=True):
            assert torch.equal(out.clamp(min=0), following)
            assert not torch.equal(out, following)


@pytest.mark.parametrize(("channels", "classes", "size"), [(3, 10, (32, 32)), (1, 7, (28, 40))])
def test_maps_and_logits_have_the_stated_shapes(channels, classes, size):
    x = torch.rand(2, channels, *size)
    (sequence,) = sample_scale_sequences(1, seed=0, in_size=size)
    cc, conv = CCNet(channels, classes, in_size=size), ConvNet(channels, classes, in_size=size)
    for features, logits in ((cc.features(x, sequence), cc(x, sequence)), (conv.features(x), conv(x))):
        assert features.shape == (2, 64, size[0] // 4, size[1] // 4)
        assert (features >= 0).all()
        assert logits.shape == (2, classes)


def test_every_map_has_the_size_that_the_sequence_says():
    (sequence,) = sample_scale_sequences(1, seed=3)
    model, sizes = CCNet(1), []
    for layer in model.layers:
        layer.register_forward_hook(lambda _layer, _inputs, out: sizes.append(tuple(out.shape[2:])))
    model(torch.rand(1, 1, 32, 32), sequence)
    assert tuple(sizes) == sequence.shapes((32, 32))


def test_logits_do_not_depend_on_the_rest_of_the_batch():
    torch.manual_seed(0)
    model, x = CCNet(1, in_size=(16, 16)).eval(), torch.rand(33, 1, 16, 16)
    (sequence,) = sample_scale_sequences(1, seed=0, in_size=(16, 16))
    with torch.inference_mode():
        together = model(x, sequence)
        alone = torch.cat([model(x[:1], sequence), model(x[1:5], sequence), model(x[5:], sequence)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_backends_give_the_same_logits():
    torch.manual_seed(0)
    model, x = CCNet(1, in_size=(8, 12), hidden=(4, 4)).double(), torch.rand(2, 1, 8, 12, dtype=torch.float64)
    (sequence,) = sample_scale_sequences(1, seed=0, in_size=(8, 12))
    logits = []
    for backend in ("standard", "chunked", "discrete"):
        for layer in model.layers:
            assert isinstance(layer, CCConv2d)
            layer.backend = backend
        logits.append(model(x, sequence).detach())
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-10)
    torch.testing.assert_close(logits[0], logits[2], rtol=0, atol=1e-10)


def test_a_step_against_the_gradient_lowers_the_loss():
    torch.manual_seed(0)
    model = CCNet(1, in_size=(16, 16), hidden=(4, 4))
    x, y = torch.rand(16, 1, 16, 16), torch.arange(16) % 10
    (sequence,) = sample_scale_sequences(1, seed=0, in_size=(16, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(x, sequence), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        # At scale 1 the first layer's only offset is 0, which its first weights are multiplied with.
        idle = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()]
        assert idle == ["layers.0.kernel.hidden.0.weight"]
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_config_rebuilds_the_network():
    model = CCNet(1, 7, in_size=(28, 28), kernel_input="distance", hidden=(8,))
    again = CCNet(**json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    assert again.config == model.config


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 1, 28, 28), (1, 32, 32)])
def test_images_of_another_shape_are_refused(shape):
    (sequence,) = sample_scale_sequences(1, seed=0)
    for call in (lambda x: CCNet(1)(x, sequence), ConvNet(1)):
        with pytest.raises(CcnetError, match=r"takes images \[N, 1, 32, 32\]"):
            call(torch.zeros(shape))


def test_a_sequence_for_another_network_is_refused():
    with pytest.raises(SequenceError, match="8 layers"):
        CCNet(1)(torch.zeros(1, 1, 32, 32), ScaleSequence.parse("1 1/4"))
    with pytest.raises(SequenceError, match="ScaleSequence"):
        CCNet(1)(torch.zeros(1, 1, 32, 32), "1 1/4")


BAD_NETWORKS = [
    {"in_size": (30, 32)},
    {"in_size": (0, 32)},
    {"in_size": 32},
    {"in_size": (32.0, 32)},
    {"in_size": (32, 32, 3)},
    {"classes": 0},
    {"classes": 2.5},
    {"in_channels": 0},
]


@pytest.mark.parametrize("arguments", BAD_NETWORKS, ids=str)
def test_a_network_that_cannot_be_is_refused(arguments):
    for network in (CCNet, ConvNet):
        with pytest.raises(CcnetError):
            network(**arguments)


# The blur-pooled network.


@pytest.mark.parametrize("blur_size", [3, 5])
@pytest.mark.parametrize("size", [(32, 32), (8, 28)])
def test_the_blur_pooled_network_has_the_parameters_and_the_maps_of_convnet(blur_size, size):
    conv, blurred = ConvNet(1, in_size=size), BlurConvNet(1, in_size=size, blur_size=blur_size)
    assert {key: value.shape for key, value in blurred.state_dict().items()} == {
        key: value.shape for key, value in conv.state_dict().items()
    }
    x = torch.rand(2, 1, *size)
    assert blurred.features(x).shape == conv.features(x).shape
    assert blurred(x).shape == (2, 10)


@pytest.mark.parametrize("blur_size", [3, 5])
def test_blurred_maps_are_centred_as_the_image_is(blur_size):
    torch.manual_seed(0)
    network = BlurConvNet(1, in_size=(16, 16), blur_size=blur_size).double()
    with torch.no_grad():
        for layer in network.layers:
            assert isinstance(layer, nn.Conv2d)
            layer.weight.add_(layer.weight.flip(2, 3))
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(network.features(x.flip(2, 3)), network.features(x).flip(2, 3), rtol=0, atol=1e-12)


def test_what_would_alias_is_blurred_away_and_what_is_flat_stays():
    network = BlurConvNet(1, in_size=(16, 16))
    with torch.no_grad():
        for layer in network.layers:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[:, 0, 1, 1] = 1
    stripes = (torch.arange(16) % 2).float().expand(1, 1, 16, 16)
    middle = (..., slice(1, -1), slice(1, -1))  # the rim sees the padding of the convolutions
    torch.testing.assert_close(network.features(stripes)[middle], torch.full((1, 64, 2, 2), 0.5))
    torch.testing.assert_close(
        network.features(torch.full((1, 1, 16, 16), 3.0))[middle], torch.full((1, 64, 2, 2), 3.0)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"blur_size": 4}, "blur_size is 3 or 5; got 4"), ({"in_size": (4, 8)}, "at least 8"), ({"in_size": (9, 8)}, "4")],
)
def test_a_blur_that_does_not_fit_is_refused(options, message):
    with pytest.raises(CcnetError, match=message):
        BlurConvNet(1, **options)
