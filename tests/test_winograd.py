"""The fast 3x3 convolution is the convolution, and so are its gradients."""

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


@pytest.fixture
def on_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def random_layer(n, n_in, n_out, size):
    torch.manual_seed(0)
    return (torch.randn(n, n_in, *size, requires_grad=True), torch.randn(n_out, n_in, 3, 3, requires_grad=True),
            torch.randn(n_out, requires_grad=True))


def with_gradients(convolve, x, weight, bias):
    """The result, its gradients, and the gradients of a function of them."""
    result = convolve(x, weight, bias)
    first = torch.autograd.grad(result.square().mean() + result.sum() / 9, (x, weight, bias), create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().mean() for gradient in first), (x, weight, bias),
                                 allow_unused=True)
    return [result, *first, *second]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n, n_in, n_out, size, padding", [
    (3, 16, 32, (8, 12), 1),    # whole tiles
    (2, 32, 16, (9, 11), 0),    # the last tiles stand out
    (2, 16, 16, (7, 6), 2),
    (1, 16, 48, (3, 3), 1),     # less than a tile
    (90, 16, 16, (8, 8), 1),    # several turns
])
def test_it_is_the_convolution_with_its_first_and_second_gradients(always, on_threads, n, n_in, n_out, size, padding,
                                                                   layout, threads):
    on_threads(threads)
    x, weight, bias = random_layer(n, n_in, n_out, size)
    x, weight = (tensor.detach().contiguous(memory_format=layout).requires_grad_() for tensor in (x, weight))
    ours = with_gradients(lambda *tensors: winograd.conv3x3(*tensors, padding=padding), x, weight, bias)
    theirs = with_gradients(lambda *tensors: F.conv2d(*tensors, padding=padding), x, weight, bias)
    assert always == [x.shape] and len(ours) == 7
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-4 * float(wanted.detach().abs().max()))


@pytest.mark.parametrize("size", [(10, 14), (6, 30), (62, 62), (9, 11)])  # the last one is not whole tiles
def test_with_pooling_and_relu_it_is_the_convolution_pooling_and_relu_with_their_gradients(always, size):
    x, weight, bias = random_layer(5, 32, 64, size)
    found = []
    for layer in (winograd.conv3x3_pool_relu, lambda *tensors: F.relu(F.max_pool2d(F.conv2d(*tensors), 2))):
        result = layer(x, weight, bias)
        found.append([result, *torch.autograd.grad((result * torch.linspace(-1, 1, 64)[:, None, None]).sum(),
                                                   (x, weight, bias))])
    assert always == [x.shape] and 0.5 < (found[0][0] > 0).float().mean() < 1
    for mine, wanted in zip(*found, strict=True):
        # Where two of four pixels are equal up to rounding, either may have the gradient.
        apart = (mine - wanted).detach().abs() > 1e-4 * float(wanted.detach().abs().max())
        assert apart.float().mean() < 1e-3


def test_of_equal_pixels_the_first_has_the_gradient_and_none_where_the_relu_cuts(always):
    x, weight, bias = torch.randn(2, 16, 10, 10), torch.zeros(16, 16, 3, 3), torch.tensor([1.0, 1.0, 0.0, -1.0] * 4)
    found = []
    for layer in (winograd.conv3x3_pool_relu, lambda *tensors: F.relu(F.max_pool2d(F.conv2d(*tensors), 2))):
        tensors = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        layer(x, *tensors).sum().backward()
        found.append([tensor.grad for tensor in tensors])
    assert found[0][0][::4].all() and not found[0][0][2::4].any() and not found[0][0][3::4].any()
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, **CLOSE)


def test_what_is_not_a_number_is_not_hidden(always):
    x, weight, bias = (tensor.detach() for tensor in random_layer(1, 16, 16, (10, 10)))
    for layer in (winograd.conv3x3, winograd.conv3x3_pool_relu):
        for row, column in itertools.product(range(10), range(10)):
            broken = x.clone()
            broken[0, 3, row, column] = torch.nan
            assert layer(broken, weight, bias).isnan().any()


@pytest.mark.parametrize("layer", [winograd.conv3x3, winograd.conv3x3_pool_relu])
def test_the_number_of_threads_does_not_change_a_digit(always, on_threads, layer):
    tensors, found = random_layer(6, 32, 64, (30, 30)), []
    for threads in (1, 2, 3):
        on_threads(threads)
        result = layer(*tensors)
        found.append([result, torch.autograd.grad(result.square().sum(), tensors)[0]])  # other sums are the library's
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


def test_gradients_of_frozen_parts_are_left_out(always):
    x, weight, bias = random_layer(2, 16, 16, (8, 8))
    whole = torch.autograd.grad(winograd.conv3x3(x, weight, bias).square().sum(), (x, weight))
    for position, frozen in enumerate(((x, weight.detach()), (x.detach(), weight))):
        part = torch.autograd.grad(winograd.conv3x3(*frozen, bias.detach()).square().sum(), frozen[position])
        assert torch.equal(part[0], whole[position])


@pytest.mark.parametrize("layer", [winograd.conv3x3, winograd.conv3x3_pool_relu])
def test_several_threads_of_a_program_may_use_it_at_once(always, on_threads, layer):
    on_threads(2)
    tensors = [tensor.detach() for tensor in random_layer(8, 32, 64, (30, 30))]
    alone = layer(*tensors)
    with ThreadPoolExecutor(4) as threads:
        assert all(torch.equal(alone, other) for other in threads.map(lambda _: layer(*tensors), range(12)))


def test_the_default_type_of_numbers_does_not_matter(always):
    tensors = random_layer(2, 16, 16, (10, 10))
    expected = winograd.conv3x3_pool_relu(*tensors)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(winograd.conv3x3_pool_relu(*tensors), expected)
        assert winograd.conv3x3(*tensors).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_channels_that_are_not_sixteens_are_refused(always):
    with pytest.raises(ValueError, match="lots of 16"):
        winograd.conv3x3(torch.zeros(1, 8, 8, 8), torch.zeros(16, 8, 3, 3))


def test_it_works_where_compiled_code_cannot_be_kept():
    code = ("import numba.core.caching as caching; caching.CacheImpl._locator_classes = []; import torch; "
            "from fer_lib.networks import tiles; weight, kernel = torch.ones(16, 3, 3, 16), torch.zeros(36, 16, 16); "
            "tiles.transform_weight(weight.numpy(), kernel.numpy(), 0, 1); print(float(kernel[7].sum()))")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0 and float(run.stdout) == pytest.approx(9 / 36 * 256), run.stderr


def test_a_part_of_a_larger_tensor_is_read_from_where_it_is(always):
    torch.manual_seed(0)
    whole, weight = torch.randn(5, 16, 4, 40).permute(0, 3, 1, 2), torch.randn(16, 32, 3, 3)
    x = whole[2:4, 5:37, 4:12]
    torch.testing.assert_close(winograd.conv3x3(x, weight), F.conv2d(x, weight, padding=1), **CLOSE)


def test_it_is_used_where_it_pays(on_threads):
    x, weight = torch.zeros(16, 256, 16, 16), torch.zeros(256, 256, 3, 3)
    on_threads(2)
    assert winograd.pays(x, weight)
    assert not winograd.pays(x[:, :64], weight[:, :64]) and not winograd.pays(x[:, :, :4, :4], weight)
    assert not winograd.pays(x[:4], weight) and not winograd.pays(x[:1], weight)
    assert not winograd.pays(x.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(x, weight)
    on_threads(1)
    assert winograd.pays(x[:, :32], weight[:64, :32]) and not winograd.pays(x[:, :32], weight[:32, :32])
    assert not winograd.pays(x[:, :72], weight[:, :72])  # not sixteens


@pytest.mark.parametrize("layer", [lambda: stylegan2.Conv(16, 16, 3),
                                   lambda: stylegan2.ModulatedConv(16, 16, 3, latent_size=2)])
def test_stylegan2_uses_it_in_training_alone(always, layer):
    torch.manual_seed(0)
    layer, x = layer(), torch.randn(2, 16, 8, 8)
    given = (x, torch.randn(2, 2))[:2 if isinstance(layer, stylegan2.ModulatedConv) else 1]
    trained = layer(*given)
    assert len(always) == 1
    torch.testing.assert_close(layer.eval()(*given), trained, **CLOSE)
    assert len(always) == 1
