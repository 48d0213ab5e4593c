"""StyleGAN2 with what StyleGAN2-ADA adds: clamped activations, and latents z and w of unequal length.

Source: Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020
(arXiv 2006.06676), appendix on mixed precision.
"""

from torch import nn

from fer_lib.networks import stylegan2


class Mapping(stylegan2.Mapping):
    """From z to w, each of a length of its own, through layers of `width`; see stylegan2.Mapping."""

    def __init__(self, latent_size, w_size, n_layers, *, width):
        super().__init__(w_size, 0)
        sizes = [latent_size, *[width] * (n_layers - 1), w_size]
        self.layers = nn.Sequential(*(stylegan2.Linear(n_in, n_out, lr_multiplier=0.01, activate=True)
                                      for n_in, n_out in zip(sizes, sizes[1:])))


class Generator(stylegan2.Generator):
    """StyleGAN2's generator, called like it, for weights that were trained with StyleGAN2-ADA.

    image_size, channels, channel_base, channel_max : see stylegan2.Generator. latent_size : length of z.
    w_size : length of w. mapping_width, mapping_layers : width and depth (at least 1) of the mapping network.
    conv_clamp : largest magnitude of what a convolution passes on, or None for no limit.
    """

    def __init__(self, *, image_size, channels=3, latent_size=512, w_size=512, mapping_width=512,
                 mapping_layers=8, channel_base=32768, channel_max=512, conv_clamp=None):
        super().__init__(image_size=image_size, channels=channels, latent_size=w_size, mapping_layers=0,
                         channel_base=channel_base, channel_max=channel_max)
        self.latent_size, self.conv_clamp = latent_size, conv_clamp
        self.mapping = Mapping(latent_size, w_size, mapping_layers, width=mapping_width)

    def synthesise(self, w, *, noise="random"):
        """Faces from intermediate latents w, float [B, w_size]; see stylegan2.Generator.forward."""
        x = self.constant.expand(len(w), -1, -1, -1)
        x = self._clamped(self.first(x, w, noise=noise))
        image = self._clamped(self.to_images[0](x, w))
        for up, conv, to_image in zip(self.ups, self.convs, self.to_images[1:]):
            x = self._clamped(up(x, w, noise=noise))
            x = self._clamped(conv(x, w, noise=noise))
            image = stylegan2.low_pass(image, up=2, gain=4.0) + self._clamped(to_image(x, w))
        return image

    def _clamped(self, x):
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)
