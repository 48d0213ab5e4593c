"""Many classifiers trained together on one device.

A single small network leaves most of a GPU idle; the operations of many, each with its own weights and images,
run as one.
"""

import itertools
import time

import numpy as np
import pandas as pd
import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from fer_lib import classical, classifier, engine
from fer_lib.errors import FerError
from fer_lib.labels import EXPRESSIONS
from fer_lib.networks.paper_cnn import PaperCNN, set_together


def train(parts, validation, *, seeds, lr=1e-4, batch_size=16, max_epochs=50, patience=5, steps_per_epoch=None,
          device="auto", weights=None, augmented=False, best_by="loss", precision="float32"):
    """Train one of the paper's CNNs on each training set, all at once.

    Each starts from the weights and sees the images in the order that classifier.train gives it with its seed. Only the
    draws of dropout and augmentation are others, and depend on which classifiers are trained together; without them the
    weights are those of classifier.train, up to rounding. One that stops early is carried along, but not looked at any
    more, until all have stopped.

    parts : list of Faces, the training sets, of one image size; their lengths may differ where steps_per_epoch is
    given. validation : Faces. seeds : one int per training set.
    weights : one array or None per training set, or None for no weights at all.
    Other arguments as in classifier.train. Returns a list of classifier.Trained; each one's `seconds` is its share.
    Raises FerError as classifier.train does.
    Source: torch.func, "model ensembling": stacked parameters, the forward pass mapped over them.
    """
    if steps_per_epoch is None and len(set(map(len, parts))) > 1:
        raise ValueError("passes over training sets of different lengths: give steps_per_epoch, or sets of one length")
    engine.check_precision(precision)
    device, start = engine.device(device), time.perf_counter()
    for part in (*parts, validation):
        classifier.check_six_classes(part, "the validation part" if part is validation else "a training part")
        classifier.check_shapes(part, validation)
    engine.keep_memory()
    with classifier.seeded(seeds[0], device):
        models = [_initial(part, seed, device) for part, seed in zip(parts, seeds, strict=True)]
        torch.manual_seed(seeds[0])
        histories, best, last, updates = _fit(
            models, _joined(parts, weights or [None] * len(parts), device), classifier.on_device(validation, device),
            _epochs(parts, seeds, batch_size, steps_per_epoch), vary=classical.vary if augmented else None,
            lr=lr, max_epochs=max_epochs, patience=patience, best_by=best_by, precision=precision)
    seconds = (time.perf_counter() - start) / len(parts)
    trained = []
    for row, model in enumerate(models):
        model.load_state_dict({name: stacked[row] for name, stacked in best["states"].items()})
        final = {name: stacked[row].clone() for name, stacked in last.items()}
        set_together(model, False)
        trained.append(classifier.Trained(model.requires_grad_(True).eval(), histories[row], int(best["epochs"][row]),
                                          updates * len(histories[row]), seconds, final))
    return trained


def images_per_second(shape, *, n, updates=9, batch_size=16):
    """How many images a second n of the paper's CNNs train on together, in this process;
    see classifier.images_per_second."""
    image_size, channels, device, precision = shape
    device = engine.device(device)
    engine.keep_memory()
    with classifier.seeded(0, device):
        models = [PaperCNN(image_size=image_size, channels=channels).to(device) for _ in range(n)]
        states = stack_module_state(models)[0]
        optimizer = torch.optim.Adam(list(states.values()), fused=True)
        images = torch.randint(0, 256, (batch_size, channels, image_size, image_size), dtype=torch.uint8, device=device)
        data = (images, torch.arange(batch_size, device=device) % len(EXPRESSIONS),
                torch.ones(batch_size, device=device), torch.zeros(n, dtype=torch.long, device=device))
        batch = torch.arange(batch_size).expand(n, -1), torch.ones(n, batch_size)
        _train_epoch(_mapped(models[0]), states, optimizer, data, [batch] * (updates // 3), None, precision)
        start, counted = time.perf_counter(), updates - updates // 3
        _train_epoch(_mapped(models[0]), states, optimizer, data, [batch] * counted, None, precision)
        return counted * n * batch_size / (time.perf_counter() - start)


def _initial(part, seed, device):
    """The network that classifier.train starts from."""
    torch.manual_seed(seed)
    return PaperCNN(image_size=part.image_size, channels=part.channels).to(device)


def _joined(parts, weights, device):
    """All training sets behind one another: images uint8 [n, C, H, W], codes [n], weights [n],
    and each one's first row."""
    images, codes = zip(*(classifier.on_device(part, device) for part in parts), strict=True)
    factors = [classifier.loss_weights(each, len(part), device) for part, each in zip(parts, weights, strict=True)]
    first = np.cumsum([0, *map(len, parts[:-1])])
    return torch.cat(images), torch.cat(codes), torch.cat(factors), torch.as_tensor(first, device=device)


def _epochs(parts, seeds, batch_size, steps):
    """Endless epochs, each a list of (rows int64 [K, batch_size], counts [K, batch_size]) of every classifier.

    At the end of a pass a batch is shorter, each classifier's at its own time: rows of 0 fill it, and count 0.
    """
    orders = [classifier.epochs_of(len(part), batch_size, steps, torch.Generator().manual_seed(seed))
              for part, seed in zip(parts, seeds, strict=True)]
    for epoch in zip(*orders, strict=True):
        yield [(torch.stack([F.pad(index, (0, batch_size - len(index))) for index in batch]),
                torch.stack([(torch.arange(batch_size) < len(index)).float() for index in batch]))
               for batch in zip(*epoch, strict=True)]


def _fit(models, data, validation, epochs, *, vary, lr, max_epochs, patience, best_by, precision):
    """Train all until none goes on. Returns (list of history DataFrames, best {"epochs", "states"}, last states,
    updates of an epoch).

    States are dicts of stacked tensors [K, ...]; the arguments are as in classifier._fit.
    """
    forward = _mapped(models[0])
    states = stack_module_state(models)[0]
    optimizer = torch.optim.Adam(list(states.values()), lr=lr, eps=1e-7, fused=True)
    scores, going = torch.full((2, len(models)), float("inf")), torch.ones(len(models), dtype=bool)
    best, last = ({name: state.detach().clone() for name, state in states.items()} for _ in range(2))
    best_epochs, rows = torch.zeros(len(models), dtype=int), [[] for _ in models]
    for epoch, batches in enumerate(itertools.islice(epochs, max_epochs), start=1):
        models[0].train()
        train_loss = _train_epoch(forward, states, optimizer, data, batches, vary, precision)
        models[0].eval()
        loss, accuracy = _validate(forward, states, *validation)
        if not loss[going].isfinite().all():
            raise FerError(f"A validation loss became {float(loss[going].max())} in epoch {epoch}: "
                           f"use a lower lr than {lr}.")
        for k in going.nonzero().flatten().tolist():
            rows[k].append((epoch, float(train_loss[k]), float(loss[k]), float(accuracy[k])))
        first, second = (loss, torch.zeros_like(loss)) if best_by == "loss" else (-accuracy, loss)
        better = going & ((first < scores[0]) | ((first == scores[0]) & (second < scores[1])))
        scores = torch.where(better, torch.stack([first, second]), scores)
        best_epochs[better] = epoch
        for kept, chosen in ((best, better), (last, going)):
            for name, state in states.items():
                kept[name][chosen] = state.detach()[chosen]
        going &= epoch - best_epochs < patience
        if not going.any():
            break
    columns = ["epoch", "train_loss", "validation_loss", "validation_accuracy"]
    tables = [pd.DataFrame(of_one, columns=columns) for of_one in rows]
    return tables, {"epochs": best_epochs, "states": best}, last, len(batches)


def _mapped(model):
    """Forward pass of many networks: (states, images [K, n, C, H, W]) -> logits [K, n, classes]."""
    set_together(model)
    return vmap(lambda state, images: functional_call(model, state, (images,)), randomness="different")


def _train_epoch(forward, states, optimizer, data, batches, vary, precision):
    """Update all classifiers with each batch; returns each one's mean loss per image, [K] on the CPU."""
    images, codes, weights, first = data
    total = torch.zeros(len(first), device=images.device)
    for rows, counts in batches:
        rows, counts = rows.to(images.device) + first[:, None], counts.to(images.device)
        batch = classifier.as_floats(images[rows.flatten()])
        batch = (vary(batch) if vary else batch).unflatten(0, rows.shape)
        with engine.in_precision(precision, images.device):
            logits = forward(states, batch)
        losses = F.cross_entropy(logits.float().flatten(0, 1), codes[rows.flatten()], reduction="none")
        sums = (losses.view_as(rows) * weights[rows] * counts).sum(1)
        optimizer.zero_grad()
        (sums / counts.sum(1)).sum().backward()
        optimizer.step()
        total += sums.detach()
    return total.cpu() / sum(counts.sum(1) for _, counts in batches)


@torch.no_grad()
def _validate(forward, states, images, codes, *, batch_size=64):
    """Mean cross-entropy and accuracy of every classifier on one validation part, each [K] on the CPU."""
    n = len(next(iter(states.values())))
    logits = torch.cat([forward(states, classifier.as_floats(batch).expand(n, *batch.shape))
                        for batch in images.split(batch_size)], dim=1)
    losses = F.cross_entropy(logits.flatten(0, 1), codes.repeat(n), reduction="none").view(n, -1).mean(1)
    return losses.cpu(), (logits.argmax(2) == codes).float().mean(1).cpu()
