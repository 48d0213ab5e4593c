"""GAN objectives against cases derived by hand."""

import math

import torch

from fer_lib import augment, losses
from fer_lib.networks import stargan


def test_undecided_discriminator_costs_two_log_two():
    zero = torch.zeros(4)
    assert math.isclose(losses.non_saturating_discriminator(zero, zero), 2 * math.log(2), rel_tol=1e-6)
    assert math.isclose(losses.non_saturating_generator(zero), math.log(2), rel_tol=1e-6)


def test_r1_of_a_linear_discriminator_is_its_squared_slope():
    weight = torch.randn(1, 3, 4, 4)
    penalty = losses.r1_penalty(lambda x: (x * weight).sum([1, 2, 3]), torch.randn(5, 3, 4, 4), gamma=3.0)
    assert torch.isclose(penalty, 1.5 * weight.square().sum())


def test_gradient_penalty_of_a_linear_critic_is_its_slope_minus_one_squared():
    weight = torch.full((1, 1, 2, 2), 1.5)  # slope 3
    real, fake = torch.randn(6, 1, 2, 2), torch.randn(6, 1, 2, 2)
    penalty = losses.wasserstein_gradient_penalty(lambda x: (x * weight).sum([1, 2, 3]), real, fake,
                                                  torch.rand(6, 1, 1, 1))
    assert torch.isclose(penalty, torch.tensor(4.0))


def test_the_identity_translation_has_no_cycle_loss():
    real, label = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    _, terms = losses.stargan_generator(lambda image, _: image, lambda x: (x.mean([1, 2, 3]), torch.zeros(2, 7)),
                                        real, label, label.flip(0))
    assert terms["cycle"] == 0 and math.isclose(terms["class"], math.log(7), rel_tol=1e-6)


def test_faces_drawn_before_teach_the_generator_the_same():
    torch.manual_seed(0)
    generator, critic = stargan.Generator(conv_dim=4, n_blocks=1), stargan.Discriminator(image_size=16, conv_dim=4)
    real, label = torch.rand(2, 1, 16, 16) * 2 - 1, torch.tensor([0, 1])
    given = {"fake": generator(real, label.flip(0))}
    found = [torch.autograd.grad(losses.stargan_generator(generator, critic, real, label, label.flip(0), **options)[0],
                                 list(generator.parameters())) for options in ({}, given)]
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True)) and any(gradient.any() for gradient in found[0])


def test_stargans_discriminator_is_taught_by_real_and_generated_faces_alike():
    torch.manual_seed(0)
    critic = stargan.Discriminator(image_size=16, conv_dim=4)
    real, fake = torch.rand(2, 3, 1, 16, 16) * 2 - 1
    label, mix = torch.tensor([0, 5, 2]), torch.rand(3, 1, 1, 1)
    loss, terms = losses.stargan_discriminator(critic, real, label, fake, mix, weight_gradient=0.0)
    (score, by_label), (fake_score, _) = critic(real), critic(fake)
    torch.testing.assert_close(terms["critic"], (fake_score.mean() - score.mean()).detach())
    torch.testing.assert_close(loss, fake_score.mean() - score.mean()
                               + torch.nn.functional.cross_entropy(by_label, label))


def test_augmentations_are_differentiable_and_keep_the_shape():
    torch.manual_seed(0)
    images = torch.randn(8, 1, 32, 32, requires_grad=True)
    result = augment.diff_augment(images, policy=tuple(augment.AUGMENTATIONS))
    gradient, = torch.autograd.grad(result.sum(), images)
    assert result.shape == images.shape and gradient.abs().sum() > 0


def test_shift_moves_whole_pixels_and_cutout_removes_a_square():
    torch.manual_seed(0)
    images = torch.zeros(16, 1, 32, 32)
    images[:, :, 16, 16] = 1
    assert torch.equal(augment.shift(images).sum([1, 2, 3]), torch.ones(16))
    holes = (augment.cutout(torch.ones(200, 1, 32, 32)) == 0).sum([1, 2, 3])
    assert holes.max() == 16 * 16 and holes.min() >= 8 * 8 - 16


def test_the_relativistic_pair_compares_each_fake_with_its_real_image():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.5])
    wanted = (math.log1p(math.exp(0.5 - 2)) + math.log1p(math.exp(0.5 + 1))) / 2
    assert math.isclose(losses.relativistic_discriminator(real, fake), wanted, rel_tol=1e-6)
    assert math.isclose(losses.relativistic_generator(fake, real), wanted, rel_tol=1e-6)


def test_a_constant_flow_is_smooth_and_a_shear_of_one_pixel_per_row_costs_one():
    assert losses.flow_smoothness(torch.full((1, 2, 8, 8), 0.3)) == 0
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = torch.arange(8)[:, None] * (2 / 8)
    assert math.isclose(losses.flow_smoothness(flow), 0.5, rel_tol=1e-6)  # x moves, y does not: the mean is 1/2


def test_detail_does_not_see_the_light_but_a_moved_mouth():
    face = torch.rand(2, 1, 48, 48)
    moved = torch.cat([face[:, :, :, 4:], face[:, :, :, :4]], 3)
    assert losses.detail_difference(face + 0.3, face).max() < 1e-5
    assert losses.detail_difference(moved, face).shape == (2, 1, 24, 24)
    assert losses.detail_difference(moved, face).mean() > 0.05


def test_latents_of_the_standard_normal_diverge_by_nothing_and_others_as_torch_says():
    assert losses.latent_divergence(torch.zeros(2, 3), torch.zeros(2, 3)) == 0
    mean, log_spread = torch.randn(5, 3), torch.randn(5, 3)
    given, standard = torch.distributions.Normal(mean, log_spread.exp()), torch.distributions.Normal(0.0, 1.0)
    wanted = torch.distributions.kl_divergence(given, standard).sum(1).mean()
    assert math.isclose(losses.latent_divergence(mean, log_spread), wanted, rel_tol=1e-5)
