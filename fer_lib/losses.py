"""GAN objectives, one formula per function; they know nothing of data, files or devices."""

import torch
import torch.nn.functional as F


def non_saturating_discriminator(real_logits, fake_logits):
    """softplus(-D(x)) + softplus(D(G(z))), mean over the batch. Source: Goodfellow et al. 2014."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def non_saturating_generator(fake_logits):
    """softplus(-D(G(z))), mean over the batch. Source: Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake_logits).mean()


def r1_penalty(discriminator, real, *, gamma):
    """gamma/2 * E |grad_x D(x)|^2 on real images. Source: Mescheder et al. 2018, equation 9."""
    real = real.detach().requires_grad_(True)
    gradient, = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gamma / 2 * gradient.square().sum([1, 2, 3]).mean()


def relativistic_discriminator(real_logits, fake_logits):
    """softplus(D(G(z)) - D(x)), mean over pairs: each fake is compared with one real image.

    Source: Jolicoeur-Martineau 2018 (RpGAN); Huang et al. 2024 (R3GAN), equation 2.
    """
    return F.softplus(fake_logits - real_logits).mean()


def relativistic_generator(real_logits, fake_logits):
    """softplus(D(x) - D(G(z))), mean over pairs. Source: as `relativistic_discriminator`."""
    return F.softplus(real_logits - fake_logits).mean()


def wasserstein_gradient_penalty(critic, real, fake, mix):
    """E (|grad_x D(x)|_2 - 1)^2 on points between real and fake images.

    critic : image [B, C, H, W] -> scores of any shape. mix : float [B, 1, 1, 1] in 0..1.
    Source: Gulrajani et al. 2017, equation 3; Choi et al. 2018, equation 8.
    """
    point = (mix * real + (1 - mix) * fake).detach().requires_grad_(True)
    gradient, = torch.autograd.grad(critic(point).sum(), point, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def flow_smoothness(flow):
    """Mean squared difference of neighbouring displacements, in pixels of displacement per pixel.

    flow : float [B, 2, H, W] in units of half the image. Source: Horn and Schunck 1981, equation 3.
    """
    height, width = flow.shape[2:]
    pixels = torch.stack([flow[:, 0] * (width / 2), flow[:, 1] * (height / 2)], 1)
    return pixels.diff(dim=2).square().mean() + pixels.diff(dim=3).square().mean()


def detail_difference(image, other):
    """Absolute difference at half the resolution, after the mean over a third of the image is taken off around each
    pixel, and with it the light: float [B, C, H/2, W/2].

    image, other : float [B, C, H, W].
    """
    side = 2 * (image.shape[2] // 6) + 1
    difference = image - other
    light = F.avg_pool2d(difference, side, stride=1, padding=side // 2, count_include_pad=False)
    return F.avg_pool2d(difference - light, 2).abs()


def latent_divergence(mean, log_spread):
    """Kullback-Leibler divergence of normal distributions from the standard normal one, in nats, mean over the batch.

    mean, log_spread : float [B, latent_size], of independent normal distributions.
    Source: Kingma and Welling 2014, appendix B.
    """
    return (0.5 * (mean.square() + (2 * log_spread).exp() - 1) - log_spread).sum(1).mean()


def stargan_discriminator(discriminator, real, label, fake, mix, *, weight_class=1.0, weight_gradient=10.0):
    """StarGAN's discriminator loss. Source: Choi et al. 2018, equations 2, 5 and 8.

    real, fake : float [B, C, H, W]; label : int64 [B], the real images' expressions.
    Returns (loss, dict of its detached terms).
    """
    score, by_label = discriminator(torch.cat([real, fake]))
    real_score, fake_score = score.chunk(2)
    real_class = by_label[:len(real)]
    terms = {"critic": fake_score.float().mean() - real_score.float().mean(),
             "class": F.cross_entropy(real_class, label),
             "gradient": wasserstein_gradient_penalty(lambda x: discriminator(x)[0], real, fake, mix)}
    loss = terms["critic"] + weight_class * terms["class"] + weight_gradient * terms["gradient"]
    return loss, {name: term.detach() for name, term in terms.items()}


def stargan_generator(generator, discriminator, real, label, target, *, fake=None, weight_class=1.0, weight_cycle=10.0):
    """StarGAN's generator loss. Source: Choi et al. 2018, equations 3, 4 and 6.

    real : float [B, C, H, W]; label, target : int64 [B], the given and the wanted expressions.
    fake : generator(real, target), with its graph, where it is known already.
    Returns (loss, dict of its detached terms).
    """
    fake = generator(real, target) if fake is None else fake
    fake_score, fake_class = discriminator(fake)
    terms = {"critic": -fake_score.float().mean(), "class": F.cross_entropy(fake_class, target),
             "cycle": F.l1_loss(generator(fake, label), real)}
    loss = terms["critic"] + weight_class * terms["class"] + weight_cycle * terms["cycle"]
    return loss, {name: term.detach() for name, term in terms.items()}


def identity_change(embedder, before, after):
    """How much less a person is recognised after a change: 1 - cosine of the embeddings, mean over the batch, 0 to 2.

    embedder : of embedding.train_embedder, in evaluation mode. before, after : float [B, C, H, W] in -1..1.
    Returns a scalar with gradients for `after`. Source: as in face editing, e.g. Shen et al. 2018, FaceID-GAN.
    """
    with torch.no_grad():
        known = embedder.features((before + 1) / 2)
    return 1 - F.cosine_similarity(known, embedder.features((after + 1) / 2), dim=1).mean()
