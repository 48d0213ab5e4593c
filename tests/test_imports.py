"""Laws of imported weights: the same output as the original's equations, and no code is run.

The files are made here in the formats of the originals; the references are written from the papers.
"""

import json
import os
import pickle
import sys
import types
from collections import OrderedDict

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fer_lib import explorer, generation, imports, training
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS
from fer_lib.networks import stargan, stylegan2

ALPHABETICAL = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
WITH_CONTEMPT = ("angry", "contemptuous", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
SHUFFLED = ("surprise", "angery", "happy", "fear", "sad", "disgust")
CLOSE = {"rtol": 0, "atol": 1e-4}


def refusal(call, *arguments, **options):
    """The message with which a call is refused, which is one line that ends as a sentence does."""
    with pytest.raises(FerError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


# StarGAN


def stargan_state(*, n_labels=7, width=4, n_blocks=2, seed=0):
    """Random weights under the names, and in the order, of the original's state_dict, with its statistics."""
    random, state = torch.Generator().manual_seed(seed), OrderedDict()

    def layer(conv, norm, *shape):
        state[f"{conv}.weight"] = torch.randn(shape, generator=random) * 0.2
        if norm:
            n = width_of[norm] = shape[1] if transposed else shape[0]
            state[f"{norm}.weight"] = torch.randn(n, generator=random) + 1
            state[f"{norm}.bias"] = torch.randn(n, generator=random)
            state[f"{norm}.running_mean"] = torch.randn(n, generator=random)
            state[f"{norm}.running_var"] = torch.rand(n, generator=random)
            state[f"{norm}.num_batches_tracked"] = torch.tensor(5)

    width_of, transposed = {}, False
    layer("main.0", "main.1", width, 3 + n_labels, 7, 7)
    layer("main.3", "main.4", 2 * width, width, 4, 4)
    layer("main.6", "main.7", 4 * width, 2 * width, 4, 4)
    for index in range(9, 9 + n_blocks):
        for conv in (0, 3):
            layer(f"main.{index}.main.{conv}", f"main.{index}.main.{conv + 1}", 4 * width, 4 * width, 3, 3)
    index, transposed = 9 + n_blocks, True
    layer(f"main.{index}", f"main.{index + 1}", 4 * width, 2 * width, 4, 4)
    layer(f"main.{index + 3}", f"main.{index + 4}", 2 * width, width, 4, 4)
    layer(f"main.{index + 6}", None, 3, width, 7, 7)
    return state


def stargan_reference(state, image, one_hot, *, n_blocks=2):
    """StarGAN's generator (tables 4 and 5 of its paper), normalising by the statistics of each image."""
    def norm(x, name):
        x = (x - x.mean([2, 3], keepdim=True)) / (x.var([2, 3], keepdim=True, unbiased=False) + 1e-5).sqrt()
        return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    def conv(x, name, padding, stride=1):
        return F.conv2d(x, state[f"{name}.weight"], padding=padding, stride=stride)

    planes = one_hot[:, :, None, None] * torch.ones(1, 1, *image.shape[2:])
    x = F.relu(norm(conv(torch.cat([image, planes], 1), "main.0", 3), "main.1"))
    x = F.relu(norm(conv(x, "main.3", 1, 2), "main.4"))
    x = F.relu(norm(conv(x, "main.6", 1, 2), "main.7"))
    for index in range(9, 9 + n_blocks):
        y = F.relu(norm(conv(x, f"main.{index}.main.0", 1), f"main.{index}.main.1"))
        x = x + norm(conv(y, f"main.{index}.main.3", 1), f"main.{index}.main.4")
    for index in (9 + n_blocks, 12 + n_blocks):
        x = F.conv_transpose2d(x, state[f"main.{index}.weight"], stride=2, padding=1)
        x = F.relu(norm(x, f"main.{index + 1}"))
    return conv(x, f"main.{15 + n_blocks}", 3).tanh()


def save_stargan(path, *, zipped=True, **options):
    state = stargan_state(**options)
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return state


@pytest.mark.parametrize("order", [ALPHABETICAL, ALPHABETICAL[::-1], WITH_CONTEMPT])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_stargan_draws_what_the_original_draws_for_every_expression(tmp_path, order, zipped):
    state = save_stargan(tmp_path / "200000-G.pth", n_labels=len(order), zipped=zipped)
    generator = imports.import_generator(tmp_path / "200000-G.pth", label_order=order)
    image = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    theirs = {"anger": "ang", "disgust": "disg", "fear": "fear", "happiness": "happy", "sadness": "sad",
              "surprise": "surprise", "neutral": "neutral"}
    for code, name in enumerate(ALL_EXPRESSIONS):
        place = next(index for index, label in enumerate(order) if label.startswith(theirs[name]))
        expected = stargan_reference(state, image, torch.eye(len(order))[[place, place]])
        torch.testing.assert_close(generator(image, torch.tensor([code, code])), expected, **CLOSE)
    assert not generator.training and not any(p.requires_grad for p in generator.parameters())


@pytest.mark.parametrize("order, told", [
    (ALPHABETICAL[:6], "knows 7 labels, but label_order names 6"),
    (("angry", *ALPHABETICAL[:6]), "anger 2 times"),
    (("contempt", *ALPHABETICAL[1:]), "anger 0 times"),
    (("cheerful", *ALPHABETICAL[1:]), "cheerful"),
])
def test_a_label_order_that_does_not_fit_is_refused(tmp_path, order, told):
    save_stargan(tmp_path / "G.pth")
    with pytest.raises(FerError, match=told):
        imports.import_generator(tmp_path / "G.pth", label_order=order)


def test_stargans_discriminator_is_told_from_its_generator(tmp_path):
    weights = stargan.Discriminator(image_size=32, channels=3, conv_dim=4).state_dict()
    theirs = [("critic", "conv1"), ("classify", "conv2")]
    torch.save({key.replace(*theirs[0]).replace(*theirs[1]): value for key, value in weights.items()},
               tmp_path / "D.pth")
    assert "discriminator" in refusal(imports.import_generator, tmp_path / "D.pth")


# StyleGAN2-ADA


class Persistent:
    """Pickled as torch_utils.persistence does it: its function is called with state and source code."""

    source = ""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "class_name": "Net", "module_src": self.source,
                "state": self.state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


@pytest.fixture
def nvidia(monkeypatch):
    """Modules under the names in NVIDIA's pickles; when unpickled freely, they run the source code."""
    def _reconstruct_persistent_obj(meta):
        exec(meta["module_src"], {})
        return types.SimpleNamespace(**meta["state"])

    class EasyDict(dict):
        pass

    class Network:
        pass

    for name, member in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict),
                         ("dnnlib.tflib.network", Network)):
        member.__module__, member.__qualname__ = name, member.__name__
        module = types.ModuleType(name)
        setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)
        parent = name.split(".")[0]
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    return types.SimpleNamespace(EasyDict=EasyDict, Network=Network)


FIR = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


def module(tensors, prefix, children=(), **attributes):
    """A pickled module with those `tensors` whose names are `prefix` and one part more, and the children."""
    own = {name.removeprefix(prefix): value for name, value in tensors.items()
           if name.startswith(prefix) and "." not in name.removeprefix(prefix)}
    buffers = {name: own.pop(name) for name in ("noise_const", "w_avg", "resample_filter") if name in own}
    parameters = OrderedDict((name, torch.nn.Parameter(value)) for name, value in own.items())
    return Persistent({"training": False, "_parameters": parameters, "_buffers": OrderedDict(buffers),
                       "_modules": OrderedDict(children), "_forward_hooks": OrderedDict(), **attributes})


def ada_tensors(*, size, z=8, w=8, hidden=8, depth=2, width=6, channels=3, seed=0):
    """Random weights under the dotted names of the original, all feature maps `width` wide."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return torch.randn(shape, generator=random) * scale

    tensors, sizes = {"mapping.w_avg": draw(w, scale=0.1)}, [z, *[hidden] * (depth - 1), w]
    for index, (n_in, n_out) in enumerate(zip(sizes, sizes[1:])):
        tensors |= {f"mapping.fc{index}.weight": draw(n_out, n_in, scale=100.0),
                    f"mapping.fc{index}.bias": draw(n_out, scale=10.0)}
    for resolution in (2**level for level in range(2, size.bit_length())):
        block = f"synthesis.b{resolution}"
        tensors[f"{block}.resample_filter"] = FIR
        for layer in (["conv1"] if resolution == 4 else ["conv0", "conv1"]):
            tensors |= {f"{block}.{layer}.weight": draw(width, width, 3, 3),
                        f"{block}.{layer}.bias": draw(width),
                        f"{block}.{layer}.noise_const": draw(resolution, resolution),
                        f"{block}.{layer}.noise_strength": draw(scale=0.3),
                        f"{block}.{layer}.resample_filter": FIR}
        tensors |= {f"{block}.torgb.weight": draw(channels, width, 1, 1),
                    f"{block}.torgb.bias": draw(channels)}
        for layer in ("conv0", "conv1", "torgb"):
            if f"{block}.{layer}.weight" in tensors:
                tensors |= {f"{block}.{layer}.affine.weight": draw(width, w),
                            f"{block}.{layer}.affine.bias": draw(width) + 1}
    return tensors | {"synthesis.b4.const": draw(width, 4, 4)}


def ada_generator(nvidia, tensors, *, clamp=None, conditions=0, architecture="skip", activation="lrelu",
                  noise=True):
    """The original's Generator with those weights, as it is pickled."""
    sizes = sorted(int(name.split(".")[1][1:]) for name in tensors if name.endswith("torgb.weight"))
    depth = sum(name.startswith("mapping.fc") for name in tensors) // 2
    channels, width = tensors["synthesis.b4.torgb.weight"].shape[:2]

    def layer(name):
        attributes = {} if name.endswith("torgb.") else {"activation": activation, "use_noise": noise}
        affine = module(tensors, f"{name}affine.", activation="linear")
        return module(tensors, name, {"affine": affine}, conv_clamp=clamp, **attributes)

    blocks = {}
    for size in sizes:
        prefix = f"synthesis.b{size}."
        names = [n for n in ("conv0", "conv1", "torgb") if f"{prefix}{n}.weight" in tensors]
        blocks[f"b{size}"] = module(tensors, prefix, {n: layer(f"{prefix}{n}.") for n in names},
                                    architecture=architecture, gain=np.sqrt(0.5))
    widths = nvidia.EasyDict(channel_base=width * sizes[-1], channel_max=width)
    dense = {f"fc{index}": module(tensors, f"mapping.fc{index}.", activation="lrelu", bias_gain=0.01)
             for index in range(depth)}
    w, z = len(tensors["mapping.w_avg"]), tensors["mapping.fc0.weight"].shape[1]
    parts = {"synthesis": module({}, "", blocks, _init_kwargs=widths),
             "mapping": module(tensors, "mapping.", dense, num_layers=depth)}
    return module({}, "", parts, z_dim=z, c_dim=conditions, w_dim=w, img_resolution=sizes[-1],
                  img_channels=channels, _init_kwargs=nvidia.EasyDict(z_dim=z))


def save_ada(path, nvidia, generator):
    content = {"G": generator, "D": None, "G_ema": generator, "augment_pipe": None,
               "training_set_kwargs": nvidia.EasyDict(path="faces.zip", size=np.float64(3))}
    path.write_bytes(pickle.dumps(content))
    return path


def ada_reference(tensors, z, *, truncation, noise, clamp):
    """StyleGAN2's equations with one explicit kernel per image; clamps of ADA after every convolution."""
    def spread(x, size):
        y = torch.zeros(*x.shape[:2], size, size)
        y[:, :, ::2, ::2] = x
        return y

    def filtered(x, padding):
        return F.conv2d(F.pad(x, padding), 4 * FIR.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])

    def limited(x):
        return x if clamp is None else x.clamp(-clamp, clamp)

    def style(name):
        weight = tensors[f"{name}.affine.weight"]
        return w @ weight.T / weight.shape[1] ** 0.5 + tensors[f"{name}.affine.bias"]

    def modulated(x, name, *, up=False, demodulate=True):
        weight = tensors[f"{name}.weight"] * style(name)[:, None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum([2, 3, 4], keepdim=True) + 1e-8).sqrt()
        else:
            weight = weight / weight.shape[2] ** 0.5
        if up:  # a convolution of the image that is spread out, its kernel mirrored
            x, weight = F.pad(spread(x, 2 * x.shape[-1] - 1), [1, 1, 1, 1]), weight.flip([3, 4])
        n, size, padding = len(x), x.shape[-1], weight.shape[-1] // 2
        x = F.conv2d(x.reshape(1, -1, size, size), weight.flatten(0, 1), padding=padding, groups=n)
        x = x.reshape(n, -1, *x.shape[2:])
        return filtered(x, [1, 1, 1, 1]) if up else x

    def layer(x, name, **options):
        x = modulated(x, name, **options) + tensors[f"{name}.bias"][:, None, None]
        if noise == "fixed":
            x = x + tensors[f"{name}.noise_const"] * tensors[f"{name}.noise_strength"]
        return limited(F.leaky_relu(x, 0.2) * 2**0.5)

    w, index = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt(), 0
    while f"mapping.fc{index}.weight" in tensors:
        weight, bias = tensors[f"mapping.fc{index}.weight"], tensors[f"mapping.fc{index}.bias"]
        w = F.leaky_relu(w @ weight.T * 0.01 / weight.shape[1] ** 0.5 + bias * 0.01, 0.2) * 2**0.5
        index += 1
    w = tensors["mapping.w_avg"] + truncation * (w - tensors["mapping.w_avg"])
    x, image, size = tensors["synthesis.b4.const"].expand(len(w), -1, -1, -1), None, 4
    while f"synthesis.b{size}.conv1.weight" in tensors:
        block = f"synthesis.b{size}"
        x = x if size == 4 else layer(x, f"{block}.conv0", up=True)
        x = layer(x, f"{block}.conv1")
        pixels = modulated(x, f"{block}.torgb", demodulate=False)
        pixels = pixels + tensors[f"{block}.torgb.bias"][:, None, None]
        image = limited(pixels) + (0 if image is None else filtered(spread(image, size), [2, 1, 2, 1]))
        size *= 2
    return image


@pytest.mark.parametrize("sizes, clamp", [
    ({}, None), ({"channels": 1, "depth": 8}, 0.7), ({"z": 5, "hidden": 6, "w": 7, "depth": 3}, 256),
    ({"size": 64}, 0.7)])
@pytest.mark.parametrize("truncation, noise", [(1.0, "fixed"), (0.5, "none")])
def test_stylegan2_ada_draws_what_its_equations_say(tmp_path, nvidia, sizes, clamp, truncation, noise):
    tensors = ada_tensors(**{"size": 32, **sizes})
    path = save_ada(tmp_path / "net.pkl", nvidia, ada_generator(nvidia, tensors, clamp=clamp))
    generator = imports.import_generator(path)
    z = torch.randn(3, generator.latent_size, generator=torch.Generator().manual_seed(1))
    expected = ada_reference(tensors, z, truncation=truncation, noise=noise, clamp=clamp)
    torch.testing.assert_close(generator(z, truncation=truncation, noise=noise), expected, **CLOSE)
    assert not generator.training and not any(p.requires_grad for p in generator.parameters())


def test_the_source_code_inside_a_network_pickle_is_not_run(tmp_path, nvidia, monkeypatch):
    trap = tmp_path / "written"
    monkeypatch.setattr(Persistent, "source", f"open({str(trap)!r}, 'w').close()")
    path = save_ada(tmp_path / "net.pkl", nvidia, ada_generator(nvidia, ada_tensors(size=32)))
    imports.import_generator(path)
    assert not trap.exists()
    pickle.loads(path.read_bytes())
    assert trap.exists()  # so the trap does work


class Bomb:
    """Runs a command wherever it is unpickled freely."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["G.pth", "old.pth", "net.pkl", "storage.pkl"])
def test_a_hostile_file_runs_nothing(tmp_path, nvidia, name):
    trap, path = tmp_path / "written", tmp_path / name
    if name.endswith(".pth"):
        torch.save({"main.0.weight": Bomb(trap)}, path, _use_new_zipfile_serialization=name == "G.pth")
    elif name == "net.pkl":
        path.write_bytes(pickle.dumps({"G_ema": Bomb(trap)}))
    else:  # what torch itself would unpickle freely inside the pickle
        inside = pickle.dumps(Bomb(trap))
        call = b"ctorch.storage\n_load_from_bytes\n(" + pickle.dumps(inside, 0)[:-1] + b"tR."
        path.write_bytes(b"\x80\x02" + call)
        pickle.loads(inside)
        trap.unlink()  # the trap works
    refusal(imports.import_generator, path)
    assert not trap.exists()


@pytest.mark.parametrize("changes, told", [
    ({"conditions": 10}, "is conditional"), ({"architecture": "resnet"}, "another architecture"),
    ({"activation": "swish"}, "another activation"), ({"noise": False}, "without noise")])
def test_generators_that_cannot_be_imported_are_told_why(tmp_path, nvidia, changes, told):
    path = save_ada(tmp_path / "net.pkl", nvidia, ada_generator(nvidia, ada_tensors(size=32), **changes))
    assert told in refusal(imports.import_generator, path)


def test_another_filter_stylegan3_and_tensorflow_are_told_by_name(tmp_path, nvidia):
    tensors = ada_tensors(size=32) | {"synthesis.b8.resample_filter": torch.ones(2, 2) / 4}
    path = save_ada(tmp_path / "filter.pkl", nvidia, ada_generator(nvidia, tensors))
    assert "another filter" in refusal(imports.import_generator, path)
    third = ada_generator(nvidia, ada_tensors(size=32))
    third.state["_modules"]["synthesis"].state["_modules"] = {"L0_36_512": module({}, "")}
    assert "StyleGAN3" in refusal(imports.import_generator, save_ada(tmp_path / "third.pkl", nvidia, third))
    (tmp_path / "old.pkl").write_bytes(pickle.dumps((nvidia.Network(), nvidia.Network(), nvidia.Network())))
    assert "legacy.py" in refusal(imports.import_generator, tmp_path / "old.pkl")


# Both GANs


def test_imported_gans_make_faces_of_their_own_size_and_colour(tmp_path, nvidia):
    save_stargan(tmp_path / "G.pth")
    save_ada(tmp_path / "net.pkl", nvidia, ada_generator(nvidia, ada_tensors(size=64)))
    gans = [imports.import_generator(tmp_path / name) for name in ("net.pkl", "G.pth")]
    faces = generation.generate(*gans, n_identities=2, seed=0)
    assert faces.images.shape == (2 * len(EXPRESSIONS), 3, 64, 64)
    assert explorer.faces_of(*gans, seed=0, truncation=0.7).shape == (1 + len(ALL_EXPRESSIONS), 3, 64, 64)


def test_converted_generators_are_read_by_the_compendium_and_draw_the_same(tmp_path, nvidia):
    save_stargan(tmp_path / "G.pth", n_labels=8)
    save_ada(tmp_path / "net.pkl", nvidia, ada_generator(nvidia, ada_tensors(size=32), clamp=256))
    expression, identity = (tmp_path / "new" / f"{name}.safetensors" for name in ("expression", "identity"))
    assert imports.convert(tmp_path / "G.pth", expression, label_order=WITH_CONTEMPT) == expression
    assert imports.convert(tmp_path / "net.pkl", identity) == identity
    z, image = torch.randn(2, 8), torch.rand(2, 3, 32, 32)
    ours, theirs = training.load_generator(identity), imports.import_generator(tmp_path / "net.pkl")
    assert type(ours) is stylegan2.Generator
    assert torch.equal(ours(z, noise="fixed"), theirs(z, noise="fixed"))
    ours = training.load_generator(expression)
    theirs = imports.import_generator(tmp_path / "G.pth", label_order=WITH_CONTEMPT)
    assert torch.equal(ours(image, torch.tensor([1, 6])), theirs(image, torch.tensor([1, 6])))
    again = imports.import_generator(identity)
    assert torch.equal(again(z, noise="none"), training.load_generator(identity)(z, noise="none"))
    assert "already" in refusal(imports.convert, identity, tmp_path / "twice.safetensors")


@pytest.mark.parametrize("sizes, clamp, told", [({}, 0.7, "conv_clamp"), ({"z": 5}, None, "unequal length")])
def test_what_the_own_format_cannot_hold_is_not_written(tmp_path, nvidia, sizes, clamp, told):
    generator = ada_generator(nvidia, ada_tensors(size=32, **sizes), clamp=clamp)
    path = save_ada(tmp_path / "net.pkl", nvidia, generator)
    assert told in refusal(imports.convert, path, tmp_path / "generator.safetensors")
    assert "does not end in" in refusal(imports.convert, path, tmp_path / "generator.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["net.pkl"]


# Keras


KERAS_LAYERS = ("Conv2D", "Conv2D", "MaxPooling2D", "Dropout", "Conv2D", "MaxPooling2D", "Conv2D",
                "MaxPooling2D", "Dropout", "Flatten", "Dense", "Dropout", "Dense")


def keras_arrays(*, size, channels, n_classes=6, seed=0):
    """Kernel and bias of the six layers, kernels as [height, width, in, out] and [in, out]."""
    rng, side = np.random.default_rng(seed), (((size - 4) // 2 - 2) // 2 - 2) // 2
    shapes = [(3, 3, channels, 32), (3, 3, 32, 64), (3, 3, 64, 128), (3, 3, 128, 128), (128 * side**2, 1024),
              (1024, n_classes)]
    return [(rng.standard_normal(shape, np.float32) * np.float32(2 / np.prod(shape[:-1])) ** 0.5,
             rng.standard_normal(shape[-1], np.float32) * np.float32(0.1)) for shape in shapes]


def save_keras(path, arrays, *, layout="model", padding="valid", layers=KERAS_LAYERS):
    """An HDF5 file as Keras writes it: "model" and "weights" of Keras 2, "keras 3" the weights of Keras 3.

    Layers have the numbers that Keras gives a later network of a program; the last convolution has
    two digits, so that the order of names is not the order of layers.
    """
    waiting, count, names = iter(arrays), {}, []
    with h5py.File(path, "w") as file:
        group = {"model": "model_weights", "weights": "/", "keras 3": "layers"}[layout]
        group = file.require_group(group)
        for kind in layers:
            number = count[kind] = count.get(kind, 0 if layout == "keras 3" else 6) + 1
            name = f"{kind.lower()}_{number}"
            layer, pair = group.create_group(name), next(waiting) if kind in ("Conv2D", "Dense") else ()
            parts = [f"{name}/kernel:0", f"{name}/bias:0"] if pair else []
            if layout == "keras 3":
                parts = ["vars/0", "vars/1"]
                layer.create_group("vars")
            else:
                encoded = [part.encode() for part in parts]
                layer.attrs["weight_names"] = np.array(encoded, "S" if parts else float)
            for part, array in zip(parts, pair):
                layer[part] = array
            names.append(name)
        if layout != "keras 3":
            group.attrs["layer_names"] = np.array([name.encode() for name in names])
        if layout == "model":
            file.attrs["model_config"] = json.dumps(keras_description(layers, padding))


def keras_description(layers, padding):
    described, last = [], max(index for index, kind in enumerate(layers) if kind == "Dense")
    for index, kind in enumerate(layers):
        options = {"Conv2D": {"padding": padding, "strides": [1, 1], "activation": "relu"},
                   "MaxPooling2D": {"padding": "valid", "strides": [2, 2], "pool_size": [2, 2]},
                   "Dense": {"activation": "softmax" if index == last else "relu"}}.get(kind, {})
        described.append({"class_name": kind, "config": {"name": f"layer_{index}", **options}})
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": described}}


def keras_reference(arrays, images):
    """Probabilities of the authors' network for images [n, height, width, channels], in numpy."""
    def convolve(x, kernel, bias):
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))  # [n, h, w, c, 3, 3]
        return np.maximum(np.tensordot(windows, kernel, ([4, 5, 3], [0, 1, 2])) + bias, 0)

    def pool(x):
        x = x[:, :x.shape[1] // 2 * 2, :x.shape[2] // 2 * 2]
        return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))

    first, second, third, fourth, hidden, output = arrays
    x = pool(convolve(convolve(images, *first), *second))
    x = pool(convolve(pool(convolve(x, *third)), *fourth)).reshape(len(images), -1)
    logits = np.maximum(x @ hidden[0] + hidden[1], 0) @ output[0] + output[1]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


@pytest.mark.parametrize("layout", ["model", "weights", "keras 3"])
@pytest.mark.parametrize("size, channels", [(40, 3), (47, 1)])
def test_the_classifier_says_what_the_original_says(tmp_path, layout, size, channels):
    arrays = keras_arrays(size=size, channels=channels)
    save_keras(tmp_path / "net.h5", arrays, layout=layout)
    images = np.random.default_rng(1).random((3, size, size, channels), np.float32)
    expected = keras_reference(arrays, images)
    assert expected.max() - expected.min() > 0.2
    model = imports.import_classifier(tmp_path / "net.h5")
    answers = model(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(1)
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-4)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    model = imports.import_classifier(tmp_path / "net.h5", label_order=SHUFFLED)
    answers = model(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(1)
    for place, name in enumerate(("surprise", "anger", "happiness", "fear", "sadness", "disgust")):
        np.testing.assert_allclose(answers[:, EXPRESSIONS.index(name)], expected[:, place], rtol=0, atol=1e-4)


def test_other_keras_networks_are_refused(tmp_path):
    path, arrays = tmp_path / "net.h5", keras_arrays(size=40, channels=1)
    save_keras(path, arrays, padding="same")
    assert "Conv2D padding same" in refusal(imports.import_classifier, path)
    save_keras(path, arrays, layers=[kind for kind in KERAS_LAYERS if kind != "MaxPooling2D"])
    assert "another network than the paper's" in refusal(imports.import_classifier, path)
    narrow = [*arrays[:3], (arrays[3][0][..., :64], arrays[3][1][:64]), *arrays[4:]]
    for other in (narrow, arrays[1:]):
        save_keras(path, other, layout="weights", layers=["Conv2D"] * 3 + ["Dense"] * (len(other) - 3))
        assert "another network than the paper's" in refusal(imports.import_classifier, path)
    save_keras(path, keras_arrays(size=40, channels=1, n_classes=7))
    assert "knows 7 labels" in refusal(imports.import_classifier, path)
    save_keras(path, [*arrays[:5], (arrays[5][0], arrays[5][1][:3])])
    assert "do not fit its kernels" in refusal(imports.import_classifier, path)
    with h5py.File(path, "r+") as file:  # a small file that says it holds 128 GB of zeros
        group = file["model_weights/dense_7/dense_7"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", (128 * 500**2, 1024), "float32", chunks=True)
    assert path.stat().st_size < 10**8 and "pictures of 500 pixels" in refusal(imports.import_classifier, path)
    with h5py.File(path, "w") as file:
        file["table"] = np.arange(3)
    assert "Keras .h5 file" in refusal(imports.import_classifier, path)


# Files that are none of these


def test_a_file_of_no_known_kind_is_told_what_was_expected(tmp_path):
    for content in (b"", b"faces", b"<html>not found</html>", bytes(4096)):
        (tmp_path / "file").write_bytes(content)
        message = refusal(imports.import_generator, tmp_path / "file")
        for name in ("yunjey/stargan", "stylegan2-ada-pytorch", "safetensors", ".h5"):
            assert name in message
        for kind in imports.KINDS:
            refusal(imports.import_generator, tmp_path / "file", kind=kind)
        refusal(imports.import_classifier, tmp_path / "file")
    for missing in (tmp_path / "none", tmp_path):
        assert "no file" in refusal(imports.import_generator, missing)
        assert "no file" in refusal(imports.import_classifier, missing)
    assert "no kind" in refusal(imports.import_generator, tmp_path / "file", kind="vgg")


def test_tensors_and_pickles_of_other_things_are_refused(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
    assert "yunjey/stargan" in refusal(imports.import_generator, tmp_path / "other.pth")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps([1, 2, 3]))
    assert "stylegan2-ada-pytorch" in refusal(imports.import_generator, tmp_path / "other.pkl")
    save_keras(tmp_path / "net.h5", keras_arrays(size=40, channels=1))
    assert "import_classifier" in refusal(imports.import_generator, tmp_path / "net.h5")


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path, nvidia, part):
    save_stargan(tmp_path / "G.pth")
    save_stargan(tmp_path / "old.pth", zipped=False)
    save_ada(tmp_path / "net.pkl", nvidia, ada_generator(nvidia, ada_tensors(size=32)))
    imports.convert(tmp_path / "G.pth", tmp_path / "generator.safetensors")
    save_keras(tmp_path / "net.h5", keras_arrays(size=40, channels=1))
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:int(len(content) * part)])
        read = imports.import_classifier if path.suffix == ".h5" else imports.import_generator
        assert str(path) in refusal(read, path)
