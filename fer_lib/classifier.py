"""Training and testing the classifier of the six expressions."""

import copy
import itertools
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score
from torch.nn import functional as F

from fer_lib import classical, engine
from fer_lib.errors import FerError
from fer_lib.labels import EXPRESSIONS
from fer_lib.networks.paper_cnn import PaperCNN

CODES = list(range(len(EXPRESSIONS)))


@dataclass(frozen=True)
class Trained:
    """A trained classifier, in the state of its best epoch.

    model : PaperCNN in evaluation mode, with the weights of the best epoch, see best_by of `train`.
    history : DataFrame, one row per epoch: epoch (from 1), train_loss, validation_loss (nats per image),
        validation_accuracy (fraction).
    best_epoch : int, from 1. updates : int, optimiser steps in all epochs. seconds : float.
    last_state : weights of the last epoch, which the authors tested.
    """

    model: PaperCNN
    history: pd.DataFrame
    best_epoch: int
    updates: int
    seconds: float
    last_state: dict = field(default_factory=dict, repr=False)

    def last_model(self):
        """A copy of the classifier with the weights of the last epoch instead of the best."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.last_state)
        return model.eval()


def train(train, validation, *, seed, lr=1e-4, batch_size=16, max_epochs=50, patience=5, steps_per_epoch=None,
          device="auto", weights=None, augmented=False, best_by="loss", precision="float32"):
    """Train the paper's CNN, stopping early on the validation loss.

    As the authors did: Adam at 1e-4, batches of 16, at most 50 epochs, patience 5, no augmentation.
    Three of their quirks are not copied: pixels are scaled by 1/255 in training and test alike, the best
    weights are restored instead of the last, and every epoch passes once over all images. Their
    learning-rate decay (1e-6) never took effect, so there is none. epsilon is 1e-7, as in Keras.

    train, validation : Faces of the six expressions, of one size and number of channels.
    seed : int; decides the initial weights, the order of the images and the dropout, so that the same
        seed gives the same weights on the same machine (with the same number of threads).
    patience : epochs without a lower validation loss before training ends.
    steps_per_epoch : updates between two looks at the validation part, or None for one pass over the
        training images. Patience in passes gives small training sets fewer updates than large ones: with
        120 images and lr 1e-4, 3 of 5 seeds stopped before they had left the level of guessing. One number
        for all arms gives each the same patience and the same largest number of updates.
    weights : float [len(train)], factor on each image's loss, or None for 1 everywhere.
    best_by : which epoch's weights are kept, that of the lowest validation "loss", as in the paper, or of the highest
        validation "accuracy" (of equal ones the lowest loss). A network that has learned its few images by heart is
        sure of its mistakes too, so its loss rises long before its accuracy falls.
    augmented : vary every training image anew each time it is seen, see classical.vary.
    precision : of convolutions and products in training, "float32", or "bfloat16", about 1.7 times as fast on
        processors that have it and float32 on others; weights, their updates and all predictions stay float32.
    Returns Trained.
    Raises FerError for another precision, when a class has no image, another label than the six occurs,
    or sizes differ.
    Source: arXiv 2303.15223 and the authors' public repository Facial-Expression-Recognition.
    """
    engine.check_precision(precision)
    check_six_classes(train, "the training part")
    check_six_classes(validation, "the validation part")
    check_shapes(train, validation)
    device = engine.device(device)
    engine.keep_memory()
    start = time.perf_counter()
    with seeded(seed, device):
        model = PaperCNN(image_size=train.image_size, channels=train.channels)
        # A CPU convolves faster with the channels last.
        model = model.to(device, memory_format=torch.channels_last)
        history, best, updates = _fit(
            model, on_device(train, device), on_device(validation, device),
            loss_weights(weights, len(train), device), vary=classical.vary if augmented else None,
            lr=lr, max_epochs=max_epochs, patience=patience, best_by=best_by, precision=precision,
            epochs=epochs_of(len(train), batch_size, steps_per_epoch, torch.Generator().manual_seed(seed)))
    last = copy.deepcopy(model.state_dict())
    model.load_state_dict(best["state"])
    return Trained(model.eval(), history, best["epoch"], updates, time.perf_counter() - start, last)


def images_per_second(shape, *, updates=12, batch_size=16):
    """How many images a second the paper's CNN trains on, in this process.

    shape : (image size in pixels, channels, device name, precision). The first third of the updates is not counted.
    """
    image_size, channels, device, precision = shape
    device = engine.device(device)
    engine.keep_memory()
    with seeded(0, device):
        images = torch.randint(0, 256, (batch_size, channels, image_size, image_size), dtype=torch.uint8, device=device)
        model = PaperCNN(image_size=image_size, channels=channels).to(device, memory_format=torch.channels_last)
        data = images, torch.arange(batch_size, device=device) % len(EXPRESSIONS)
        optimizer, weights = torch.optim.Adam(model.parameters(), fused=True), torch.ones(batch_size, device=device)
        _train_epoch(model, optimizer, data, weights, [torch.arange(batch_size)] * (updates // 3), None, precision)
        start, counted = time.perf_counter(), updates - updates // 3
        _train_epoch(model, optimizer, data, weights, [torch.arange(batch_size)] * counted, None, precision)
        return counted * batch_size / (time.perf_counter() - start)


def epochs_of(n, batch_size, steps, generator):
    """Endless epochs, each a list of batches of indices: one pass over n images, or `steps` batches."""
    def passes():
        while True:
            yield list(torch.randperm(n, generator=generator).split(batch_size))

    if steps is None:
        yield from passes()
    batches = itertools.chain.from_iterable(passes())
    while True:
        yield list(itertools.islice(batches, steps))


def _fit(model, train, validation, weights, *, vary, epochs, lr, max_epochs, patience, best_by, precision):
    """Train until no epoch has been the best one for `patience` epochs.

    train, validation : (images uint8 [n, C, H, W], codes int64 [n]) on the model's device.
    epochs : iterator over lists of batches of indices. vary : function of a batch in [0, 1], or None.
    Returns (history DataFrame, {"epoch", "score", "state"} of the best epoch, number of updates).
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, eps=1e-7, fused=True)
    best, rows, updates = {"epoch": 0, "score": (float("inf"),)}, [], 0
    for epoch, batches in enumerate(itertools.islice(epochs, max_epochs), start=1):
        train_loss = _train_epoch(model, optimizer, train, weights, batches, vary, precision)
        updates += len(batches)
        loss, accuracy = _validate(model, *validation)
        if not np.isfinite(loss):
            raise FerError(f"The validation loss became {loss} in epoch {epoch}: use a lower lr than {lr}.")
        rows.append((epoch, train_loss, loss, accuracy))
        score = (loss,) if best_by == "loss" else (-accuracy, loss)
        if score < best["score"]:
            state = {name: value.clone() for name, value in model.state_dict().items()}
            best = {"epoch": epoch, "score": score, "state": state}
        if epoch - best["epoch"] >= patience:
            break
    columns = ["epoch", "train_loss", "validation_loss", "validation_accuracy"]
    return pd.DataFrame(rows, columns=columns), best, updates


def _train_epoch(model, optimizer, data, weights, batches, vary, precision):
    """One pass over the batches of indices; returns the mean loss per image (with dropout, weighted)."""
    images, codes = data
    model.train()
    total = torch.zeros((), device=images.device)
    for index in batches:
        index = index.to(images.device)
        batch = as_floats(images[index])
        with engine.in_precision(precision, images.device):  # anew for every batch: it keeps copies of the weights
            logits = model(vary(batch) if vary else batch)
        losses = F.cross_entropy(logits.float(), codes[index], reduction="none")
        loss = (losses * weights[index]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(index)
    return float(total) / sum(map(len, batches))


def _validate(model, images, codes):
    """Mean cross-entropy and accuracy on a validation part, without dropout."""
    logits = _logits(model, images)
    return float(F.cross_entropy(logits, codes)), float((logits.argmax(1) == codes).float().mean())


def predict(model, faces, *, scaled=True):
    """Probabilities of the six expressions.

    model : a network that takes float [n, C, H, W] in [0, 1], such as PaperCNN; it runs where it is.
    faces : Faces of the size the network was made for. scaled : False gives it pixels of 0..255 instead, as the
        authors' test does.
    Returns float32 [len(faces), n_classes], rows summing to 1.
    """
    device = next(model.parameters()).device
    images, _ = on_device(faces, device)
    return _logits(model, images, factor=1 if scaled else 255).softmax(1).cpu().numpy()


def evaluate(probabilities, faces):
    """How well probabilities agree with the labels of a test set.

    probabilities : float [len(faces), 6], for example from `predict`.
    faces : Faces of the six expressions, each with at least one image.
    Returns a dict: accuracy, macro_f1, recall_<expression> for each of the six (fractions), and
    confusion, int64 [6, 6] with the true expression in rows and the predicted one in columns.
    Raises FerError when a class has no image or another label than the six occurs.
    """
    check_six_classes(faces, "the test set")
    codes, predicted = faces.codes, np.asarray(probabilities).argmax(1)
    recalls = recall_score(codes, predicted, labels=CODES, average=None, zero_division=0)
    return {"accuracy": float(accuracy_score(codes, predicted)),
            "macro_f1": float(f1_score(codes, predicted, labels=CODES, average="macro", zero_division=0)),
            **{f"recall_{name}": float(recall) for name, recall in zip(EXPRESSIONS, recalls, strict=True)},
            "confusion": confusion_matrix(codes, predicted, labels=CODES)}


def check_six_classes(faces, what):
    """Raise FerError unless `faces` (called `what` in the message) shows all six expressions and no other."""
    counts = faces.counts()
    others = [name for name in counts.index[counts > 0] if name not in EXPRESSIONS]
    if others:
        raise FerError(f"The expression {others[0]} in {what} is not one of the six that are classified: "
                       "leave it out with faces.of(labels.EXPRESSIONS).")
    empty = [name for name in EXPRESSIONS if counts[name] == 0]
    if empty:
        raise FerError(f"There is no image of {', '.join(empty)} in {what}: add some, or make it larger.")


def check_shapes(train, validation):
    if train.images.shape[1:] != validation.images.shape[1:]:
        raise FerError(f"Training images are {list(train.images.shape[1:])} (channels, height, width) but "
                       f"validation images {list(validation.images.shape[1:])}: prepare both at one size.")
    if train.image_size < 32:
        raise FerError(f"The classifier needs images of at least 32 pixels, not {train.image_size}: "
                       "set image_size to 32 or more.")


@contextmanager
def seeded(seed, device):
    """Random numbers from `seed`, and only deterministic arithmetic, without a trace afterwards."""
    # Weights that stop learning leave denormal moments in Adam, which are many times slower.
    torch.set_flush_denormal(True)
    try:
        with (torch.random.fork_rng([device] if device.type == "cuda" else []),
              torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_flush_denormal(False)


def on_device(faces, device):
    """Images, still uint8 [n, C, H, W], and codes int64 [n] as tensors on `device`."""
    images = torch.from_numpy(np.array(faces.images))
    return images.to(device, memory_format=torch.channels_last), torch.tensor(faces.codes, device=device)


def loss_weights(weights, n, device):
    if weights is None:
        return torch.ones(n, device=device)
    weights = torch.as_tensor(np.asarray(weights), dtype=torch.float32)
    if weights.shape != (n,) or not bool((weights >= 0).all()):
        raise FerError(f"Loss weights must be {n} numbers of at least 0, one per training image.")
    return weights.to(device)


def as_floats(images):
    """uint8 pixels as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _logits(model, images, *, batch_size=64, factor=1):
    """Logits float32 [n, n_classes] of uint8 images, without dropout; leaves the model in evaluation mode."""
    model.eval()
    return torch.cat([model(as_floats(batch) * factor) for batch in images.split(batch_size)])
