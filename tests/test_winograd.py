"""The fast 3x3 convolution is the convolution, and so are its gradients."""

import pytest
import torch
import torch.nn.functional as F

from fer_lib.networks import stylegan2, winograd

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def always(monkeypatch):
    """As if it paid for any size on this processor; the calls are counted."""
    calls = []
    monkeypatch.setattr(winograd, "pays", lambda x, weight: calls.append(x.shape) or True)
    return calls


def with_gradients(convolve, x, weight, bias):
    """The result, its gradients, and the gradients of a function of them."""
    result = convolve(x, weight, bias)
    first = torch.autograd.grad(result.square().mean() + result.sum() / 9, (x, weight, bias), create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().mean() for gradient in first), (x, weight, bias),
                                 allow_unused=True)
    return [result, *first, *second]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n, n_in, n_out, size, padding", [
    (3, 5, 7, (8, 12), 1),     # whole tiles
    (2, 8, 4, (9, 11), 0),     # part of the last tiles is cut off
    (2, 4, 4, (7, 6), 2),
    (1, 3, 2, (3, 3), 1),      # less than a tile
    (300, 3, 4, (8, 8), 1),    # images in several turns
])
def test_it_is_the_convolution_with_its_first_and_second_gradients(always, n, n_in, n_out, size, padding, layout):
    torch.manual_seed(0)
    x, weight = torch.randn(n, n_in, *size), torch.randn(n_out, n_in, 3, 3)
    x, weight = (tensor.contiguous(memory_format=layout).requires_grad_() for tensor in (x, weight))
    bias = torch.randn(n_out, requires_grad=True)
    ours = with_gradients(lambda *tensors: winograd.conv3x3(*tensors, padding=padding), x, weight, bias)
    theirs = with_gradients(lambda *tensors: F.conv2d(*tensors, padding=padding), x, weight, bias)
    assert always == [x.shape] and len(ours) == 7
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted, **CLOSE)


def test_a_part_of_a_larger_tensor_is_read_from_where_it_is(always):
    torch.manual_seed(0)
    whole, weight = torch.randn(5, 16, 4, 8).permute(0, 3, 1, 2), torch.randn(6, 4, 3, 3)
    x = whole[2:4, 1:5, 4:12]
    torch.testing.assert_close(winograd.conv3x3(x, weight), F.conv2d(x, weight, padding=1), **CLOSE)


def test_only_wide_layers_in_float32_pay():
    x, weight = torch.zeros(16, 256, 16, 16), torch.zeros(256, 256, 3, 3)
    assert winograd.pays(x, weight)
    assert not winograd.pays(x[:, :64], weight[:, :64]) and not winograd.pays(x[:, :, :4, :4], weight)
    assert not winograd.pays(x[:1], weight) and not winograd.pays(x.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(x, weight)


@pytest.mark.parametrize("layer", [lambda: stylegan2.Conv(4, 4, 3),
                                   lambda: stylegan2.ModulatedConv(4, 4, 3, latent_size=2)])
def test_stylegan2_uses_it_in_training_alone(always, layer):
    torch.manual_seed(0)
    layer, x = layer(), torch.randn(2, 4, 8, 8)
    given = (x, torch.randn(2, 2))[:2 if isinstance(layer, stylegan2.ModulatedConv) else 1]
    trained = layer(*given)
    assert len(always) == 1
    torch.testing.assert_close(layer.eval()(*given), trained, **CLOSE)
    assert len(always) == 1
