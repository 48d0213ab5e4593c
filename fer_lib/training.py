"""Training of the two GANs: one resumable loop, and the step of each GAN.

The random numbers of a step depend on (seed, step) alone, and a checkpoint is written whole or not at all;
so a run that was killed and resumed ends, on the CPU, with the same weights as one that was not.
"""

import copy
import hashlib
import json
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from fer_lib import augment, engine, losses
from fer_lib.errors import FerError
from fer_lib.faces import concatenate
from fer_lib.labels import ALL_EXPRESSIONS
from fer_lib.networks import expression_flow, pooling, stargan, stylegan2
from fer_lib.optimisers import adam, chosen_optimiser, diverged, follow, resume_optimiser, set_rate, update
from fer_lib.weights import load_generator, save_weights  # noqa: F401, the generators that are trained here

log = logging.getLogger(__name__)

OBJECTIVES = ("non-saturating", "relativistic")
POOLING = "image_size", "channels", "critic_width"
CRITICS = {
    "stylegan2": lambda options: stylegan2.Discriminator(**_shared(options)),
    "pooling": lambda options: pooling.Discriminator(**_chosen(options, *POOLING)),
    "residual": lambda options: pooling.Discriminator(**_chosen(options, *POOLING), residual=True),
}
"""Discriminators of the identity GAN: name -> function of the generator's options."""


def train_identity_gan(faces, folder, *, steps, seed=0, image_options=None, batch_size=16, lr=2e-3, gamma=1.0,
                       r1_interval=16, augmentation=("light", "shift", "cutout"), ema_kimg=5.0,
                       objective="non-saturating", critic="stylegan2", critic_lr=None, decay=False, optimiser="adam",
                       precision="float32", final_gamma=0.0, augmentation_target=0.0, device="auto", log_every=100,
                       checkpoint_every=200):
    """Train StyleGAN2 on `faces` and write generator.safetensors (its moving average) into `folder`.

    faces : Faces [n]; expressions are not used. steps : int, generator updates.
    image_options : dict of widths for stylegan2.Generator and Discriminator, and critic_width of pooling.Discriminator.
    gamma : R1 weight. final_gamma : to this it falls over the first half, by the same factor at every step, so that a
    better generator meets a sharper discriminator; 0 leaves it as it is.
    augmentation_target : 0 augments every image; above 0 as often as keeps the discriminator this far from guessing,
    see augment.AdaptiveChance: none at first, and the chance can rise to 1 in a tenth of the training.
    r1_interval : steps between two R1 penalties (lazy regularisation; R2 is an update of its own beside, for which
    rates and betas are not corrected).
    ema_kimg : half-life of the generator's moving average, in thousands of images, with a warm-up.
    objective : "non-saturating" (the paper's) or "relativistic" (R3GAN's pairing loss, with R2, the penalty on
    generated images, beside R1).
    critic : "stylegan2" (the paper's discriminator), "pooling" (pooling.Discriminator, which is smaller and learns
    faster) or "residual" (the same with seven convolutions in place of four, for more updates).
    critic_lr : its learning rate; None takes `lr`. decay : both learning rates fall to 0 over the second half.
    optimiser : of both networks, a name in OPTIMISERS; with "muon" the discriminator finds out sooner what a face is.
    precision : of convolutions, "float32", or "bfloat16", see engine.in_precision; the mapping network's is float32.
    Returns the history: DataFrame, one row per `log_every` steps, with the mean of each loss term.
    Raises FerError for another objective, critic, optimiser or precision.
    Source: Karras et al. 2020 (lazy R1: appendix B; ADA, adaptive augmentation); Zhao et al. 2020 (DiffAugment); Huang
    et al. 2024 (R3GAN, whose penalties fall to a tenth, too).
    """
    settings = settings_of(locals())
    if objective not in OBJECTIVES:
        raise FerError(f"The objective {objective!r} is unknown: use {' or '.join(OBJECTIVES)}.")
    if critic not in CRITICS:
        raise FerError(f"The critic {critic!r} is unknown: use {' or '.join(CRITICS)}.")
    device, optimise = engine.device(device), chosen_optimiser(optimiser)
    engine.check_precision(precision)
    given = {"image_size": faces.image_size, "channels": faces.channels, **(image_options or {})}
    options = {key: value for key, value in given.items() if key != "critic_width"}
    generator, discriminator = seeded(lambda: (stylegan2.Generator(**options), CRITICS[critic](given)), seed, device)
    falls = bool(gamma and final_gamma)
    weight = torch.tensor(float(gamma), device=device) if falls else gamma
    optimisers = (optimise(generator, lr=lr, betas=(0.0, 0.99)),
                  optimise(discriminator, lr=critic_lr or lr, betas=(0.0, 0.99), interval=r1_interval))
    rates = [float(optimiser.param_groups[0]["lr"]) for optimiser in optimisers]
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    images = torch.from_numpy(np.array(faces.images))
    adaptive = None
    if augmentation_target:
        adaptive = augment.AdaptiveChance(augmentation_target, kimg=steps * batch_size / 10_000).to(device)
    acts = IdentitySteps(generator, discriminator, optimisers, objective == "relativistic", augmentation, weight,
                         r1_interval, precision, adaptive.chance if adaptive else None)
    teach, penalise = (engine.recorded(each, device) for each in (acts.teach, acts.penalise))

    def step(number):
        for optimiser, rate in zip(optimisers, rates):
            set_rate(optimiser, rate * (falling(number, steps) if decay else 1.0))
        if falls:
            weight.fill_(gamma * (final_gamma / gamma) ** min(1.0, 2 * number / steps))
        real = to_device(images[torch.randint(len(images), [batch_size])], device)
        terms, fake = teach(real, engine.sent(torch.randn(2, batch_size, generator.latent_size), device))
        if adaptive:
            adaptive.observe(terms["told_apart"], batch_size)
            terms = terms | {"augmented": adaptive.chance}
        if number % r1_interval == 0:
            terms = terms | penalise(real, fake)
        follow(ema, generator, keep=share_kept(number, batch_size, ema_kimg))
        return terms

    state = {"generator": generator, "discriminator": discriminator, "ema": ema,
             "optimiser_g": optimisers[0], "optimiser_d": optimisers[1]} | ({"adaptive": adaptive} if adaptive else {})
    return loop(step, state=state, steps=steps, folder=folder, seed=seed, batch_size=batch_size, settings=settings,
                log_every=log_every, checkpoint_every=checkpoint_every,
                finish=lambda: save_weights(ema, folder, name="generator", options=options, kind="stylegan2",
                                            faces=faces))


@dataclass(frozen=True)
class IdentitySteps:
    """What the updates of train_identity_gan do with real faces, float [B, C, H, W], and latents, float [2, B,
    latent_size], for the generator's and the discriminator's turn.

    optimisers : of the generator and of the discriminator. paired : relativistic, with R2. gamma : a number, or a
    tensor that changes in between; so chance, of an augmentation, or None: always. Others as in train_identity_gan.
    """

    generator: torch.nn.Module
    discriminator: torch.nn.Module
    optimisers: tuple
    paired: bool
    augmentation: tuple
    gamma: float | torch.Tensor
    r1_interval: int
    precision: str = "float32"
    chance: torch.Tensor | None = None

    def teach(self, real, latents):
        """Both networks; returns (terms, the generated faces that the discriminator was shown). With chance the terms
        hold told_apart, see augment.AdaptiveChance."""
        fake = self._draw(latents[0])
        terms = {"generator": update(self.optimisers[0], self._generator_loss(real, fake), self.generator)}
        with torch.no_grad():
            fake = self._draw(latents[1])
        of_real, of_fake = self._see_both(real, fake)
        formula = losses.relativistic_discriminator if self.paired else losses.non_saturating_discriminator
        terms["discriminator"] = update(self.optimisers[1], formula(of_real, of_fake), self.discriminator)
        if self.chance is not None:
            terms["told_apart"] = (of_real - of_fake if self.paired else of_real).detach().sign().mean()
        return terms, fake

    def penalise(self, real, fake):
        """The discriminator, by its gradient penalties; returns them."""
        terms = {}
        for name, images_seen in (("r1", real), ("r2", fake))[:2 if self.paired else 1]:
            penalty = losses.r1_penalty(self._see, images_seen, gamma=self.gamma) * self.r1_interval
            terms[name] = update(self.optimisers[1], penalty, self.discriminator) / self.r1_interval
        return terms

    def _generator_loss(self, real, fake):
        if not self.paired:
            return losses.non_saturating_generator(self._see(fake))
        with torch.no_grad():
            real_logits = self._see(real)
        return losses.relativistic_generator(real_logits, self._see(fake))

    def _draw(self, latents):
        with self._in_precision(latents):
            return self.generator(latents).float()

    def _see(self, image):
        with self._in_precision(image):
            return self.discriminator(self._vary(image)).float()

    def _see_both(self, real, fake):
        with self._in_precision(real):
            return [logits.float() for logits in self.discriminator.pair(self._vary(real), self._vary(fake))]

    def _vary(self, image):
        return augment.diff_augment(image, policy=self.augmentation, chance=self.chance)

    def _in_precision(self, images):
        return engine.in_precision(self.precision, images.device)


def train_expression_gan(faces, folder, *, steps, seed=0, image_options=None, batch_size=16, lr=1e-4,
                         discriminator_steps=5, weight_class=1.0, weight_cycle=10.0, weight_gradient=10.0,
                         mirror=True, balanced=True, precision="float32", device="auto", log_every=50,
                         checkpoint_every=100):
    """Train StarGAN on `faces` (all seven expressions) and write generator.safetensors into `folder`.

    faces : Faces [n], every expression present. steps : int, generator updates; each follows
    `discriminator_steps` discriminator updates. image_options : dict with any of conv_dim, n_blocks, n_layers.
    The learning rate falls to 0 over the second half. mirror : flip half of the images left-right.
    balanced : draw every expression equally often, however rare it is; False draws every image equally often.
    precision : of convolutions, "float32", or "bfloat16", see engine.in_precision.
    Returns the history as in `train_identity_gan`.
    Raises FerError when an expression has no image.
    Source: Choi et al. 2018, sections 3 and 4; settings of Gholipour Picha et al. 2023.
    """
    settings = settings_of(locals())
    check_expressions(faces)
    device = engine.device(device)
    options = {"channels": faces.channels, **(image_options or {})}
    critic_options = {"image_size": faces.image_size, **{k: v for k, v in options.items() if k != "n_blocks"}}
    g_options = {k: v for k, v in options.items() if k != "n_layers"}
    generator, discriminator = seeded(lambda: (stargan.Generator(**g_options), stargan.Discriminator(**critic_options)),
                                      seed, device, channels_last=device.type != "cpu")
    optimisers = [adam(network, lr=lr, betas=(0.5, 0.999)) for network in (generator, discriminator)]
    images, labels = torch.from_numpy(np.array(faces.images)), torch.from_numpy(faces.codes)
    chances = (1 / labels.bincount()[labels].double()) if balanced else torch.ones(len(labels), dtype=torch.double)

    def draw():
        index, other = torch.multinomial(chances, 2 * batch_size, replacement=True).split(batch_size)
        real = to_device(images[index], device, channels_last=device.type != "cpu")
        if mirror:
            real = augment.mirror(real)
        mix = torch.rand(batch_size, 1, 1, 1)
        return real, *(engine.sent(each, device) for each in (labels[index], labels[other], mix))

    acts = StarganSteps(generator, discriminator, optimisers, weight_class, weight_cycle, weight_gradient, precision)
    teach_one, teach_both = (engine.recorded(each, device) for each in (acts.teach_one, acts.teach_both))

    def step(number):
        for optimiser in optimisers:
            set_rate(optimiser, lr * falling(number, steps))
        for _ in range(discriminator_steps - 1):
            teach_one(*draw())
        return teach_both(*draw())  # the last faces teach the generator too

    state = {"generator": generator, "discriminator": discriminator,
             "optimiser_g": optimisers[0], "optimiser_d": optimisers[1]}
    return loop(step, state=state, steps=steps, folder=folder, seed=seed, batch_size=batch_size, settings=settings,
                log_every=log_every, checkpoint_every=checkpoint_every,
                finish=lambda: save_weights(generator, folder, name="generator", options=g_options, kind="stargan",
                                            faces=faces))


@dataclass(frozen=True)
class StarganSteps:
    """What the updates of train_expression_gan do with real faces, float [B, C, H, W], their expressions and the wanted
    ones, int64 [B] each, and the places of the gradient penalty, float [B, 1, 1, 1].

    optimisers : of the generator and of the discriminator. Others as in train_expression_gan.
    """

    generator: torch.nn.Module
    discriminator: torch.nn.Module
    optimisers: tuple
    weight_class: float
    weight_cycle: float
    weight_gradient: float
    precision: str

    def teach_one(self, real, label, target, mix):
        """The discriminator alone; returns its terms."""
        with torch.no_grad(), self._in_precision(real):
            fake = self.generator(real, target)
        return self._teach_discriminator(real, label, fake, mix)

    def teach_both(self, real, label, target, mix):
        """The discriminator, then the generator, with the same generated faces; returns the terms of both."""
        with self._in_precision(real):
            fake = self.generator(real, target)
        d_terms = self._teach_discriminator(real, label, fake.detach(), mix)
        with self._in_precision(real):
            loss, terms = losses.stargan_generator(self.generator, self.discriminator, real, label, target, fake=fake,
                                                   weight_class=self.weight_class, weight_cycle=self.weight_cycle)
        update(self.optimisers[0], loss, self.generator)
        return d_terms | {f"generator_{name}": term for name, term in terms.items()}

    def _teach_discriminator(self, real, label, fake, mix):
        with self._in_precision(real):
            loss, terms = losses.stargan_discriminator(self.discriminator, real, label, fake, mix,
                                                       weight_class=self.weight_class,
                                                       weight_gradient=self.weight_gradient)
        update(self.optimisers[1], loss, self.discriminator)
        return {f"discriminator_{name}": term for name, term in terms.items()}

    def _in_precision(self, images):
        return engine.in_precision(self.precision, images.device)


def train_flow_gan(faces, folder, *, steps, seed=0, image_options=None, batch_size=16, lr=1e-3, gamma=0.5,
                   penalty_interval=8, warm_up=700, sequence_warm_up=0, weight_class=0.1, weight_self=1.0,
                   weight_partner=10.0, weight_smooth=1.0, weight_residual=5.0, residual_power=1, sequences=None,
                   weight_sequence=100.0, weight_latent=3e-4, weight_identity=0.0, guide=None, augmentation=("shift",),
                   optimiser="adam", ema_kimg=2.0, device="auto", log_every=50, checkpoint_every=200):
    """Train expression_flow on `faces` (all seven expressions) and write generator.safetensors into `folder`.

    The discriminator compares a generated face with a real one of the same expression (relativistic pairing), by
    its label logit, too, of which the cross-entropy is that of real faces alone. Every expression is drawn equally
    often. Where subjects are known, the real face is one of the same person if there is one, so that the pair differs
    in nothing but what it should.
    faces : Faces [n]. steps : int, updates of each network. image_options : dict of expression_flow.Generator's
    width, n_blocks, residual_scale and flow_scale, and of Discriminator's critic_width.
    lr : of the discriminator; the generator's is half of it; both fall to 0 over the second half.
    warm_up : updates, before the first step, in which the discriminator learns the labels of real faces and, where
    there are sequences, the generator learns from them, at a rate of `lr` that falls to 0 over the second half.
    sequence_warm_up : as many of the latter instead, where it is not 0.
    gamma : weight of R1 and R2, at every `penalty_interval`-th step. weight_class : of the label logits in the
    generator's loss. weight_self : of the change made when a face is asked for the expression that it has.
    weight_partner : of the difference in detail to the real face that it is compared with, where that shows the same
    person; as the pose is another, this term alone would give blurred faces.
    weight_smooth, weight_residual : of an uneven flow and of the residual's mean size, to the power residual_power: 1
    allows few large values, specks, more readily than many small ones; 2 the other way round.
    sequences : Faces with a column `sequence`, or None: pictures of a person in one pose and light, as frames of one
    recording. From two of them an encoder tells the latent, how the expression is shown, with which the generator then
    makes the second out of the first. The discriminator compares them too: there a pair differs in nothing but what it
    should. weight_sequence : of the mean absolute difference that is left, and, times weight_latent, of the latents'
    divergence, in nats, from those that are drawn for new faces. Without sequences nothing of this is drawn.
    weight_identity : of 1 - the cosine between what guide sees in a face before and after. guide : of
    embedding.train_embedder, trained on none but people of `faces`, and not the one that measures afterwards; it stays
    as it is, and is needed where the weight is not 0.
    optimiser : of the generator, a name in OPTIMISERS; "muon" learns from sequences in less than half of the updates.
    Other arguments, and what comes back, as in `train_identity_gan`.
    Raises FerError when an expression has no image, for another optimiser, and for a weight_identity without guide.
    Source: Huang et al. 2024 (R3GAN); Miyato and Koyama 2018 (projection); Zhu et al. 2017 (cVAE-GAN, for sequences).
    """
    settings = settings_of(locals())
    check_expressions(faces)
    device, optimise = engine.device(device), chosen_optimiser(optimiser)
    generator, discriminator, g_options = flow_networks(faces, image_options or {}, seed, device)
    encoder = None if sequences is None else sequence_encoder(faces, generator.latent_size, seed, device)
    taught = torch.nn.ModuleList([generator, encoder]) if encoder else generator
    weights = {"generator": 1.0, "generator_class": weight_class, "generator_self": weight_self,
               "generator_partner": weight_partner, "generator_smooth": weight_smooth,
               "generator_residual": weight_residual, "generator_sequence": weight_sequence,
               "generator_latent": weight_sequence * weight_latent, "generator_identity": weight_identity}
    guide = frozen_guide(guide, device) if weight_identity else None
    rates = (lr / 2, lr * penalty_interval / (penalty_interval + 1))
    optimisers = (optimise(taught, lr=lr / 2, betas=(0.0, 0.99)),
                  adam(discriminator, lr=lr, betas=(0.0, 0.99), interval=penalty_interval))
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    draw = pair_drawer(concatenate([faces, sequences]) if encoder else faces, batch_size, generator.latent_size, device)
    draw_sequence = sequence_drawer(sequences, batch_size, device) if encoder else None

    acts = FlowSteps(generator, discriminator, encoder, taught, optimisers, weights, augmentation, gamma,
                     penalty_interval, residual_power, guide)
    teach_discriminator, penalise, teach_generator = (engine.recorded(each, device) for each in (
        acts.teach_discriminator, acts.penalise, acts.teach_generator))

    warming = WarmUp(lr, (warm_up, discriminator, draw, acts.label_loss),
                     *[(sequence_warm_up or warm_up, taught, draw_sequence, acts.sequence_loss)] if encoder else (),
                     optimise=optimise)

    def step(number):
        if number == 0:
            follow(ema, generator, keep=0.0)
        for optimiser, rate in zip(optimisers, rates):
            set_rate(optimiser, rate * falling(number, steps))
        drawn = draw()
        terms, fake = teach_discriminator(*drawn)
        if number % penalty_interval == 0:
            terms = terms | penalise(drawn[0], fake, drawn[2])
        terms = terms | teach_generator(*draw(), *(draw_sequence() if encoder else ()))
        follow(ema, generator, keep=share_kept(number, batch_size, ema_kimg))
        return terms

    state = {"generator": generator, "discriminator": discriminator, "ema": ema,
             "optimiser_g": optimisers[0], "optimiser_d": optimisers[1]} | ({"encoder": encoder} if encoder else {})
    return loop(step, state=state, steps=steps, folder=folder, seed=seed, batch_size=batch_size, settings=settings,
                warm_up=warming, log_every=log_every, checkpoint_every=checkpoint_every,
                finish=lambda: save_weights(ema, folder, name="generator", options=g_options, kind="expression_flow",
                                            faces=faces, sequences=sequences))


@dataclass(frozen=True)
class FlowSteps:
    """What the updates of train_flow_gan do with what was drawn for them (see pair_drawer and sequence_drawer).

    encoder : None without sequences. guide : None without the identity term. taught : what the first optimiser changes,
    the generator and the encoder; the second changes the discriminator. weights : of the terms of the generator's loss,
    by name. Others as in train_flow_gan.
    """

    generator: torch.nn.Module
    discriminator: torch.nn.Module
    encoder: torch.nn.Module | None
    taught: torch.nn.Module
    optimisers: tuple
    weights: dict
    augmentation: tuple
    gamma: float
    penalty_interval: int
    residual_power: int
    guide: torch.nn.Module | None = None

    def see(self, image, label):
        """The discriminator's verdicts [B] on an image with its label, and its label logits [B, 7]."""
        shared, by_label = self.discriminator(augment.diff_augment(image, policy=self.augmentation))
        return shared + by_label.gather(1, label[:, None])[:, 0], by_label

    def label_loss(self, real, source, label, source_label, *_):
        image, labels = torch.cat([real, source]), torch.cat([label, source_label])
        return F.cross_entropy(self.see(image, labels)[1], labels)

    def sequence_loss(self, *frames):
        return self._weighted(sequence_terms(self.generator, self.encoder, *frames, self.residual_power))

    def teach_discriminator(self, real, source, label, _source_label, _same_person, latent):
        """Returns (terms, the generated faces that it was shown)."""
        with torch.no_grad():
            fake = self.generator(source, label, latent=latent)
        real_logits, by_label = self.see(real, label)
        terms = {"discriminator": losses.relativistic_discriminator(real_logits, self.see(fake, label)[0]),
                 "discriminator_class": F.cross_entropy(by_label, label)}
        update(self.optimisers[1], sum(terms.values()), self.discriminator)
        return detached(terms), fake

    def penalise(self, real, fake, label):
        terms = {name: losses.r1_penalty(lambda image: self.see(image, label)[0], image, gamma=self.gamma)
                 for name, image in (("r1", real), ("r2", fake))}
        update(self.optimisers[1], (terms["r1"] + terms["r2"]) * self.penalty_interval, self.discriminator)
        return detached(terms)

    def teach_generator(self, *drawn):
        terms = pair_terms(self.generator, self.see, *drawn[:6], self.residual_power, guide=self.guide)
        if self.encoder:  # the penalties are those of the pairs
            terms = sequence_terms(self.generator, self.encoder, *drawn[6:], self.residual_power) | terms
        update(self.optimisers[0], self._weighted(terms), self.taught)
        return detached(terms)

    def _weighted(self, terms):
        return sum(self.weights[name] * term for name, term in terms.items())


class WarmUp:
    """Updates before the first step of a training; momentum leaves the plateau of guessing sooner.

    first, others : (number of updates, network, function that draws faces, function of these that returns a loss) each.
    All end together, after `steps` updates, as many as the longest has; in every update each that has begun has its
    turn. The first learns by Adam at a steady rate; the others by `optimise`, at one that falls to 0 over the second
    half.
    state : the optimisers, as `loop` keeps them.
    """

    def __init__(self, lr, first, *others, optimise=adam):
        self.steps, self.lr, self.turns, self.state = max(steps for steps, *_ in (first, *others)), lr, [], {}
        for number, (steps, network, draw, loss) in enumerate((first, *others)):
            optimiser = (optimise if number else adam)(network, lr=lr, betas=(0.9, 0.99))

            def learn(*drawn, optimiser=optimiser, loss=loss, network=network):
                return update(optimiser, loss(*drawn), network)

            self.turns.append((steps, optimiser, draw, engine.recorded(learn, next(network.parameters()).device)))
            self.state[f"optimiser_warm_{number}"] = optimiser

    def step(self, number):
        """The update `number`, from 0."""
        for turn, (steps, optimiser, draw, learn) in enumerate(self.turns):
            done = number - (self.steps - steps)
            if done >= 0:
                if turn:
                    set_rate(optimiser, self.lr * falling(done, steps))
                learn(*draw())


def share_kept(number, batch_size, kimg):
    """What a moving average keeps of itself at the update `number`, from 0, for a half-life of `kimg` thousand images;
    early on it is shorter. Source: Karras et al. 2020 (StyleGAN2-ADA), ramp-up of 0.05."""
    return 0.5 ** (batch_size / min(kimg * 1000, 0.05 * ((number + 1) * batch_size)))


def falling(number, steps):
    """Factor on a learning rate at the step `number` of `steps`: 1 over the first half, then evenly down to 0."""
    return min(1.0, 2 * (1 - number / steps))


def frozen_guide(guide, device):
    """A copy of an embedder that training leaves as it is. Raises FerError where there is none."""
    if guide is None:
        raise FerError("The identity term needs a guide: give an embedder of the GANs' own people, see "
                       "embedding.train_embedder, or set its weight to 0.")
    return copy.deepcopy(guide).to(device).eval().requires_grad_(False)


def check_expressions(faces):
    """Raise FerError when one of the seven expressions has no image."""
    empty = faces.counts().loc[lambda count: count == 0].index.tolist()
    if empty:
        raise FerError(f"The expression GAN needs images of all seven expressions; none shows {', '.join(empty)}. Give "
                       "the GANs faces of their own with pool_dataset and pool_root, or a generator with "
                       "expression_weights=PATH.")


def flow_networks(faces, image_options, seed, device):
    """Generator and discriminator of expression_flow for faces of this size, and the generator's options."""
    given = {"channels": faces.channels, **image_options}
    if given.get("width", 8) % 8:
        raise FerError(f"The flow GAN's first layer has {given['width']} channels: "
                       "set expression_conv_dim to a multiple of 8.")
    g_options = {key: value for key, value in given.items() if key != "critic_width"}
    d_options = {key: value for key, value in given.items() if key in ("channels", "critic_width")}
    return *seeded(lambda: (expression_flow.Generator(**g_options), expression_flow.Discriminator(
        image_size=faces.image_size, **d_options)), seed, device), g_options


def sequence_encoder(faces, latent_size, seed, device):
    """The network that tells, while the generator learns from sequences, how an expression is shown."""
    return seeded(lambda: [expression_flow.Encoder(image_size=faces.image_size, channels=faces.channels,
                                                   latent_size=latent_size)], seed, device)[0]


def pair_terms(generator, see, real, source, label, source_label, same_person, latent, residual_power, *, guide=None):
    """Terms of the generator's loss on the pairs of `pair_drawer`: dict of scalars.

    see : function (image, label) that returns the discriminator's verdicts [B] and its label logits [B, 7].
    guide : a frozen embedder of people, or None: then there is no term generator_identity.
    """
    flow, residual = generator.change(source, label, latent=latent)
    fake = expression_flow.apply_change(source, flow, residual)
    with torch.no_grad():
        real_logits, _ = see(real, label)
    logits, by_label = see(fake, label)
    same = (label == source_label).float()
    return {"generator": losses.relativistic_generator(real_logits, logits),
            "generator_class": F.cross_entropy(by_label, label),
            "generator_self": mean_where(same, (fake - source).abs()),
            "generator_partner": mean_where(same_person, losses.detail_difference(fake, real)),
            **({} if guide is None else {"generator_identity": losses.identity_change(guide, source, fake)}),
            **change_penalties(flow, residual, residual_power)}


def sequence_terms(generator, encoder, frame, shown, label, residual_power):
    """Terms of the generator's loss on frames that are to become other frames of their sequences: dict of scalars.

    Half of them are made the typical way, without being told how the expression is shown: it becomes the median of the
    ways. frame, shown : float [B, C, H, W]; label : int64 [B], the expressions of `shown`. Source: Zhu et al. 2017
    (cVAE-GAN).
    """
    mean, log_spread = encoder(frame, shown)
    latent = mean + log_spread.exp() * torch.randn_like(mean)
    latent = latent * torch.randint(2, (len(latent), 1), device=mean.device)
    flow, residual = generator.change(frame, label, latent=latent)
    difference = (expression_flow.apply_change(frame, flow, residual) - shown).abs().mean()
    return {"generator_sequence": difference, "generator_latent": losses.latent_divergence(mean, log_spread),
            **change_penalties(flow, residual, residual_power)}


def change_penalties(flow, residual, power):
    """How uneven a flow is, and the mean size of a residual to a power: dict of scalars."""
    return {"generator_smooth": losses.flow_smoothness(flow), "generator_residual": residual.abs().pow(power).mean()}


def pair_drawer(faces, batch_size, latent_size, device):
    """A function that draws what one update of the flow GAN is shown; every expression is drawn equally often.

    It returns real and source faces, float [B, C, H, W] on `device`, the same half of the pairs mirrored; their
    expressions, int64 [B] each; whether both show one person, float [B]; and latents, float [B, latent_size].
    """
    images, labels = torch.from_numpy(np.array(faces.images)), torch.from_numpy(faces.codes)
    chances, partner = 1 / labels.bincount()[labels].double(), partners(faces)

    def draw():
        index, source = torch.multinomial(chances, 2 * batch_size, replacement=True).split(batch_size)
        index, same_person = partner(source, index)
        pair = to_device(images[torch.cat([index, source])], device).unflatten(0, [2, batch_size]).transpose(0, 1)
        pair = augment.mirror(pair.flatten(1, 2)).unflatten(1, [2, -1])
        latent = torch.randn(batch_size, latent_size)
        return (*(x.contiguous(memory_format=torch.channels_last) for x in pair.unbind(1)),
                *(engine.sent(each, device) for each in (labels[index], labels[source], same_person.float(), latent)))

    return draw


def sequence_drawer(faces, batch_size, device):
    """A function that draws two frames of each of some sequences, the same half of the pairs mirrored.

    faces : Faces with the columns subject and sequence. Sequences, and the expressions in them, are drawn equally
    often. It returns the first and the second frames, float [B, C, H, W] each on `device`, and the expressions of the
    second, int64 [B].
    Raises FerError when no sequence shows two expressions.
    """
    if "sequence" not in faces.table:
        raise FerError("Faces in sequences need a column `sequence` beside `subject`: it names the recording.")
    groups = pd.Series(faces.codes).groupby([faces.table["subject"], faces.table["sequence"].astype(str)])
    sequences = [codes.groupby(codes).groups for _, codes in groups if codes.nunique() > 1]
    if not sequences:
        raise FerError("No sequence shows two expressions, so nothing can be learned from it: leave the sequences out.")
    n_takes = max(len(rows) for sequence in sequences for rows in sequence.values())
    frames = torch.full([len(sequences), len(ALL_EXPRESSIONS), n_takes], -1)
    for place, sequence in enumerate(sequences):
        for code, rows in sequence.items():
            frames[place, code] = torch.from_numpy(np.resize(rows.to_numpy(), n_takes))
    images, present = torch.from_numpy(np.array(faces.images)), (frames[:, :, 0] >= 0).double()

    def draw():
        place = torch.randint(len(frames), [batch_size])
        given, wanted = torch.multinomial(present[place], 2, replacement=True).unbind(1)
        take = torch.randint(n_takes, [2, batch_size])
        rows = torch.stack([frames[place, given, take[0]], frames[place, wanted, take[1]]], 1)
        pairs = augment.mirror(to_device(images[rows.flatten()], device).unflatten(0, rows.shape).flatten(1, 2))
        pairs = pairs.unflatten(1, [2, -1]).unbind(1)
        return *(frame.contiguous(memory_format=torch.channels_last) for frame in pairs), engine.sent(wanted, device)

    return draw


def mean_where(chosen, values):
    """Mean of `values` [B, C, H, W] over the images where `chosen`, float [B], is 1; 0 where none is."""
    return (values.mean([1, 2, 3]) * chosen).sum() / chosen.sum().clamp(min=1)


def partners(faces):
    """A function (sources, others), int64 [n] each, that puts a picture of the source's subject with the other's
    expression, drawn at random, in the place of each other where there is one.

    It returns (int64 [n], bool [n] where there was one).
    """
    groups = faces.table.groupby(["subject", "expression"]).indices
    groups = {key: torch.from_numpy(rows) for key, rows in groups.items() if key[0]}
    subjects, names = faces.subjects, faces.table["expression"].to_numpy(object)

    def partner(sources, others):
        chances = torch.rand(len(others))
        chosen, found = others.clone(), torch.zeros(len(others), dtype=torch.bool)
        for place, (source, other) in enumerate(zip(sources.tolist(), others.tolist())):
            rows = groups.get((subjects[source], names[other]))
            if rows is not None:
                chosen[place], found[place] = rows[int(chances[place] * len(rows))], True
        return chosen, found

    return partner


def loop(step, *, state, steps, folder, seed, batch_size, log_every, checkpoint_every, finish, settings=None,
         warm_up=None):
    """Call step(number) for number = 0 .. steps - 1, after the warm-up, with checkpoints, and return the history.

    step : returns a dict of scalars. state : dict of everything with a state_dict that `step` changes.
    folder : holds checkpoint.pt while training; a run that finds one goes on from it. settings : of `settings_of`, by
    which a checkpoint is known; one of others is refused. finish :
    called after the last step, while the checkpoint is still there, to write the weights. warm_up : WarmUp, whose
    updates have negative numbers here, and no row.
    Raises FerError when a term is not finite; the last checkpoint stays.
    Returns DataFrame: step, seconds, images_per_second and the mean of each term since the row before.
    """
    folder, began = Path(folder), time.perf_counter()
    engine.keep_memory()
    first, before = (-warm_up.steps, warm_up.state) if warm_up else (0, {})
    known_by = _signature(settings)
    start, rows, terms, spent, warmed = resume(folder, state | before, first, known_by)
    with torch.random.fork_rng(), engine.fastest_convolutions():
        for number in range(start, steps):
            torch.manual_seed(step_seed(seed, number))
            warming = number < 0
            if warming:
                warm_up.step(number - first)
            else:
                terms.append({name: value.clone() for name, value in step(number).items()})
            done, seconds = number + 1, spent + time.perf_counter() - began
            told = done % log_every == 0 or done == steps
            if warming:
                warmed = seconds
            if warming and told:
                log.info("warm-up, update %d of %d, %.1f min of it left", done - first, -first,
                         warmed / (done - first) * -done / 60)
            elif told:
                rows.append(_row(done, seconds, numbers(terms), rows, batch_size, warmed))
                terms = []
                log.info("step %d of %d, %s", done, steps, _told(rows[-1], steps, batch_size))
            if done % checkpoint_every == 0 and done < steps:
                _checkpoint(folder, state | (before if done < 0 else {}), done, rows, numbers(terms), seconds, warmed,
                            known_by)
    history = pd.DataFrame(rows)
    history.to_csv(folder / "history.csv", index=False)
    finish()
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return history


def detached(terms):
    return {name: term.detach() for name, term in terms.items()}


def numbers(terms):
    """Tensors that were kept where they are, as waiting for a GPU at every step would slow it down, as numbers.

    Raises FerError when one is not finite.
    """
    found = [{name: float(value) for name, value in row.items()} for row in terms]
    for row in found:
        for name, value in row.items():
            if not math.isfinite(value):
                raise diverged(value, name)
    return found


def _row(done, seconds, terms, rows, batch_size, warmed):
    last = rows[-1] if rows else {"step": 0, "seconds": warmed}
    rate = (done - last["step"]) * batch_size / max(seconds - last["seconds"], 1e-9)
    means = pd.DataFrame(terms).mean()  # a term that is computed now and then is averaged over those steps
    return {"step": done, "seconds": round(seconds, 1), "images_per_second": round(rate, 1),
            **{name: round(float(mean), 5) for name, mean in means.items()}}


def _told(row, steps, batch_size):
    left = (steps - row["step"]) * batch_size / max(row["images_per_second"], 1e-9)
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in row.items()
                        if name not in ("step", "seconds", "images_per_second"))
    return f"{row['images_per_second']:.0f} images/s, {left / 60:.1f} min left: {numbers}"


def settings_of(arguments):
    """What tells a training from others: its arguments (locals() at its start), but where and how often it writes."""
    left_out = "folder", "device", "log_every", "checkpoint_every"
    return {name: _mark(value) for name, value in arguments.items() if name not in left_out}


def _mark(value):
    """A plain value that stands for an argument of a training: faces and networks by what they hold."""
    if isinstance(value, torch.nn.Module):
        return [float(tensor.double().sum()) for tensor in value.state_dict().values()]
    return getattr(value, "fingerprint", value)


def _signature(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _checkpoint(folder, state, done, rows, terms, seconds, warmed, known_by):
    partial = folder / "checkpoint.pt.partial"
    torch.save({"state": {name: item.state_dict() for name, item in state.items()},
                "done": done, "rows": rows, "terms": terms, "seconds": seconds, "warmed": warmed,
                "known_by": known_by}, partial)
    os.replace(partial, folder / "checkpoint.pt")


def resume(folder, state, first=0, known_by=None):
    """Load folder/checkpoint.pt into `state`, all or, after the warm-up, some of it.

    known_by : what the checkpoint must be known by, or None.
    Returns (steps done, `first` without a checkpoint; history rows; pending terms; seconds; those of the warm-up).
    Raises FerError when the file is damaged, or is of another training.
    """
    path = Path(folder) / "checkpoint.pt"
    if not path.is_file():
        return first, [], [], 0.0, 0.0
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if known_by and saved.get("known_by", known_by) != known_by:
            raise FerError(f"The checkpoint {path} is of a training with other settings or faces: delete it, or use "
                           "another folder.")
        for name, kept in saved["state"].items():
            if name.startswith("optimiser"):
                resume_optimiser(state[name], kept)
            else:
                state[name].load_state_dict(kept)
    except FerError:
        raise
    except Exception as error:  # torch raises many types for a damaged file
        raise FerError(f"The checkpoint {path} cannot be read: delete it to train from the start.") from error
    log.info("resumed at step %d", saved["done"])
    terms = [{name: torch.tensor(value) for name, value in row.items()} for row in saved["terms"]]
    return saved["done"], saved["rows"], terms, saved["seconds"], saved["warmed"]


def step_seed(seed, number):
    """A seed for torch that depends on the run's seed and the step's number alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "little") % 2**63


def seeded(make, seed, device, *, channels_last=True):
    """The networks that make() returns, initialised from `seed`, on `device`.

    channels_last : the layout of their weights; on a CPU instance normalisation copies a batch with the channels last
    back and forth, so that StarGAN loses more by it than its convolutions gain.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = make()
    return tuple(network.to(device, memory_format=_layout(channels_last)) for network in networks)


def _layout(channels_last):
    return torch.channels_last if channels_last else torch.contiguous_format


def to_device(images, device, *, channels_last=True):
    """Images uint8 [n, C, H, W], array or tensor, as float in -1..1 on `device`."""
    images = torch.as_tensor(np.array(images) if isinstance(images, np.ndarray) else images)
    return engine.sent(images, device).float().div_(127.5).sub_(1).contiguous(memory_format=_layout(channels_last))


def _shared(options):
    return {key: value for key, value in options.items()
            if key not in ("latent_size", "mapping_layers", "critic_width")}


def _chosen(options, *names):
    return {name: options[name] for name in names if name in options}


def load_history(folder):
    """The history that `loop` wrote: DataFrame, one row per status interval; None where there is none."""
    path = Path(folder) / "history.csv"
    return pd.read_csv(path) if path.is_file() else None
