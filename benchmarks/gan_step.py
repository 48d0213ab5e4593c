"""Training steps and generation of both GANs, beside the original implementations where their code is at hand.

Run from the repository root:
    python benchmarks/gan_step.py [--stargan FOLDER_OF_YUNJEY_STARGAN] [--stylegan2 FOLDER_OF_STYLEGAN2_ADA_PYTORCH]
                                  [--size 64] [--batch 16] [--repeats 5] [--precision float32] [--device auto]

Both sides have the same architecture, batch, losses and threads, and take turns, so that a change of the machine's
speed meets both. The originals compute in float32 (on a GPU with convolutions in TF32; stylegan2-ada-pytorch would by
itself use float16 in its largest layers instead), ours of StarGAN in --precision. On a GPU both sides try which
convolution is the fastest, and ours has what its training has: recorded steps and a fused Adam. The originals are the
user's copies; none of their code is here.
"""

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fer_lib import engine, losses, training
from fer_lib.networks import stargan, stylegan2

STARGAN = {"conv_dim": 64, "n_blocks": 6, "channels": 3}  # the original's defaults
STYLEGAN2 = {"channel_base": 8192, "channel_max": 512, "latent_size": 512, "mapping_layers": 2}
LABELS = 7
INTERVAL = 16  # of R1


def main():
    options = arguments()
    device = engine.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    engine.keep_memory()
    place = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(f"{place}, torch {torch.__version__}, {options.size} px, batch {options.batch}; measured matrix-product peak "
          f"in {'TF32' if device.type == 'cuda' else 'float32'} {matrix_peak(device) / 1e9:.0f} GFLOP/s")
    torch.manual_seed(0)
    batch = torch.rand(options.batch, 3, options.size, options.size, device=device) * 2 - 1
    label, target = torch.randint(LABELS, (2, options.batch), device=device)
    contests = {f"StarGAN in {precision}": (our_stargan(batch, label, target, precision), options.stargan
                                            and original_stargan(options.stargan, batch, label, target))
                for precision in options.precision if "stargan" in options.only}
    if "stylegan2" in options.only:
        contests["StyleGAN2 in float32"] = (our_stylegan2(batch), options.stylegan2
                                            and original_stylegan2(options.stylegan2, batch))
    with engine.fastest_convolutions():
        for name, (ours, original) in contests.items():
            for what in ours:
                report(f"{name}, {what}", ours[what], original and original[what], options, device, name.split()[-1])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stargan", help="folder of a copy of yunjey/stargan")
    parser.add_argument("--stylegan2", help="folder of a copy of NVlabs/stylegan2-ada-pytorch")
    for name, value in (("size", 64), ("batch", 16), ("repeats", 5), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["float32"], choices=("float32", "bfloat16"),
                        help="of our StarGAN")
    parser.add_argument("--only", nargs="+", default=["stargan", "stylegan2"], choices=("stargan", "stylegan2"))
    options = parser.parse_args()
    if "bfloat16" in options.precision and not engine.has_bfloat16(engine.device(options.device).type):
        parser.error("this device has no bfloat16, and float32 would be measured in its place: leave it out")
    return options


def report(name, ours, original, options, device, precision):
    """Time both in turn and print the medians."""
    contestants = [step for step in (ours, original) if step]
    flops = counted(ours)
    for step in contestants:
        for _ in range(5 if device.type == "cuda" else 1):  # warm-up; on a GPU ours is recorded meanwhile
            step()
    times = [[timed(step, device) for step in contestants] for _ in range(options.repeats)]
    medians = [statistics.median(column) for column in zip(*times)]
    line = (f"{name}: {options.batch / medians[0]:.1f} images/s, "
            f"{flops / medians[0] / matrix_peak(device, precision):.0%} of the peak")
    if original:
        ratios = [theirs / mine for mine, theirs in times]
        line += (f"; original {options.batch / medians[1]:.1f} images/s; ratio {statistics.median(ratios):.2f} "
                 f"({min(ratios):.2f} to {max(ratios):.2f})")
    print(line, flush=True)


def timed(step, device):
    synchronise(device)
    start = time.perf_counter()
    step()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


class Counter(TorchDispatchMode):
    """Adds up the floating-point operations of the products and convolutions inside it, in `total`.

    torch's FlopCounterMode watches modules too, and that fails at the gradient of a gradient.
    """

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:  # outside of autograd a convolution comes whole
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        return out


def counted(step):
    """Floating-point operations of the products and convolutions of one call."""
    with torch.compiler.set_stance("force_eager"), Counter() as counter:
        step()
    return counter.total


PEAKS = {}


def matrix_peak(device, precision="float32"):
    """Floating-point operations per second of the fastest large matrix product, measured once."""
    if (device, precision) not in PEAKS:
        PEAKS[device, precision] = max(product_rates(device, precision=precision).values())
    return PEAKS[device, precision]


def product_rates(device, *, precision="float32", repeats=5):
    """Floating-point operations per second of a large square matrix product, the best of `repeats`, by library.

    On a CPU `a @ b` goes to MKL, which is slow on processors of other makers, and convolutions to oneDNN, which is not:
    a peak that one library misses is no peak. On a GPU float32 is computed in TF32, as convolutions are.
    """
    side = 2048 if device.type == "cpu" else 8192
    a = torch.rand(side, side, device=device).to(getattr(torch, precision))
    products = {"a @ b": lambda: a @ a}
    if device.type == "cpu" and precision == "float32" and torch.backends.mkldnn.is_available():
        factor, bias = a.to_mkldnn(), torch.zeros(side).to_mkldnn()
        products["oneDNN"] = lambda: F.linear(factor, factor, bias)
    kept, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    for product in products.values():
        product()
    rates = {name: 2 * side**3 / min(timed(product, device) for _ in range(repeats))
             for name, product in products.items()}
    torch.backends.cuda.matmul.allow_tf32 = kept
    return rates


# ---- StarGAN: one update of the discriminator and one of the generator --------------------------------

def our_stargan(batch, label, target, precision):
    generator, discriminator = training.seeded(
        lambda: (stargan.Generator(**STARGAN), stargan.Discriminator(
            image_size=batch.shape[2], channels=3, conv_dim=STARGAN["conv_dim"])), 0, batch.device,
        channels_last=batch.device.type != "cpu")
    optimisers = [training.adam(network, lr=1e-4, betas=(0.5, 0.999)) for network in (discriminator, generator)]
    if batch.device.type != "cpu":
        stargan.compiled_norm()
        batch = batch.contiguous(memory_format=torch.channels_last)

    def in_precision():
        return engine.in_precision(precision, batch.device)

    def train(batch, label, target):
        with in_precision():
            fake = generator(batch, target)
            mix = torch.rand(len(batch), 1, 1, 1, device=batch.device)
            loss, _ = losses.stargan_discriminator(discriminator, batch, label, fake.detach(), mix)
        training.update(optimisers[0], loss, discriminator)
        with in_precision():
            loss, _ = losses.stargan_generator(generator, discriminator, batch, label, target, fake=fake)
        training.update(optimisers[1], loss, generator)

    trained = copy.deepcopy(generator).eval()

    def generate():
        with torch.inference_mode(), in_precision():
            trained(batch, target)

    step = engine.recorded(train, batch.device)
    return {"training step": lambda: step(batch, label, target), "generation": generate}


def original_stargan(folder, batch, label, target):
    """The original's networks, stepped as its solver.py does (train, lines 239 to 295)."""
    sys.path.insert(0, folder)
    import model
    layers = sum(1 for layer in stargan.Discriminator(image_size=batch.shape[2], conv_dim=8).main
                 if isinstance(layer, torch.nn.Conv2d))
    generator = model.Generator(STARGAN["conv_dim"], LABELS, STARGAN["n_blocks"]).to(batch.device)
    discriminator = model.Discriminator(batch.shape[2], STARGAN["conv_dim"], LABELS, layers).to(batch.device)
    optimisers = [torch.optim.Adam(network.parameters(), 1e-4, (0.5, 0.999)) for network in (discriminator, generator)]
    given, wanted = (F.one_hot(codes, LABELS).float() for codes in (label, target))

    def reset():
        for optimiser in optimisers:
            optimiser.zero_grad()

    def penalty(score, point):
        gradient = torch.autograd.grad(score, point, torch.ones_like(score), retain_graph=True, create_graph=True)[0]
        norm = torch.sqrt(torch.sum(gradient.view(gradient.size(0), -1) ** 2, dim=1))
        return torch.mean((norm - 1) ** 2)

    def train():
        score, classes = discriminator(batch)
        fake = generator(batch, wanted)
        fake_score, _ = discriminator(fake.detach())
        alpha = torch.rand(len(batch), 1, 1, 1, device=batch.device)
        point = (alpha * batch.data + (1 - alpha) * fake.data).requires_grad_(True)
        loss = (fake_score.mean() - score.mean() + F.cross_entropy(classes, label)
                + 10 * penalty(discriminator(point)[0], point))
        reset()
        loss.backward()
        optimisers[0].step()
        fake = generator(batch, wanted)
        score, classes = discriminator(fake)
        loss = (-score.mean() + F.cross_entropy(classes, target)
                + 10 * (batch - generator(fake, given)).abs().mean())
        reset()
        loss.backward()
        optimisers[1].step()

    def generate():
        with torch.no_grad():
            generator(batch, wanted)

    return {"training step": train, "generation": generate}


# ---- StyleGAN2: one update of each network, and R1 at every 16th ----------------------------------------

def our_stylegan2(batch):
    options = {"image_size": batch.shape[2], "channels": 3, **STYLEGAN2}
    widths = {key: value for key, value in options.items() if key not in ("latent_size", "mapping_layers")}
    generator, discriminator = training.seeded(lambda: (stylegan2.Generator(**options),
                                                        stylegan2.Discriminator(**widths)), 0, batch.device)
    optimisers = (training.adam(generator, lr=2e-3, betas=(0.0, 0.99)),
                  training.adam(discriminator, lr=2e-3, betas=(0.0, 0.99), interval=INTERVAL))
    batch = batch.contiguous(memory_format=torch.channels_last)

    def latent():
        return torch.randn(len(batch), STYLEGAN2["latent_size"], device=batch.device)

    def train(batch):
        loss = losses.non_saturating_generator(discriminator(generator(latent())))
        training.update(optimisers[0], loss, generator)
        with torch.no_grad():
            fake = generator(latent())
        loss = losses.non_saturating_discriminator(*discriminator.pair(batch, fake))
        training.update(optimisers[1], loss, discriminator)

    def penalise(batch):
        loss = losses.r1_penalty(discriminator, batch, gamma=1.0) * INTERVAL
        training.update(optimisers[1], loss, discriminator)

    trained = copy.deepcopy(generator).eval()

    def generate():
        with torch.inference_mode():
            trained(latent())

    train, penalise = (engine.recorded(step, batch.device) for step in (train, penalise))
    return {"training step": lambda: train(batch), "R1 step": lambda: penalise(batch), "generation": generate}


def build_kernels(folder):
    """Build the original's kernels; its own way of doing so fails with a torch of today."""
    from torch.utils import cpp_extension
    from torch_utils.ops import bias_act, upfirdn2d
    for name, module in (("bias_act", bias_act), ("upfirdn2d", upfirdn2d)):
        sources = [str(Path(folder, "torch_utils", "ops", f"{name}.{kind}").resolve()) for kind in ("cpp", "cu")]
        module._plugin = cpp_extension.load(f"{name}_plugin", sources, extra_cuda_cflags=["--use_fast_math"])
        module._inited = True


def original_stylegan2(folder, batch):
    """The original's networks, with its losses (training/loss.py) but without style mixing and path lengths."""
    sys.path.insert(0, folder)
    from torch_utils.ops import conv2d_gradfix
    from training import networks
    if batch.device.type == "cuda":
        build_kernels(folder)
    options = {"img_resolution": batch.shape[2], "img_channels": 3, "c_dim": 0}
    widths = {"channel_base": STYLEGAN2["channel_base"], "channel_max": STYLEGAN2["channel_max"]}
    size = STYLEGAN2["latent_size"]
    generator = networks.Generator(z_dim=size, w_dim=size, mapping_kwargs={"num_layers": STYLEGAN2["mapping_layers"]},
                                   synthesis_kwargs=widths, **options).to(batch.device)
    discriminator = networks.Discriminator(**widths, **options).to(batch.device)
    optimisers = [torch.optim.Adam(network.parameters(), 2e-3, (0.0, 0.99)) for network in (generator, discriminator)]

    def latent():
        return torch.randn(len(batch), size, device=batch.device)

    def learn(optimiser, loss):
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def train():
        discriminator.requires_grad_(False)
        learn(optimisers[0], F.softplus(-discriminator(generator(latent(), None), None)).mean())
        discriminator.requires_grad_(True)
        with torch.no_grad():
            fake = generator(latent(), None)
        loss = F.softplus(discriminator(fake, None)).mean() + F.softplus(-discriminator(batch, None)).mean()
        learn(optimisers[1], loss)

    def penalise():
        point = batch.detach().requires_grad_(True)
        logits = discriminator(point, None)
        with conv2d_gradfix.no_weight_gradients():
            gradient = torch.autograd.grad(logits.sum(), point, create_graph=True)[0]
        learn(optimisers[1], (logits * 0).mean() + gradient.square().sum([1, 2, 3]).mean() / 2 * INTERVAL)

    def generate():
        with torch.no_grad():
            generator(latent(), None)

    return {"training step": train, "R1 step": penalise, "generation": generate}


if __name__ == "__main__":
    main()
