"""How good generated faces are, measured by a network that the study itself does not use."""

import logging
import warnings

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors
from statsmodels.stats.proportion import proportion_confint
from torch import nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from fer_lib import engine
from fer_lib.classifier import seeded
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS
from fer_lib.networks.judge import Judge

logger = logging.getLogger(__name__)


# ---- the judge -----------------------------------------------------------------------------------------

def train_judge(faces, *, seed, epochs=20, lr=3e-3, batch_size=64, width=24, device="auto"):
    """A judge of expressions, trained on faces that share no subject with the study's test sets.

    faces : Faces, real or rendered, of the seven expressions or of six; those that occur are judged.
    seed : int; the same seed gives the same judge on the same machine.
    epochs : passes over the images, each mirrored at random and shifted by up to a twelfth of its side.
    lr : highest learning rate of a one-cycle schedule of AdamW. batch_size, width : ints.
    Returns Judge in evaluation mode, with n_classes 7 (6 if no neutral face occurs).
    Raises FerError when `faces` are generated, or one of the six expressions has no image.
    """
    n_classes = _check_judge_faces(faces)
    device = engine.device(device)
    engine.keep_memory()
    with seeded(seed, device):
        judge = Judge(channels=faces.channels, n_classes=n_classes, width=width)
        judge = judge.to(device, memory_format=torch.channels_last)
        fit_judge(judge, faces, faces.codes, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed)
    return judge.eval()


def _check_judge_faces(faces):
    if "generated" in faces.origin:
        raise FerError("The judge must not learn from generated faces: give it real or rendered ones.")
    counts = faces.counts()
    empty = [name for name in ALL_EXPRESSIONS[:6] if counts[name] == 0]
    if empty:
        raise FerError(f"The judge's training faces have no image of {', '.join(empty)}: add some.")
    return 7 if counts["neutral"] else 6


def fit_judge(judge, faces, codes, *, epochs, lr, batch_size, seed):
    """Train a network in place to tell the classes of faces apart.

    AdamW with a one-cycle schedule over augmented batches. An epoch is as many images as there are, drawn with
    replacement; the chance of a class is that of the square root of its size, so that rare classes are learned too.
    judge : Judge. faces : Faces [n]. codes : int [n], 0 .. n_classes - 1. Other arguments: see `train_judge`.
    """
    device = next(judge.parameters()).device
    images, codes = _tensor(faces, device), torch.as_tensor(codes, device=device)
    batch_size = min(batch_size, len(codes))
    n_batches = len(codes) // batch_size
    optimizer = torch.optim.AdamW(judge.parameters(), lr=lr, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * n_batches)
    order, sizes = torch.Generator().manual_seed(seed), codes.bincount().clamp(min=1).double()
    chances = sizes[codes].rsqrt().cpu()
    judge.train()
    for epoch in range(epochs):
        total = torch.zeros((), device=images.device)
        drawn = torch.multinomial(chances, n_batches * batch_size, replacement=True, generator=order)
        for index in drawn.split(batch_size):
            index = index.to(images.device)
            logits = judge(_jittered(_scaled(images[index])))
            loss = F.cross_entropy(logits, codes[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        logger.info("judge: epoch %d of %d, loss %.3f", epoch + 1, epochs, float(total) / n_batches)


def _jittered(images):
    """Each image mirrored with probability 1/2 and shifted by up to a twelfth of its side, edges repeated."""
    n, _, size, _ = images.shape
    reach = size // 12
    images = torch.where(torch.rand(n, 1, 1, 1, device=images.device) < 0.5, images.flip(3), images)
    padded = F.pad(images, [reach] * 4, mode="replicate")
    shifts = torch.randint(0, 2 * reach + 1, (2, n, 1), device=images.device)
    rows, columns = shifts + torch.arange(size, device=images.device)
    image = torch.arange(n, device=images.device)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


@torch.no_grad()
def judged_codes(judge, faces):
    """The expression that the judge sees: int64 [len(faces)], codes of labels.ALL_EXPRESSIONS."""
    return torch.cat([judge(batch).argmax(1) for batch in _batches(judge, faces)]).cpu().numpy()


@torch.no_grad()
def judge_features(judge, faces):
    """The judge's penultimate features, or Inception's (see inception.load): float32 [len(faces), judge.n_features]."""
    return torch.cat([judge.features(batch) for batch in _batches(judge, faces)]).cpu().numpy()


# ---- do generated faces show what they should? ---------------------------------------------------------

def label_fidelity(judge, generated, real_test, *, resamples=2_000, level=0.95, seed=0):
    """How often the judge sees in a generated face the expression that was imposed on it.

    A low rate may be the judge's fault: compare it with the judge's rate on real test faces, given beside.

    generated : Faces whose expression is the imposed one. real_test : Faces (real or rendered) that the
        judge has not seen. Only expressions that the judge knows are counted.
    Returns a DataFrame with one row per expression and one for "all": expression, n_generated, fidelity,
    low, high (percentile bootstrap over subjects, or images where subjects are unknown), n_real,
    judge_recall, judge_low, judge_high (the same on real test faces). Fractions; NaN where n is 0.
    """
    columns = (["n_generated", "fidelity", "low", "high"],
               ["n_real", "judge_recall", "judge_low", "judge_high"])
    options = {"resamples": resamples, "level": level, "seed": seed}
    tables = [_agreement(judge, faces, names, options)
              for faces, names in zip((generated, real_test), columns, strict=True)]
    return pd.concat(tables, axis=1).reset_index()


def _agreement(judge, faces, columns, options):
    """Share of faces in which the judge sees their label, per expression and over all, with intervals."""
    known = ALL_EXPRESSIONS[:judge.head.out_features]
    faces = faces.of(known)
    hit = judged_codes(judge, faces) == faces.codes if len(faces) else np.zeros(0, bool)
    masks = {name: faces.table["expression"].to_numpy() == name for name in known}
    masks["all"] = np.ones(len(faces), bool)
    rows = [(mask.sum(), *_rate(hit[mask], faces.subjects[mask], **options)) for mask in masks.values()]
    return pd.DataFrame(rows, columns=columns, index=pd.Index(list(masks), name="expression"))


def _rate(hit, subjects, *, resamples, level, seed):
    """Mean of hit [n] with a percentile bootstrap interval over subjects: (rate, low, high).

    Where all subjects have the same rate, resampling would say that others have it, too: then the interval is that of
    Clopper & Pearson (1934) for as many images as there are subjects. A single subject tells nothing of others: 0 to 1.
    """
    if not len(hit):
        return float("nan"), float("nan"), float("nan")
    groups = pd.Series(hit).groupby(np.where(subjects == "", np.arange(len(hit)).astype(str), subjects))
    hits, sizes = groups.sum().to_numpy(float), groups.size().to_numpy(float)
    if len(hits) < 2:
        return float(hit.mean()), 0.0, 1.0
    if np.ptp(hits / sizes) == 0:
        low, high = proportion_confint(hit.mean() * len(hits), len(hits), alpha=1 - level, method="beta")
        return float(hit.mean()), float(low), float(high)
    interval = stats.bootstrap((hits, sizes), lambda h, n, axis: h.sum(axis) / n.sum(axis), paired=True,
                               vectorized=True, n_resamples=resamples, confidence_level=level,
                               method="percentile", rng=np.random.default_rng(seed)).confidence_interval
    return float(hit.mean()), float(interval.low), float(interval.high)


# ---- do generated faces look like real ones? -----------------------------------------------------------

def fid(judge, real, generated):
    """Fréchet distance between real and generated faces in the judge's features; 0 means the same.

    The features are the judge's, not Inception's (see inception.load for those), so the value can be compared within
    this study only.

    real, generated : Faces of one size, at least 2 each; more than judge.n_features for a stable value.
    Returns float. Source: Heusel et al. (2017), eq. 6.
    """
    return frechet_distance(*(judge_features(judge, faces) for faces in (real, generated)))


def kid(judge, real, generated, *, subsets=50, subset_size=200, seed=0):
    """Kernel distance between real and generated faces in the judge's features; unbiased for few images.

    subset_size : images per subset, cut to the smaller set. seed : chooses the subsets.
    Returns (mean, standard deviation over subsets), floats. Source: Binkowski et al. (2018), eq. 4.
    """
    features = (judge_features(judge, faces) for faces in (real, generated))
    return kernel_distance(*features, subsets=subsets, subset_size=subset_size, seed=seed)


def frechet_distance(real, generated):
    """Fréchet distance of features, float [n, d] and [m, d], see `fid`. Raises FerError for fewer than 2 of a kind."""
    _check_enough(real, generated)
    return float(_seen(FrechetInceptionDistance(feature=_Given(real.shape[1])), real, generated).compute())


def kernel_distance(real, generated, *, subsets=50, subset_size=200, seed=0):
    """Kernel distance of features, float [n, d] and [m, d]: (mean, standard deviation over subsets), see `kid`.
    Raises FerError for fewer than 2 of a kind."""
    _check_enough(real, generated)
    size = min(subset_size, len(real), len(generated))
    with warnings.catch_warnings():  # that it keeps all features is known: these sets are small
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save", UserWarning)
        metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=subsets, subset_size=size)
    metric = _seen(metric, real, generated)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        mean, spread = metric.compute()
    return float(mean), float(spread)


class _Given(nn.Module):
    """What torchmetrics takes for Inception, and does not download: features go in, and come out as they are."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, features):
        return features


def _check_enough(real, generated):
    for features, what in ((real, "real"), (generated, "generated")):
        if len(features) < 2:
            raise FerError(f"A distance needs at least 2 {what} faces, not {len(features)}: give more.")


def _seen(metric, real, generated):
    """The torchmetrics `metric` after it has seen the features of both sets of faces."""
    for features, is_real in ((real, True), (generated, False)):
        for batch in torch.from_numpy(features).split(BATCH):
            metric.update(batch, real=is_real)
    return metric


def coverage(real, generated, *, k=5):
    """How well two equally large samples cover each other, by balls around the k nearest neighbours.

    real, generated : float [n, d], features of equally many faces (Naeem et al. compare equal counts).
    k : int, neighbours; 5 as in the paper.
    Returns a dict of fractions: precision and recall (Kynkaanniemi et al. 2019, eq. 2), density (may exceed
    1) and coverage (Naeem et al. 2020, eqs. 4 and 6: real faces with a generated one nearer than their k-th
    real neighbour).
    Raises FerError for samples of different sizes, or of k faces or fewer.
    """
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if len(real) != len(generated) or len(real) <= k:
        raise FerError(f"Coverage compares equally many faces, more than {k} of each, not {len(real)} and "
                       f"{len(generated)}: draw as many of both.")
    radii = [NearestNeighbors(n_neighbors=k).fit(part).kneighbors()[0][:, -1] for part in (real, generated)]
    distances = pairwise_distances(real, generated)
    in_real, in_generated = distances < radii[0][:, None], distances < radii[1][None, :]
    return {"precision": float(in_real.any(0).mean()), "recall": float(in_generated.any(1).mean()),
            "density": float(in_real.sum(0).mean() / k),
            "coverage": float((distances.min(1) < radii[0]).mean())}


# ---- batches -------------------------------------------------------------------------------------------

BATCH = 128


def _batches(judge, faces):
    """Yield float32 batches [<= BATCH, C, H, W] in [0, 1] on the judge's device, in order."""
    judge.eval()
    for batch in _tensor(faces, next(judge.parameters()).device).split(BATCH):
        yield _scaled(batch)


def _tensor(faces, device):
    return torch.from_numpy(np.array(faces.images)).to(device)


def _scaled(images):
    return images.to(torch.float32).div_(255)
