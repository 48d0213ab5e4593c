"""The identity GAN: StyleGAN2 without kernels of its own; on a CPU wide convolutions are those of `winograd`.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020
(arXiv 1912.04958): modulated convolutions with demodulation, skip generator, residual discriminator.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from fer_lib.errors import FerError
from fer_lib.networks import winograd
from fer_lib.networks.convolution import conv2d

GAIN = math.sqrt(2)  # keeps the variance behind a leaky ReLU
FIR = (1.0, 3.0, 3.0, 1.0)  # low-pass filter of every change of resolution (paper: section 4.2 and appendix)


def resolutions(image_size):
    """The feature-map sizes of an image of `image_size` pixels, smallest first: 64 gives 4, 8, 16, 32, 64.

    Raises FerError unless the size is 4 to 7 times a power of two, between 32 and 1024.
    """
    base = image_size
    while base % 2 == 0 and base // 2 >= 4:
        base //= 2
    if not 32 <= image_size <= 1024 or base > 7:
        raise FerError(f"The image size {image_size} does not fit the GANs: use 32, 48, 64, 96, 128, 192 or 256.")
    return [base * 2**level for level in range(int(math.log2(image_size // base)) + 1)]


def channels_at(resolution, *, channel_base, channel_max):
    """Feature channels at a resolution: channel_base / resolution, at most channel_max, at least one."""
    return max(1, min(channel_base // resolution, channel_max))


def low_pass(x, *, up=1, down=1, padding=1, gain=1.0):
    """Filter each channel with FIR x FIR while the resolution is doubled (up=2) or halved (down=2).

    x : float [B, C, H, W]. Zero padding on all sides.
    """
    kernel = _fir(gain, x.dtype, x.device).expand(x.shape[1], 1, 4, 4)
    if up == 2:
        return F.conv_transpose2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])
    return F.conv2d(x, kernel, stride=down, padding=padding, groups=x.shape[1])


@cache
def _fir(gain, dtype, device):
    """FIR x FIR with the sum `gain`, float [4, 4]; made once, as a GPU would wait for it each time."""
    with torch.inference_mode(False):
        kernel = torch.tensor(FIR, dtype=dtype, device=device)
        kernel = torch.outer(kernel, kernel)
        return kernel * (gain / kernel.sum())


class Linear(nn.Module):
    """Fully connected layer with equalised learning rate (Karras et al. 2018, section 4.1)."""

    def __init__(self, n_in, n_out, *, bias=0.0, lr_multiplier=1.0, activate=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([n_out], bias / lr_multiplier))
        self.weight_gain, self.bias_gain = lr_multiplier / math.sqrt(n_in), lr_multiplier
        self.activate = activate

    def forward(self, x):
        gain = GAIN if self.activate else 1.0
        x = F.linear(x, self.weight * (self.weight_gain * gain), self.bias * (self.bias_gain * gain))
        return activation(x) if self.activate else x


def activation(x):
    """Leaky ReLU of slope 0.2, in place; its variance-keeping gain is folded into the layer before it.

    A leaky ReLU commutes with a positive factor, so GAIN costs nothing where weights and bias carry it.
    """
    return F.leaky_relu_(x, 0.2)


class Mapping(nn.Module):
    """From the latent z to the intermediate latent w, with the running mean that truncation pulls to."""

    def __init__(self, latent_size, n_layers):
        super().__init__()
        self.layers = nn.Sequential(*(Linear(latent_size, latent_size, lr_multiplier=0.01, activate=True)
                                      for _ in range(n_layers)))
        self.register_buffer("w_mean", torch.zeros(latent_size))

    def forward(self, z, *, truncation=1.0):
        """z : float [B, latent_size], standard normal. truncation : 1 leaves w as it is, 0 gives the mean."""
        with torch.autocast(z.device.type, enabled=False):  # in float32 whatever the rest is computed in
            w = self.layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
        if self.training:
            self.w_mean.lerp_(w.detach().mean(0), 0.005)
        return self.w_mean.lerp(w, truncation) if truncation != 1 else w


class ModulatedConv(nn.Module):
    """3x3 or 1x1 convolution whose input channels are scaled by a style, then demodulated (equations 1-3).

    Scaling activations before and after one shared convolution equals scaling the weights per image,
    and needs no grouped convolution.
    """

    def __init__(self, n_in, n_out, kernel, *, latent_size, up=1, demodulate=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel))
        self.style = Linear(latent_size, n_in, bias=1.0)
        self.gain = 1 / math.sqrt(n_in * kernel**2)
        self.up, self.demodulate, self.padding = up, demodulate, kernel // 2

    def forward(self, x, w, *, gain=1.0, bias=None):
        """bias : float [n_out, 1, 1], or None, is added in the end."""
        style = self.style(w)
        weight = self.weight * self.gain
        x = x * style[:, :, None, None]
        if self.up == 2:
            x = F.conv_transpose2d(x, weight.transpose(0, 1).flip([2, 3]), stride=2)
            x = low_pass(x, padding=1, gain=4.0)
        elif self.training and self.padding == 1:
            x = winograd.conv3x3(x, weight)
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            norm = (style.square() @ weight.square().sum([2, 3]).T + 1e-8).rsqrt()
            scale = (norm * gain)[:, :, None, None]
            if self.training and bias is not None:
                return torch.addcmul(bias, x, scale)  # at once, with other rounding: so not where faces are drawn
            x = x * scale
        return x if bias is None else x + bias


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias and activation."""

    def __init__(self, n_in, n_out, resolution, *, latent_size, up=1):
        super().__init__()
        self.conv = ModulatedConv(n_in, n_out, 3, latent_size=latent_size, up=up)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.register_buffer("fixed_noise", torch.randn(1, 1, resolution, resolution))

    def forward(self, x, w, *, noise):
        x = self.conv(x, w, gain=GAIN, bias=self.bias[:, None, None] * GAIN)
        if noise == "random":
            x = x + torch.randn_like(x[:, :1]) * (self.noise_strength * GAIN)
        elif noise == "fixed":
            x = x + self.fixed_noise * (self.noise_strength * GAIN)
        return activation(x)


class ToImage(nn.Module):
    """1x1 modulated convolution from features to pixels, without demodulation."""

    def __init__(self, n_in, channels, *, latent_size):
        super().__init__()
        self.conv = ModulatedConv(n_in, channels, 1, latent_size=latent_size, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x, w):
        return self.conv(x, w, bias=self.bias[:, None, None])


class Generator(nn.Module):
    """StyleGAN2's generator with output skips (figure 7b).

    image_size : pixels, see `resolutions`. channels : 1 grey, 3 RGB. latent_size : length of z and of w.
    channel_base, channel_max : width, see `channels_at`. mapping_layers : depth of the mapping network.
    """

    def __init__(self, *, image_size, channels=1, latent_size=128, channel_base=2048, channel_max=128,
                 mapping_layers=4):
        super().__init__()
        sizes = resolutions(image_size)
        width = {size: channels_at(size, channel_base=channel_base, channel_max=channel_max) for size in sizes}
        self.latent_size = latent_size
        self.mapping = Mapping(latent_size, mapping_layers)
        self.constant = nn.Parameter(torch.randn(1, width[sizes[0]], sizes[0], sizes[0]))
        self.first = SynthesisLayer(width[sizes[0]], width[sizes[0]], sizes[0], latent_size=latent_size)
        self.ups, self.convs, self.to_images = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.to_images.append(ToImage(width[sizes[0]], channels, latent_size=latent_size))
        for small, size in zip(sizes, sizes[1:]):
            self.ups.append(SynthesisLayer(width[small], width[size], size, latent_size=latent_size, up=2))
            self.convs.append(SynthesisLayer(width[size], width[size], size, latent_size=latent_size))
            self.to_images.append(ToImage(width[size], channels, latent_size=latent_size))

    def forward(self, z, *, truncation=1.0, noise="random"):
        """Faces from latents.

        z : float [B, latent_size], standard normal. truncation : see Mapping.
        noise : "random" (training), "fixed" (the same for all images) or "none".
        Returns float [B, channels, H, W], about -1 (black) to 1 (white), not clipped.
        """
        return self.synthesise(self.mapping(z, truncation=truncation), noise=noise)

    def synthesise(self, w, *, noise="random"):
        """Faces from intermediate latents w, float [B, latent_size]; see `forward`."""
        x = self.constant.expand(len(w), -1, -1, -1)
        x = self.first(x, w, noise=noise)
        image = self.to_images[0](x, w)
        for up, conv, to_image in zip(self.ups, self.convs, self.to_images[1:]):
            x = conv(up(x, w, noise=noise), w, noise=noise)
            image = low_pass(image, up=2, gain=4.0) + to_image(x, w)
        return image


class Conv(nn.Module):
    """Convolution with equalised learning rate; with down=2 the input is low-pass filtered and halved."""

    def __init__(self, n_in, n_out, kernel, *, down=1, bias=True, activate=True, gain=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.gain = gain * (GAIN if activate else 1.0)
        self.weight_gain = self.gain / math.sqrt(n_in * kernel**2)
        self.down, self.kernel, self.activate = down, kernel, activate

    def forward(self, x):
        weight = self.weight * self.weight_gain
        bias = None if self.bias is None else self.bias * self.gain
        if self.down == 2 and self.kernel == 1:
            x = conv2d(low_pass(x, down=2), weight, bias)
        elif self.down == 2:
            x = conv2d(low_pass(x, padding=2), weight, bias, stride=2)
        elif self.training and self.kernel == 3:
            x = winograd.conv3x3(x, weight, bias)
        else:
            x = conv2d(x, weight, bias, padding=self.kernel // 2)
        return activation(x) if self.activate else x


class DiscriminatorBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 skip, halving the resolution (figure 7c)."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.conv0 = Conv(n_in, n_in, 3)
        self.conv1 = Conv(n_in, n_out, 3, down=2, gain=math.sqrt(0.5))
        self.skip = Conv(n_in, n_out, 1, down=2, bias=False, activate=False, gain=math.sqrt(0.5))

    def forward(self, x):
        return self.conv1(self.conv0(x)) + self.skip(x)


def minibatch_deviation(x, *, group=4):
    """Append a channel with the mean standard deviation over groups of images (Karras et al. 2018, section 3).

    x : float [B, C, H, W]. The group shrinks to the largest divisor of B.
    """
    group = next(size for size in range(min(group, len(x)), 0, -1) if len(x) % size == 0)
    y = x.reshape(group, -1, *x.shape[1:])
    y = (y.var(0, unbiased=False) + 1e-8).sqrt().mean([1, 2, 3])
    return torch.cat([x, y.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


class Discriminator(nn.Module):
    """StyleGAN2's residual discriminator; arguments as in Generator."""

    def __init__(self, *, image_size, channels=1, channel_base=2048, channel_max=128):
        super().__init__()
        sizes = resolutions(image_size)[::-1]
        width = [channels_at(size, channel_base=channel_base, channel_max=channel_max) for size in sizes]
        self.from_image = Conv(channels, width[0], 1)
        self.blocks = nn.Sequential(*(DiscriminatorBlock(a, b) for a, b in zip(width, width[1:])))
        self.conv = Conv(width[-1] + 1, width[-1], 3)
        self.hidden = Linear(width[-1] * sizes[-1] ** 2, width[-1], activate=True)
        self.output = Linear(width[-1], 1)

    def forward(self, image):
        """image : float [B, channels, H, W] in -1..1. Returns logits [B], high for real."""
        return self._judge(minibatch_deviation(self.blocks(self.from_image(image))))

    def pair(self, real, fake):
        """The logits of real and of generated images, [B] each, as `forward` returns them, at once."""
        both = self.blocks(self.from_image(torch.cat([real, fake]))).chunk(2)
        return self._judge(torch.cat([minibatch_deviation(x) for x in both])).chunk(2)

    def _judge(self, x):
        return self.output(self.hidden(self.conv(x).flatten(1)))[:, 0]
