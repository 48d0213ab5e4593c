"""Weights that were made elsewhere: StarGAN's, NVIDIA's StyleGAN2-ADA's, and the paper's Keras classifier.

A file is only read, never run: PyTorch's loader is restricted to tensors, the code that NVIDIA's pickles
carry is skipped, and of a Keras file its arrays and its description are taken.
"""

import io
import json
import math
import logging
import pickle
import re
import shutil
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from fer_lib import labels, paths, weights
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS
from fer_lib.networks import stargan, stylegan2, stylegan2_ada
from fer_lib.networks.paper_cnn import PaperCNN

log = logging.getLogger(__name__)

STARGAN_ORDER = tuple(labels.ORDERS["stargan"].values())
"""The labels of the authors' StarGAN: their folders in alphabetical order."""

KINDS = {
    "stargan": "the generator of yunjey/stargan (a state_dict such as 200000-G.pth)",
    "stylegan2_ada": "a network pickle of NVlabs/stylegan2-ada-pytorch (such as ffhq.pkl)",
    "compendium": "a generator.safetensors of this compendium",
}
"""The kinds of generators that can be imported, and what their files are."""

LARGEST_KERNEL = 2**29  # numbers; so that a small file which says it holds more than memory is refused
TOLERANCE = 1e-4  # of an imported network's output, in the units of its output


TRAINING = "training.json"  # beside an adopted generator: what was written of it where it was trained
METHODS = {"flow": "expression_flow", "stargan": "stargan"}
"""Ways to impose an expression, and the kinds of their generators."""


def import_generator(path, *, kind=None, label_order=STARGAN_ORDER, device="cpu"):
    """A generator that was trained elsewhere, to be used like one that `weights.load_generator` gives.

    path : file of one of KINDS. kind : key of KINDS, or None to tell it by the file's first bytes.
    label_order : names of StarGAN's labels in the order of its training, in any spelling that `labels` knows;
        other kinds have none. Labels beyond the seven expressions (contempt) are left out.
    device : where the network is put.
    Returns a network in evaluation mode without gradients, for images of the size and channels of its
        training, float in -1..1: stargan.Generator, called with images and the codes of ALL_EXPRESSIONS, or
        stylegan2_ada.Generator, called with latents float [n, latent_size]; of the kind compendium, either.
        Its output equals the original's to TOLERANCE in float32; the TF32 that cuDNN takes by default on a
        GPU is coarser. StarGAN normalises by the statistics of the image, as its own test does, not by the
        stored ones. StyleGAN2-ADA is computed in one precision throughout; on a GPU the original takes half
        precision at its highest resolutions unless force_fp32 is set.
    Raises FerError when the file is missing, damaged or of another kind, when the label order does not fit,
        and for StyleGAN2-ADA generators that are conditional or not of the skip architecture.
    Source: Choi et al. 2018 (StarGAN); Karras et al. 2020 (StyleGAN2, arXiv 1912.04958, and ADA, 2006.06676).
    """
    kind = _checked_kind(path, kind)
    if kind == "compendium":
        return weights.load_generator(path, device=device)
    network, _ = _stargan(path, label_order) if kind == "stargan" else _stylegan2_ada(path)
    return _finished(network, device)


def convert(path, target, *, kind=None, label_order=STARGAN_ORDER):
    """Write imported weights in the compendium's own format, which the notebooks read.

    path, kind, label_order : see `import_generator`. target : path of the new file, ending in .safetensors.
    A StyleGAN2-ADA generator is written as stylegan2.Generator, which has no conv_clamp. The clamp is there
    against overflow and rarely reached; that leaving it out changes nothing is measured on 8 faces.
    Returns target as a Path.
    Raises FerError as `import_generator` does; when the file is in the compendium's format already; and when
        stylegan2.Generator cannot hold the network: z, w and mapping layers of unequal length, or faces
        that change by more than TOLERANCE without the clamp.
    Source: Karras et al. 2020, arXiv 2006.06676, appendix on mixed precision (the clamp).
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise FerError(f"The target {target} does not end in .safetensors: name the new file so.")
    kind = _checked_kind(path, kind)
    if kind == "compendium":
        raise FerError(f"{path} is in the compendium's format already: use it as it is.")
    if kind == "stargan":
        network, options = _stargan(path, label_order)
    else:
        kind, (network, options) = "stylegan2", _without_clamp(path, *_stylegan2_ada(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    weights.save_weights(network, target.parent, name=target.stem, options=options, kind=kind)
    return target


def find_weights(choice, *, role, dataset, faces, method=None):
    """The file that a choice of weights means, or None when the generator is to be trained.

    choice : "shipped", "train", or the path of a file of one of KINDS; a relative one starts at the repository.
    role : "identity", "expression", or a name in referee.KINDS. dataset : name as in data.prepare. faces : Faces [n] of
    the pool. method : "flow" or "stargan" where one of them is wanted, or None.
    "shipped" means weights/<dataset>/<role>.safetensors where there is one for faces of this size and of this method,
    and otherwise training, which a log line says. Training, too, where it learned from pictures of nobody known that
    are not this very pool: of another set a copy, saved anew, may be tested here, and would not be recognised.
    Raises FerError when the file does not exist, or holds a flow generator where StarGAN's method is wanted; the method
    flow, the default, takes either.
    """
    if choice == "train":
        return None
    if choice != "shipped":
        return _of_method(_existing(paths.REPOSITORY / choice), method)
    path = paths.REPOSITORY / "weights" / dataset / f"{role}.safetensors"
    fits = path.is_file() and _made_for(path) == (faces.image_size, faces.channels)
    if fits and method and weights.read_metadata(path)["kind"] != METHODS[method]:
        log.info("the shipped weights of %s are not of the method %s: they are trained now", role, method)
        return None
    if fits and _may_be_copies(path, faces):
        log.info("the shipped weights of %s learned from other pictures than this pool's, and nobody is named in them, "
                 "so that copies of them, saved anew, could not be told: they are trained now", role)
        return None
    if fits:
        return path
    log.info("no weights of %s are shipped for %s faces of %d pixels and %d channels: they are trained now", role,
             dataset, faces.image_size, faces.channels)
    return None


def _of_method(path, method):
    if method == "stargan" and kind_of(path) == "compendium" and weights.read_metadata(path)["kind"] == METHODS["flow"]:
        raise FerError(f"{path} holds a flow generator, but the expression_method is stargan: set "
                       "expression_method=flow, or give a StarGAN.")
    return path


def _may_be_copies(path, faces):
    trained_on = weights.read_metadata(path)["trained_on"]
    return not trained_on["subjects"] and trained_on["fingerprint"] != faces.fingerprint


def _made_for(path):
    trained_on = weights.read_metadata(path)["trained_on"] or {}
    return trained_on.get("image_size"), trained_on.get("channels")


def adopt(path, folder, *, role, parts, mirrored=None):
    """Put a generator that exists into `folder`, where training would have put it: generator.safetensors.

    path : see `find_weights`; the history of its training, <name>.csv or history.csv beside it, and what a run of this
    compendium wrote of it, artifact.json, come along as history.csv and training.json. role : "identity" or
    "expression". parts : dict part -> Faces of the profile, `pool` among them. mirrored : bool, sets it, see
    expression_flow.Generator; None leaves it as the file says.
    Raises FerError when the file is none of KINDS, or draws faces of another size or kind than the pool's, and
    LeakError when it was trained on a person or a picture outside the pool.
    """
    path, target, pool = Path(path), Path(folder) / "generator.safetensors", parts["pool"]
    if _checked_kind(path, None) == "compendium":
        weights.load_generator(path)
        shutil.copyfile(path, target)
    else:
        convert(path, target)
        if kind_of(path) == "stargan":
            log.info("%s does not name its labels: they are taken to be %s; with another order write it anew by "
                     "imports.convert(..., label_order=[...]) and give that file", path.name, ", ".join(STARGAN_ORDER))
    found = weights.read_metadata(target)
    _check_role(found, role, pool, path)
    weights.check_unseen(found["trained_on"], parts, name=path.name)
    if mirrored is not None and _mirrors(found["kind"], mirrored, path):
        weights.set_options(target, mirrored=mirrored)
    beside = [(path.with_suffix(".csv"), "history.csv")]
    if path.name == target.name:  # from a run
        beside += [(path.parent / name, copy) for name, copy in (
            ("history.csv", "history.csv"), ("artifact.json", TRAINING), (TRAINING, TRAINING))]
    for file, name in beside:
        if file.is_file() and (name == TRAINING or _is_history(file)):
            shutil.copyfile(file, Path(folder) / name)
    log.info("took %s: %s", path.name, _told(found["trained_on"], pool))


def _check_role(found, role, pool, path):
    kinds = weights.IDENTITY_KINDS if role == "identity" else weights.EXPRESSION_KINDS
    if found["kind"] not in kinds:
        raise FerError(f"{path} holds a {found['kind']} generator, which is no {role} GAN: "
                       f"give one of {', '.join(kinds)}.")
    options, trained_on = found["options"], found["trained_on"] or {}
    size = options.get("image_size", trained_on.get("image_size", pool.image_size))
    if (size, options.get("channels", 1)) != (pool.image_size, pool.channels):
        raise FerError(f"{path} makes faces of {size} pixels and {options.get('channels', 1)} channels, but the pool's "
                       f"have {pool.image_size} and {pool.channels}: set image_size and channels to fit, or train one "
                       f"with {role}_weights=train.")


def _is_history(file):
    """Whether a table beside a generator is that of its training, as training.loop writes it."""
    with file.open(encoding="utf-8", errors="replace") as text:
        return {"step", "seconds", "images_per_second"} <= set(text.readline().strip().split(","))


def _mirrors(kind, mirrored, path):
    """Whether generators of this kind can be mirrored. Raises FerError where one that cannot is to be."""
    if kind != "expression_flow" and mirrored:
        raise FerError(f"{path} holds a {kind} generator, which has no flow to mirror: set expression_mirrored=false.")
    return kind == "expression_flow"


def _told(trained_on, pool):
    if trained_on is None:
        return "it does not say what it was trained on, so nothing can be said about leaks"
    same = trained_on["fingerprint"] == pool.fingerprint
    whose = (("the former this very pool" if trained_on.get("n_sequences") else "this very pool") if same
             else "another pool")
    copies = "" if trained_on["subjects"] else ", if none was saved anew"
    return f"trained on {weights.describe(trained_on)}, {whose}; none of them is trained on or tested here{copies}"


def import_classifier(path, *, label_order=EXPRESSIONS, device="cpu"):
    """The paper's classifier from a Keras .h5 file, of `model.save` or `save_weights`.

    path : HDF5 file of Keras 2 or 3. Layers are known by kind and shape, in order; their names do not matter.
    label_order : names of the softmax's six classes, in any spelling that `labels` knows. Keras numbers the
        folders of flow_from_directory alphabetically, and theirs come in the order of EXPRESSIONS.
    device : where the network is put.
    Returns PaperCNN in evaluation mode. It takes float [n, C, H, W] in [0, 1]; the softmax of its logits
        equals the original's output to TOLERANCE, for the same pixels: what was trained on pixels / 255
        must be given such pixels.
    Raises FerError when the file is missing, damaged, or holds another network. A file with weights alone
        does not tell paddings and activations: those of the paper are taken.
    Source: Gholipour Picha et al. (2023), arXiv 2303.15223.
    """
    with _reading(path, "a Keras .h5 file with the paper's classifier"), h5py.File(_existing(path)) as file:
        _check_description(file, path)
        pairs = _keras_weights(file)
        _check_shapes([kernel.shape for kernel, _ in pairs], path)
        if any(bias.shape != kernel.shape[-1:] for kernel, bias in pairs) or pairs[4][0].size > LARGEST_KERNEL:
            raise FerError(f"{path} holds biases that do not fit its kernels, or more than the paper's network has for "
                           "pictures of 500 pixels: get the file again.")
        pairs = [tuple(np.asarray(array, np.float32) for array in pair) for pair in pairs]
        network = _classifier(pairs, _channels_of(label_order, EXPRESSIONS, len(pairs[-1][1]), path))
    return _finished(network, device)


def kind_of(path):
    """What a file of weights is, by its first bytes: a key of KINDS, or "keras" for any HDF5 file.

    Raises FerError when the file is missing or none of these.
    """
    with _existing(path).open("rb") as file:
        start = file.read(16)
    # torch.save makes zip archives; before version 1.6 pickles that begin with a number of its own.
    if start.startswith((b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19")):
        return "stargan"
    if start[8:9] == b"{":  # before it the length of what follows, which may begin with any byte
        return "compendium"
    if start.startswith(b"\x80"):
        return "stylegan2_ada"
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    raise FerError(f"{path} holds no weights that can be imported: expected {', '.join(KINDS.values())}, "
                   "or a Keras .h5 file with the paper's classifier.")


def _checked_kind(path, kind):
    if kind is not None and kind not in KINDS:
        raise FerError(f"There is no kind {kind!r} of generator: use one of {', '.join(KINDS)}, or None.")
    found = kind or kind_of(path)
    if found == "keras":
        raise FerError(f"{path} is an HDF5 file, as Keras writes, and not a generator: "
                       "read a classifier with import_classifier.")
    _existing(path)
    return found


def _existing(path):
    if not Path(path).is_file():
        raise FerError(f"There is no file {path}: check the path of the weights.")
    return Path(path)


@contextmanager
def _reading(path, what):
    """Tell whatever a damaged or unsuitable file raises as one sentence: that `path` is not `what`."""
    try:
        yield
    except FerError:
        raise
    except Exception as error:  # a damaged file raises many types
        raise FerError(f"{path} is damaged, or is not {what} ({type(error).__name__}): "
                       "get the file again, or give the path of another.") from error


def _finished(network, device):
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def _channels_of(label_order, wanted, n_labels, path):
    """Where the `wanted` expressions are among the `n_labels` of the file: list of ints."""
    names = [labels.expression(name) for name in label_order]
    if len(names) != n_labels:
        raise FerError(f"{path} knows {n_labels} labels, but label_order names {len(names)} "
                       f"({', '.join(names)}): name them all, in the order of the training (as label_order of "
                       "imports.convert, whose file the notebooks take).")
    for name in wanted:
        if names.count(name) != 1:
            raise FerError(f"label_order has {name} {names.count(name)} times, for {path}: "
                           f"name each of {', '.join(wanted)} once, in the order of the training.")
    return [names.index(name) for name in wanted]


# StarGAN


def _stargan(path, label_order):
    """(stargan.Generator, its options) from the state_dict of the original's Generator."""
    with _reading(path, KINDS["stargan"]):
        state = torch.load(path, map_location="cpu", weights_only=True)
        if "conv2.weight" in state:
            raise FerError(f"{path} is StarGAN's discriminator: give the generator, *-G.pth.")
        # The stored statistics are left out: the original never calls eval() and so takes those of the image.
        state = {name: value for name, value in state.items() if re.search(r"\.(weight|bias)$", name)}
        n_blocks = sum(bool(re.fullmatch(r"main\.\d+\.main\.0\.weight", name)) for name in state)
        first, channels = state["main.0.weight"], len(state[f"main.{n_blocks + 15}.weight"])
        image, label = first[:, :channels], first[:, channels:]
        order = _channels_of(label_order, ALL_EXPRESSIONS, label.shape[1], path)
        state["main.0.weight"] = torch.cat([image, label[:, order]], 1)
        options = {"channels": channels, "n_labels": len(order), "conv_dim": len(first), "n_blocks": n_blocks}
        network = stargan.Generator(**options)
        network.load_state_dict(state)
    return network, options


# StyleGAN2-ADA


class _Inert(dict):
    """Stands in for an object of a class that is not on the list: keeps items and state, and does nothing."""

    state = {}
    __hash__ = object.__hash__

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __init__(self, *_, **__):
        super().__init__()

    def __setstate__(self, state):
        self.state = state

    def extend(self, _):
        """Lists and sets keep nothing."""

    append = add = extend


class _Module(_Inert):
    """A pickled network: its attributes are kept in `state`, its source code is dropped."""

    def __init__(self, meta):
        super().__init__()
        self.state = meta["state"]


class _Tensor(_Inert):
    def __new__(cls, storage, offset, size, stride, *_):
        return torch._utils._rebuild_tensor(storage, offset, size, stride)


class _Parameter(_Inert):
    def __new__(cls, tensor, *_):
        return tensor


class _Storage(_Inert):
    def __new__(cls, content):  # torch's own function of this name would unpickle the content freely
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Module,
}
"""What a pickle may name, and what it gets for it; whatever else it names becomes an _Inert."""


class _Unpickler(pickle.Unpickler):
    """Reads a pickle without importing or running anything that it names."""

    def __init__(self, file):
        super().__init__(file)
        self.modules = set()

    def find_class(self, module, name):
        self.modules.add(module)
        return ALLOWED.get((module, name), _Inert)


def _stylegan2_ada(path):
    """(stylegan2_ada.Generator, its options) from the moving average G_ema of a network pickle."""
    with _reading(path, KINDS["stylegan2_ada"]):
        generator = _moving_average(path)
        tensors = {name: tensor.detach().float() for name, tensor in _tensors(generator)}
        _check_supported(path, generator, tensors)
        options = _ada_options(generator, tensors)
        network = stylegan2_ada.Generator(**options)
        rate = generator["_modules"]["mapping"].state["_modules"]["fc0"].state["bias_gain"]
        network.load_state_dict(_ada_state(tensors, options, lr_multiplier=rate))
    return network, options


def _moving_average(path):
    """The state of G_ema, a dict of a module's attributes."""
    with open(path, "rb") as file:
        unpickler = _Unpickler(file)
        content = unpickler.load()
    if any(name.startswith("dnnlib.tflib") for name in unpickler.modules):
        raise FerError(f"{path} is a network pickle of the TensorFlow StyleGAN2: convert it first with "
                       "legacy.py of NVlabs/stylegan2-ada-pytorch.")
    return content["G_ema"].state


def _tensors(module, prefix=""):
    """(dotted name, tensor) of a module's parameters and buffers; module : dict of its attributes."""
    for name, tensor in (module["_parameters"] | module["_buffers"]).items():
        if tensor is not None:
            yield prefix + name, tensor
    for name, child in module["_modules"].items():
        yield from _tensors(child.state, f"{prefix}{name}.")


def _check_supported(path, generator, tensors):
    """Raise FerError, naming the first reason, for a generator that stylegan2_ada.Generator cannot be."""
    mapping, synthesis = (generator["_modules"][name].state for name in ("mapping", "synthesis"))
    if "b4" not in synthesis["_modules"]:
        raise FerError(f"{path} holds no StyleGAN2 (perhaps StyleGAN3): import a StyleGAN2 generator.")
    blocks = [block.state for block in synthesis["_modules"].values()]
    layers = [layer.state for part in (mapping, *blocks) for layer in part["_modules"].values()]
    reasons = {
        f"is conditional ({generator['c_dim']} labels)": generator["c_dim"] != 0,
        "has another architecture than skip": any(block["architecture"] != "skip" for block in blocks),
        "has another activation than lrelu": not _values(layers, "activation") <= {"lrelu"},
        "has layers without noise": False in _values(layers, "use_noise"),
        "has no mapping layers": mapping["num_layers"] < 1,
        "has another filter than [1, 3, 3, 1]": not all(
            _is_usual_filter(tensor) for name, tensor in tensors.items() if name.endswith("resample_filter")),
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if reason:
        raise FerError(f"{path} cannot be imported because its generator {reason}: only unconditional "
                       "StyleGAN2 generators of the skip architecture with the usual layers can.")


def _values(layers, attribute):
    return {layer[attribute] for layer in layers if attribute in layer}


def _is_usual_filter(tensor):
    kernel = torch.outer(*[torch.tensor(stylegan2.FIR)] * 2)
    return tensor.shape == kernel.shape and tensor.allclose(kernel / kernel.sum())


def _ada_options(generator, tensors):
    """Options of stylegan2_ada.Generator: the original's arguments, or its defaults where they are absent."""
    mapping, synthesis = (generator["_modules"][name].state for name in ("mapping", "synthesis"))
    widths = synthesis["_init_kwargs"]
    return {"image_size": generator["img_resolution"], "channels": generator["img_channels"],
            "latent_size": generator["z_dim"], "w_size": generator["w_dim"],
            "mapping_width": len(tensors["mapping.fc0.bias"]), "mapping_layers": mapping["num_layers"],
            "channel_base": int(widths.get("channel_base", 32768)),
            "channel_max": int(widths.get("channel_max", 512)),
            "conv_clamp": synthesis["_modules"]["b4"].state["_modules"]["conv1"].state["conv_clamp"]}


def _ada_state(tensors, options, *, lr_multiplier):
    """The state_dict of stylegan2_ada.Generator from the original's tensors, by their dotted names."""
    state = {"mapping.w_mean": tensors["mapping.w_avg"], "constant": tensors["synthesis.b4.const"][None]}
    for index in range(options["mapping_layers"]):
        for part in ("weight", "bias"):
            value = tensors[f"mapping.fc{index}.{part}"]
            state[f"mapping.layers.{index}.{part}"] = value * (lr_multiplier / 0.01)  # ours has 0.01
    for index, size in enumerate(stylegan2.resolutions(options["image_size"])):
        block = f"synthesis.b{size}"
        state |= _ada_convolution(tensors, f"{block}.torgb", f"to_images.{index}")
        state |= _ada_layer(tensors, f"{block}.conv1", f"convs.{index - 1}" if index else "first")
        if index:
            state |= _ada_layer(tensors, f"{block}.conv0", f"ups.{index - 1}", up=True)
    return state


def _ada_layer(tensors, theirs, ours, *, up=False):
    """A synthesis layer's part of the state_dict.

    The original demodulates weights without the equalising factor 1 / sqrt(fan-in) that ours carry, and
    applies the ones of its upsampling layers as a convolution, not a correlation.
    """
    state = _ada_convolution(tensors, theirs, ours)
    weight = state[f"{ours}.conv.weight"] * math.sqrt(tensors[f"{theirs}.weight"][0].numel())
    state[f"{ours}.conv.weight"] = weight.flip([2, 3]) if up else weight
    state[f"{ours}.noise_strength"] = tensors[f"{theirs}.noise_strength"]
    state[f"{ours}.fixed_noise"] = tensors[f"{theirs}.noise_const"][None, None]
    return state


def _ada_convolution(tensors, theirs, ours):
    return {f"{ours}.conv.weight": tensors[f"{theirs}.weight"], f"{ours}.bias": tensors[f"{theirs}.bias"],
            f"{ours}.conv.style.weight": tensors[f"{theirs}.affine.weight"],
            f"{ours}.conv.style.bias": tensors[f"{theirs}.affine.bias"]}


def _without_clamp(path, network, options):
    """(stylegan2.Generator, its options) with the weights of a stylegan2_ada.Generator."""
    options = dict(options)
    clamp, sizes = options.pop("conv_clamp"), {options.pop("w_size"), options.pop("mapping_width")}
    if sizes != {options["latent_size"]}:
        raise FerError(f"{path} has z, w and mapping layers of unequal length, which the compendium's format "
                       "cannot hold: use it through import_generator.")
    plain = stylegan2.Generator(**options)
    plain.load_state_dict(network.state_dict())
    change = 0.0 if clamp is None else _largest_difference(network.eval(), plain.eval())
    if not change <= TOLERANCE:
        raise FerError(f"Without its conv_clamp of {clamp} the faces of {path} change by {change:.1g}, and "
                       "the compendium's format has no clamp: use it through import_generator.")
    return plain, options


@torch.inference_mode()
def _largest_difference(one, other, *, n=8):
    """The largest difference between the pixels of two identity generators, over n latents."""
    latents = torch.randn(n, 1, one.latent_size, generator=torch.Generator().manual_seed(0))
    return max(float((one(z, noise="fixed") - other(z, noise="fixed")).abs().max()) for z in latents)


# The paper's classifier in Keras


KERAS_STEPS = ("Conv2D relu Conv2D relu MaxPooling2D Conv2D relu MaxPooling2D Conv2D relu MaxPooling2D "
               "Dense relu Dense softmax").split()
"""What the layers of the paper's classifier do, in order, apart from dropout and flattening."""

SHARED = {"padding": "valid", "data_format": "channels_last"}
KERAS_USUAL = {"Conv2D": SHARED | {"strides": [1, 1], "dilation_rate": [1, 1]},
               "MaxPooling2D": SHARED | {"strides": [2, 2], "pool_size": [2, 2]}}
"""Options with which those layers do that; others are named behind the layer, and so differ."""


def _check_description(file, path):
    """Raise FerError when the file describes another network; a file of weights alone has no description."""
    if "model_config" not in file.attrs:
        return
    steps = _keras_steps(json.loads(file.attrs["model_config"])["config"])
    if steps != KERAS_STEPS:
        raise FerError(f"{path} holds another network than the paper's: its layers are {', '.join(steps)} "
                       f"instead of {', '.join(KERAS_STEPS)}.")


def _keras_steps(config):
    """The layers of a model's description, in the manner of KERAS_STEPS."""
    steps = []
    for layer in config if isinstance(config, list) else config["layers"]:
        name, options = layer["class_name"], layer["config"]
        if name not in ("Activation", "ReLU", "Softmax", "InputLayer", "Dropout", "Flatten"):
            usual = KERAS_USUAL.get(name, {})
            steps.append(" ".join([name, *(f"{key} {options[key]}" for key in usual
                                           if options.get(key, usual[key]) != usual[key])]))
        activation = name.lower() if name in ("ReLU", "Softmax") else options.get("activation", "linear")
        steps += [activation] if activation != "linear" else []
    return steps


def _keras_weights(file):
    """The (kernel, bias) of each layer that has weights, in order: h5py's data sets, which are not read yet."""
    group = file.get("model_weights", file)
    if "layer_names" in group.attrs:  # Keras 2, and Keras 3 where it writes the old format
        layers = [group[_text(name)] for name in group.attrs["layer_names"]]
        found = [[layer[_text(name)] for name in layer.attrs["weight_names"]] for layer in layers]
    else:  # Keras 3: *.weights.h5
        found = [list(layer["vars"].values()) for layer in group["layers"].values()]
    return [tuple(arrays) for arrays in found if arrays]


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)


def _check_shapes(shapes, path):
    """Raise FerError unless these are the paper's layers; shapes : those of the kernels, in order."""
    channels, rows, classes = shapes[0][2:3], shapes[4:5] and shapes[4][:1], shapes[-1][-1:]
    convolutions = [(3, 3, *channels, 32), (3, 3, 32, 64), (3, 3, 64, 128), (3, 3, 128, 128)]
    square = rows and rows[0] == 128 * math.isqrt(rows[0] // 128) ** 2
    if not square or shapes != [*convolutions, (*rows, 1024), (1024, *classes)]:
        raise FerError(f"{path} holds another network than the paper's: its kernels have the shapes {shapes} "
                       "instead of four 3x3 convolutions to 32, 64, 128 and 128 channels and two dense "
                       "layers, the first to 1024.")


def _classifier(pairs, order):
    """PaperCNN with Keras' weights, its logits in the given order of theirs.

    Keras keeps kernels as [height, width, in, out] and flattens [height, width, channel], torch keeps
    [out, in, height, width] and flattens [channel, height, width].
    """
    kernels, biases = ([torch.from_numpy(array) for array in arrays] for arrays in zip(*pairs))
    side = math.isqrt(len(kernels[4]) // 128)
    weights = [kernel.permute(3, 2, 0, 1) for kernel in kernels[:4]]
    weights.append(kernels[4].reshape(side, side, 128, -1).permute(3, 2, 0, 1).flatten(1))
    weights.append(kernels[5].T[order])
    network = PaperCNN(image_size=8 * side + 16, channels=kernels[0].shape[2], n_classes=len(order))
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer, weight, bias in zip(layers, weights, [*biases[:-1], biases[-1][order]], strict=True):
        layer.load_state_dict({"weight": weight, "bias": bias})
    return network
