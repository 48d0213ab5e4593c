"""Laws of the two GANs' networks."""

import pytest
import torch
import torch.nn.functional as F

from fer_lib import losses
from fer_lib.errors import FerError
from fer_lib.networks import convolution, expression_flow, pooling, stargan, stylegan2, winograd

SMALL = {"channel_base": 256, "channel_max": 8}


@pytest.mark.parametrize("image_size", [32, 48, 64, 96, 128, 192, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_gans_take_every_size_and_channel_count(image_size, channels):
    size = {"image_size": image_size, "channels": channels}
    images = stylegan2.Generator(**size, **SMALL, latent_size=8)(torch.randn(2, 8))
    assert images.shape == (2, channels, image_size, image_size)
    assert stylegan2.Discriminator(**size, **SMALL)(images).shape == (2,)
    changed = stargan.Generator(channels=channels, conv_dim=4, n_blocks=1)(images, torch.tensor([0, 6]))
    assert changed.shape == images.shape and changed.abs().max() <= 1
    critic, classes = stargan.Discriminator(conv_dim=4, **size)(images)
    assert classes.shape == (2, 7) and critic.shape[:2] == (2, 1)


@pytest.mark.parametrize("image_size", [20, 50, 2048])
def test_a_size_the_gans_cannot_have_is_refused_by_name(image_size):
    with pytest.raises(FerError, match=f"image size {image_size}"):
        stylegan2.resolutions(image_size)


@pytest.mark.parametrize("up", [1, 2])
def test_modulation_equals_weights_scaled_and_normalised_per_image(up):
    """Equations 1 and 3 of the paper, written with one explicit kernel per image."""
    torch.manual_seed(0)
    conv = stylegan2.ModulatedConv(3, 5, 3, latent_size=4, up=up).double()
    x, w = torch.randn(2, 3, 6, 6).double(), torch.randn(2, 4).double()
    result = conv(x, w)
    for index in range(2):
        weight = conv.weight * conv.gain * conv.style(w)[index][None, :, None, None]
        weight = weight / (weight.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        if up == 1:
            expected = F.conv2d(x[index:index + 1], weight, padding=1)
        else:
            spread = F.conv_transpose2d(x[index:index + 1], weight.transpose(0, 1).flip([2, 3]), stride=2)
            expected = stylegan2.low_pass(spread, padding=1, gain=4.0)
        assert torch.allclose(result[index:index + 1], expected, atol=1e-9)


def test_a_fresh_layer_keeps_the_variance_of_its_input():
    torch.manual_seed(0)
    x = torch.randn(64, 32, 16, 16)
    y = stylegan2.Conv(32, 32, 3)(x)
    assert 0.8 < y.square().mean() < 1.2


def test_low_pass_keeps_a_constant_image_inside():
    x = torch.full((1, 2, 8, 8), 3.0)
    assert torch.allclose(stylegan2.low_pass(x, up=2, gain=4.0)[:, :, 2:-2, 2:-2], torch.tensor(3.0))
    assert torch.allclose(stylegan2.low_pass(x, down=2)[:, :, 1:-1, 1:-1], torch.tensor(3.0))


@pytest.mark.parametrize("stride, padding", [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((2, 2), (0, 0))])
def test_a_convolution_for_penalties_is_the_librarys_with_all_its_gradients(stride, padding):
    torch.manual_seed(0)
    pair = [torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((2, 2, 7, 6), (3, 2, 3, 4))]

    def mine(x, weight):
        return convolution._Convolution.apply(x, weight, stride, padding)

    assert torch.allclose(mine(*pair), F.conv2d(*pair, None, stride, padding))
    assert torch.autograd.gradcheck(mine, pair) and torch.autograd.gradgradcheck(mine, pair)


@pytest.mark.parametrize("precision, share", [("float32", 1e-5), ("bfloat16", 0.05)])
@pytest.mark.parametrize("stride, padding", [(1, 1), ((2, 2), (1, 1))])
def test_a_penalty_on_gradients_is_the_same_by_both_convolutions(stride, padding, precision, share):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(4, 3, 8, 8), torch.randn(5, 3, 3, 3, requires_grad=True), torch.randn(5)
    found = []
    for conv2d in (convolution.suited_conv2d, F.conv2d):
        def critic(image):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                return conv2d(image, weight, bias, stride, padding).float().tanh().sum([1, 2, 3])
        found.append(torch.autograd.grad(losses.r1_penalty(critic, x, gamma=1.0), weight)[0])
    assert (found[0] - found[1]).abs().max() < share * found[1].abs().max()


def test_truncation_zero_gives_everybody_the_mean_face():
    generator = stylegan2.Generator(image_size=32, latent_size=8, **SMALL).eval()
    images = generator(torch.randn(3, 8), truncation=0.0, noise="none")
    assert torch.allclose(images[0], images[1]) and torch.allclose(images[0], images[2])


def test_identical_images_have_no_minibatch_deviation():
    same = stylegan2.minibatch_deviation(torch.ones(4, 2, 3, 3))[:, -1]
    varied = stylegan2.minibatch_deviation(torch.randn(4, 2, 3, 3))[:, -1]
    assert same.max() < 1e-3 < varied.min()


@pytest.mark.parametrize("critic", [lambda: stylegan2.Discriminator(image_size=32, **SMALL),
                                    lambda: pooling.Discriminator(image_size=32, critic_width=4),
                                    lambda: pooling.Discriminator(image_size=32, critic_width=4, residual=True)])
def test_a_pair_is_judged_as_two_batches_are(critic):
    torch.manual_seed(0)
    critic = critic().double()
    real, fake = torch.randn(2, 8, 1, 32, 32).double()
    for together, alone in zip(critic.pair(real, fake), (critic(real), critic(fake)), strict=True):
        torch.testing.assert_close(together, alone)


def test_a_residual_convolution_starts_as_nothing_and_learns_from_the_first_update():
    torch.manual_seed(0)
    deep, plain = (pooling.Discriminator(image_size=32, critic_width=4, residual=residual)
                   for residual in (True, False))
    kept = [layer for layer in deep.features.trunk if not isinstance(layer, pooling.Residual)]
    added = [layer for layer in deep.features.trunk if isinstance(layer, pooling.Residual)]
    plain.features.trunk = torch.nn.Sequential(*kept)
    plain.features.hidden, plain.output = deep.features.hidden, deep.output
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(deep(images), plain(images))
    deep(images).sum().backward()
    assert len(added) == 3 and all(layer.convolution.weight.grad.abs().sum() > 0 for layer in added)


def test_the_label_changes_the_translation():
    torch.manual_seed(0)
    generator = stargan.Generator(conv_dim=4, n_blocks=1)
    image = torch.randn(1, 1, 32, 32)
    one, two = generator(image, torch.tensor([0])), generator(image, torch.tensor([1]))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize("wide", [False, True], ids=["direct", "winograd"])
def test_stylegan2_draws_in_training_what_it_draws_afterwards(monkeypatch, wide):
    monkeypatch.setattr(winograd, "pays", lambda x, weight: wide)
    torch.manual_seed(0)
    z = torch.randn(3, 8)
    generator = stylegan2.Generator(image_size=32, latent_size=8, channel_base=512, channel_max=16)
    torch.nn.init.normal_(generator.first.bias)
    trained = generator(z, noise="fixed")
    torch.testing.assert_close(generator.eval()(z, noise="fixed"), trained, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer, size", [
    (lambda: stargan._ToPixels(4, 3, 7, padding=3, bias=False), (8, 12)),
    (lambda: stargan._ToPixels(4, 1, 7, padding=3, bias=False), (7, 8)),    # an odd side
    (lambda: stargan._Halving(4, 6, 4, stride=2, padding=1), (8, 8)),       # few pixels: a matrix product
    (lambda: stargan._Halving(4, 6, 4, stride=2, padding=1), (16, 16)),
])
def test_stargans_faster_layers_are_the_librarys_convolution(layer, size):
    """With the gradient of the gradient's size, as the discriminator's penalty needs it."""
    torch.manual_seed(0)
    layer, x = layer().double(), torch.randn(2, 4, *size).double().requires_grad_()
    found = []
    for forward in (layer.forward, lambda x: torch.nn.Conv2d.forward(layer, x)):
        result = forward(x)
        gradient, = torch.autograd.grad(result.square().sum(), x, create_graph=True)
        found.append([result, gradient, torch.autograd.grad(gradient.square().sum(), layer.weight)[0]])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("wide", [False, True], ids=["direct", "winograd"])
def test_stargan_is_trained_by_the_gradients_of_the_network_as_published(monkeypatch, wide):
    """Label planes beside the image, then one layer after the other."""
    monkeypatch.setattr(winograd, "pays", lambda x, weight: wide)
    torch.manual_seed(0)
    generator = stargan.Generator(channels=3, conv_dim=8, n_blocks=2)
    image, label = torch.rand(3, 3, 32, 32) * 2 - 1, torch.tensor([0, 3, 6])
    planes = F.one_hot(label, 7).float()[:, :, None, None].expand(-1, -1, 32, 32)
    whole = torch.cat([image, planes], 1)
    found = []
    for faces in (generator(image, label), generator.eval().main(whole)):
        found.append([faces, *torch.autograd.grad(faces.square().sum(), list(generator.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.detach().abs().max()))


def flow_gan(**options):
    torch.manual_seed(0)
    generator = expression_flow.Generator(width=8, n_blocks=1, **options)
    torch.nn.init.normal_(generator.head.weight, std=0.1)  # as if it had been trained
    return generator


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [32, 48, 256])
def test_the_flow_gan_takes_sizes_and_channels(image_size, channels):
    images, label = torch.rand(2, channels, image_size, image_size) * 2 - 1, torch.tensor([0, 6])
    for scale in (4, 2):
        assert flow_gan(channels=channels, flow_scale=scale)(images, label).shape == images.shape
    shared, by_label = expression_flow.Discriminator(image_size=image_size, channels=channels, critic_width=4)(images)
    assert shared.shape == (2,) and by_label.shape == (2, 7)


def test_intensity_zero_returns_the_face_and_one_changes_it():
    images, label = torch.rand(3, 1, 32, 32) * 2 - 1, torch.tensor([0, 3, 5])
    generator = flow_gan()
    with torch.no_grad():
        assert torch.allclose(generator(images, label, intensity=0.0), images, atol=1e-5)
        each = generator(images, label, intensity=torch.tensor([0.0, 1.0, 1.0]))
        assert torch.allclose(each[0], images[0], atol=1e-5)
        assert torch.equal(each[1:], generator(images, label)[1:]) and (each[1:] - images[1:]).abs().max() > 0.01


def test_a_mirrored_generator_changes_a_face_and_its_mirror_image_alike():
    images, label, latent = torch.rand(3, 1, 32, 32) * 2 - 1, torch.tensor([0, 3, 5]), torch.randn(3, 8)
    plain, mirrored = flow_gan(), flow_gan(mirrored=True)
    for generator in (plain, mirrored):
        torch.nn.init.normal_(generator.flow.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(mirrored(images, label, latent=latent),
                           plain(images, label, latent=latent))  # while it is trained
        faces, turned, alone = (generator.eval()(given, label, latent=latent) for generator, given in (
            (mirrored, images), (mirrored, images.flip(3)), (plain, images.flip(3))))
        torch.testing.assert_close(turned.flip(3), faces, rtol=1e-4, atol=1e-5)
        assert (alone.flip(3) - plain(images, label, latent=latent)).abs().max() > 0.05
        means = [(one + two.flip(3) * sign) / 2 for one, two, sign in zip(
            plain.change(images, label, latent=latent), plain.change(images.flip(3), label, latent=latent),
            (torch.tensor([-1, 1]).view(2, 1, 1), 1))]
        torch.testing.assert_close(expression_flow.apply_change(images, *means), faces, rtol=1e-4, atol=1e-5)


def test_a_flow_fetches_pixels_from_where_it_points():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 5] = 1
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 2 * 2 / 8  # two pixels from the right, in units of half the image
    moved = expression_flow.apply_change(image, flow, torch.zeros_like(image))
    assert torch.allclose(moved[0, 0, 3, 3], torch.tensor(1.0), atol=1e-5) and moved.sum() < 1.001
