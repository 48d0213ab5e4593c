"""Curves of accuracy: where more generated faces stop helping, what one is worth, and a law of the gain."""

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_lib.errors import FerError
from fer_lib.intervals import POINTS, as_pairs, cluster_codes, crossed_weights, interval
from fer_lib.labels import EXPRESSIONS

CLEAR = 2.0  # a difference of AIC from which one shape counts as better
ENDLESS = ("flat", "line", "slowing")  # shapes without a turn
SLOWING = [lambda r, k=k: np.log1p(k * r) for k in np.geomspace(0.1, 300, 40)] + [
    lambda r, c=c: r**c for c in np.linspace(0.1, 0.9, 17)]  # that rise ever more slowly, but without end
EXPONENTS = np.geomspace(0.02, 3, 120)  # of learning curves
EDGE = 1e-9
LEAST_ERROR = 1e-4  # of an accuracy: what is smaller is rounding


# ---- the point of no further gain ----------------------------------------------------------------------

def upper_bound(ratios, accuracies, *, resampled=None, images=None, resamples=2_000, level=0.95, seed=0):
    """The ratio at which the accuracy stops rising, by comparing five shapes.

    The shapes of the mean curve: flat, line, slowing (the best of lines in log(1 + k * ratio) and in powers of the
    ratio, which rise ever more slowly but without end), plateau (a line up to a knee and flat beyond) or rise_fall (a
    line up to a peak and another down beyond), by least squares that reckon with how the errors of ratios go together.
    The answer is the knee or the peak of the better of the last two. The maximum is never taken as the answer: of equal
    ratios the luckiest would win.

    ratios : float [R], 0 included (the baseline), at least 3 of them, increasing.
    accuracies : float [seeds, R], of `mixed` at these ratios on one test set, fractions.
    resampled : float [n, R], mean curves in resamples of seeds and test subjects together, or None to resample
        the seeds alone; the interval then holds for these very test images.
    images : float [n, R], mean curves in resamples of the test subjects alone, or None: their part of the errors, which
        more seeds do not make smaller.
    Returns a dict: ratio; low and high, its interval (the whole grid for one seed); identified, True only where
    the interval lies inside the grid, that of the rise up to it excludes 0, and its shape beats flat, line and slowing
    by more than 2 units of AIC; at_most, `high` where all this holds but the interval begins at the smallest ratio, so
    that an earlier end cannot be told, or else None; preferred, the shape with the lowest AIC (None for one seed);
    turn, the shape that `ratio` belongs to; falls, True where rise_fall beats every other shape by more than 2;
    rise_points and change_beyond_points {estimate, low, high}, of the fit, from ratio 0 to the turn and from there to
    the largest ratio (0 for a plateau, which is flat there by its definition); delta_aicc, shape -> AIC above the
    lowest.
    Raises FerError when shapes do not fit, a value is no number or ratios are fewer than 3.
    Source: generalised least squares and Akaike's criterion for errors of known size; a difference above 2, Burnham &
    Anderson (2002), section 2.6.
    """
    ratios, accuracies = np.asarray(ratios, float), np.atleast_2d(accuracies)
    if len(ratios) < 3 or accuracies.shape[1] != len(ratios) or (np.diff(ratios) <= 0).any():
        raise FerError(f"A point of no further gain needs at least 3 increasing ratios and an accuracy for "
                       f"each, not {len(ratios)} ratios and {list(accuracies.shape)} accuracies: add ratios.")
    if not np.isfinite(accuracies).all():
        raise FerError("A point of no further gain needs an accuracy for each ratio and seed, and one is no number: "
                       "leave that ratio out.")
    if resampled is None:
        draws = np.random.default_rng(seed).integers(len(accuracies), size=(resamples, len(accuracies)))
        resampled = accuracies[draws].mean(1)
    root = _root_of_precision(accuracies, images)
    scores = _shape_scores(ratios, accuracies.mean(0), root)
    turn = min(("plateau", "rise_fall"), key=scores.get)
    fit = _turning_fit(ratios, accuracies.mean(0)[None], root, falling=turn == "rise_fall")
    fits = _turning_fit(ratios, resampled, root, falling=turn == "rise_fall")
    found = {name: interval(fit[name][0], fits[name], level) for name in ("knot", "rise", "beyond")}
    knot = found["knot"] if len(accuracies) > 1 else {**found["knot"], "low": ratios[1], "high": ratios[-1]}
    clear = all(scores[turn] + CLEAR < scores[other] for other in ENDLESS)
    ends = bool(clear and knot["high"] < ratios[-1] and found["rise"]["low"] > 0)
    falls = len(accuracies) > 1 and all(
        scores["rise_fall"] + CLEAR < scores[other] for other in (*ENDLESS, "plateau"))
    inside = bool(ratios[1] < knot["low"])
    return {"ratio": knot["estimate"], "low": float(knot["low"]), "high": float(knot["high"]),
            "identified": ends and inside, "at_most": float(knot["high"]) if ends and not inside else None,
            "preferred": min(scores, key=scores.get) if len(accuracies) > 1 else None, "turn": turn,
            "falls": falls, "rise_points": _in_points(found["rise"]),
            "change_beyond_points": _in_points(found["beyond"]), "delta_aicc": _above_lowest(scores)}


def _root_of_precision(accuracies, images):
    """Matrix [R, R] that turns mean curves into ones whose errors are independent and of size 1, whatever their level.

    The errors of classifiers, as what seeds and ratios leave over, and those of the test images.
    """
    n_seeds, n = accuracies.shape
    left = accuracies - accuracies.mean(0) - accuracies.mean(1, keepdims=True) + accuracies.mean()
    own = (left**2).sum() / ((n_seeds - 1) * (n - 1)) / n_seeds if n_seeds > 1 else 0.0
    errors = (own + LEAST_ERROR**2) * np.eye(n) + (0 if images is None else np.cov(images, rowvar=False))
    precision = np.linalg.inv(errors)
    precision -= np.outer(precision.sum(0), precision.sum(0)) / precision.sum()  # no matter what is added to all
    values, vectors = np.linalg.eigh(precision)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def _turning_fit(ratios, curves, root, *, falling, n_knots=200):
    """Least squares of y = c + up * min(ratio, knot) - down * max(ratio - knot, 0), up and down at least 0.

    curves : float [n, R]. root : of `_root_of_precision`. falling : whether down may differ from 0.
    Returns a dict of float [n]: knot, the best of a grid (the last one, a grid edge, without any rise); explained,
    the sum of squares; rise and beyond, the changes from the first ratio to the knot and from it to the last.
    """
    knots = np.linspace(ratios[1], ratios[-1], n_knots)
    before, after = np.minimum(ratios, knots[:, None]), -np.maximum(ratios - knots[:, None], 0)
    before, after, curves = (lines @ root for lines in (before, after, curves))
    up, down = _two_slopes(curves, before, after) if falling else (_one_slope(curves, before), 0.0)
    # With c free, the explained sum of squares of a least-squares fit is its slopes times their moments.
    explained = up * (curves @ before.T) + down * (curves @ after.T)
    explained = np.where(up > 0, explained, 0)
    best = np.where(explained.max(1) > 0, explained.argmax(1), n_knots - 1)
    rows = np.arange(len(curves))
    up, down = np.broadcast_to(up, explained.shape)[rows, best], np.broadcast_to(down, explained.shape)[rows, best]
    return {"knot": knots[best], "explained": explained[rows, best], "rise": up * (knots[best] - ratios[0]),
            "beyond": 0 - down * (ratios[-1] - knots[best])}


def _one_slope(curves, ramp):
    """Slope of each curve along each ramp, at least 0: [n, K]."""
    return np.maximum(curves @ ramp.T, 0) / (ramp**2).sum(1)


def _two_slopes(curves, before, after):
    """Both slopes by non-negative least squares: where the free solution has a negative one, the other alone."""
    aa, bb, ab = (before**2).sum(1), (after**2).sum(1), (before * after).sum(1)
    a, b, determinant = curves @ before.T, curves @ after.T, aa * bb - ab**2
    possible = determinant > EDGE * aa * bb
    scale = np.where(possible, determinant, 1)
    up, down = np.where(possible, a * bb - b * ab, -1) / scale, np.where(possible, b * aa - a * ab, -1) / scale
    only_up = (down < 0) | ~possible
    up, down = np.where(only_up, _one_slope(curves, before), up), np.where(only_up, 0, down)
    return np.where(up < 0, 0, up), np.where(up < 0, 0, down)


def _shape_scores(ratios, curve, root):
    """AIC of the five shapes: what a shape leaves over, in errors of size 1, + 2 for each of its parameters."""
    explained = {"flat": (0.0, 0)}
    for shape, forms, parameters in (("line", [lambda r: r], 1), ("slowing", SLOWING, 2)):
        ramps = np.stack([form(ratios) for form in forms]) @ root
        slopes = _one_slope((curve @ root)[None], ramps) if shape == "slowing" else (
            (curve @ root)[None] @ ramps.T / (ramps**2).sum(1))
        explained[shape] = float((slopes**2 * (ramps**2).sum(1)).max()), parameters
    for shape, parameters in (("plateau", 2), ("rise_fall", 3)):
        fit = _turning_fit(ratios, curve[None], root, falling=shape == "rise_fall")
        explained[shape] = float(fit["explained"][0]), parameters
    total = float(((curve @ root) ** 2).sum())
    return {shape: total - squares + 2 * parameters if parameters + 1 < len(ratios) else float("inf")
            for shape, (squares, parameters) in explained.items()}


def _in_points(estimate):
    return {name: POINTS * value for name, value in estimate.items()}


def _above_lowest(scores):
    lowest = min(scores.values())
    return {shape: float(score - lowest) if np.isfinite(score) else None for shape, score in scores.items()}


# ---- what a generated face is worth --------------------------------------------------------------------

def learning_curve(sizes, accuracies):
    """The real-only learning curve, accuracy(n) = a - b n^-c with a <= 1 and b >= 0.

    For every exponent of a grid a and b are least squares, and the best exponent is taken.

    sizes : float [N], numbers of real training images, at least 3, increasing.
    accuracies : float [N] or [curves, N], fractions.
    Returns a dict of float [curves]: a, b, c.
    Raises FerError when there are fewer than 3 sizes or lengths differ.
    Source: the power law of Cortes et al. (1993); variable projection, Golub & Pereyra (1973).
    """
    sizes, curves = np.asarray(sizes, float), np.atleast_2d(accuracies)
    if len(sizes) < 3 or curves.shape[1] != len(sizes) or (np.diff(sizes) <= 0).any() or sizes[0] <= 0:
        raise FerError(f"A learning curve needs at least 3 increasing numbers of real images, not {sizes.tolist()}: "
                       "add sizes to n_real.")
    falls = -sizes ** -EXPONENTS[:, None]
    centred = falls - falls.mean(1, keepdims=True)
    b = np.maximum(curves @ centred.T, 0) / (centred**2).sum(1)
    a = curves.mean(1, keepdims=True) - b * falls.mean(1)
    above = a > 1
    b = np.where(above, (1 - curves) @ -falls.T / (falls**2).sum(1), b)
    a = np.where(above, 1.0, a)
    errors = ((a[..., None] + b[..., None] * falls - curves[:, None, :]) ** 2).sum(-1)
    rows, best = np.arange(len(curves)), errors.argmin(1)
    return {"a": a[rows, best], "b": b[rows, best], "c": EXPONENTS[best]}


def equivalent_size(curve, accuracy, sizes):
    """How many real images alone would give an accuracy, by a learning curve; clipped to the measured sizes.

    curve : as `learning_curve` returns it. accuracy : float [curves], fractions. sizes : float [N], as measured.
    Returns float [curves], from min(sizes) to max(sizes); a curve that never reaches the accuracy gives max(sizes).
    """
    gap = curve["a"] - accuracy
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        n = np.where(gap > 0, (curve["b"] / np.where(gap > 0, gap, 1)) ** (1 / curve["c"]), np.inf)
    return np.clip(n, min(sizes), max(sizes))


def worth(by_size, n_real, ratio, *, arm="mixed", baseline="real", codes=None, clusters=None, resamples=2_000,
          level=0.95, seed=0):
    """What one generated face is worth in real ones: (equivalent number of real images - n_real) / n_generated.

    by_size : dict n_real -> dict (arm, ratio) -> bool [seeds, images], of one test set; the arm `baseline` at 3 or
        more sizes, `arm` at `n_real` and `ratio`. Of arms with equally many rows row s comes from the same seed, and
        resamples draw them together; arms with other numbers of rows are drawn on their own.
    codes : int [images], 0..5; where given, the same for the recall of every expression.
    clusters, resamples, level, seed : as in intervals.paired_gain.
    Returns a dict: estimate, low, high (real images per generated one; None where beyond the measured sizes),
    identified (none of the three is None), bound ("above" or "below" the measured range, or None), range (what
    could have been shown), equivalent {estimate, low, high} (real images, clipped to the measured sizes), curve
    {a, b, c, sizes, seeds (of each size), accuracies, low, high}, accuracy {estimate, low, high} of the arm, n_real,
    ratio, seeds (of the arm); with codes also expressions, expression -> the same.
    Raises FerError when an arm or a third size is missing, or the ratio is 0.
    """
    options = {"clusters": clusters, "resamples": resamples, "level": level, "seed": seed}
    sizes, curve, mixed = _worth_arms(by_size, n_real, ratio, arm, baseline)
    answer = {"n_real": int(n_real), "ratio": float(ratio), "arm": arm, "baseline": baseline, "seeds": len(mixed)}
    answer |= _worth(sizes, curve, mixed, n_real, ratio, counted=None, **options)
    if codes is not None:
        codes = np.asarray(codes)
        answer["expressions"] = {
            name: _worth(sizes, curve, mixed, n_real, ratio, counted=codes == code, **options)
            for code, name in enumerate(EXPRESSIONS) if (codes == code).any()}
    return answer


def _worth_arms(by_size, n_real, ratio, arm, baseline):
    """(sizes, the baseline at each of them, the arm)."""
    if not ratio > 0:
        raise FerError(f"At ratio {ratio:g} no face is generated, so that none has a worth: choose a larger one.")
    curve = {}
    for size in sorted(by_size):
        ratios = [r for name, r in by_size[size] if name == baseline]
        if ratios:
            curve[size] = by_size[size][baseline, min(ratios, key=lambda r: abs(r - ratio))]
    mixed = by_size.get(n_real, {}).get((arm, float(ratio)))
    if mixed is None or len(curve) < 3:
        raise FerError(f"The worth of a generated face needs the arm {arm} at n_real {n_real} and ratio {ratio:g}, and "
                       f"the arm {baseline} at 3 or more n_real, not {sorted(curve)}: add them to the study.")
    arms = [np.atleast_2d(rows) for rows in [mixed, *curve.values()]]
    as_pairs(*(rows[:1] for rows in arms))
    return list(curve), arms[1:], arms[0]


def _worth(sizes, curve, mixed, n_real, ratio, *, counted, clusters, resamples, level, seed):
    groups = cluster_codes(clusters, mixed.shape[1])
    kept = slice(None) if counted is None else counted
    means = np.array([rows[:, kept].mean() for rows in [*curve, mixed]])
    resampled = _means_of_own_seeds([*curve, mixed], groups, resamples=resamples, seed=seed, counted=counted)
    resampled = resampled[np.isfinite(resampled).all(1)]
    fit = learning_curve(sizes, means[:-1])
    n, = equivalent_size(fit, means[-1:], sizes)
    all_n = equivalent_size(learning_curve(sizes, resampled[:, :-1]), resampled[:, -1], sizes)
    equivalent = interval(n, all_n, level)
    inside = {key: min(sizes) < value < max(sizes) for key, value in equivalent.items()}
    values = {key: (value - n_real) / (ratio * n_real) for key, value in equivalent.items()}
    limits = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {**{key: values[key] if inside[key] else None for key in values}, "identified": all(inside.values()),
            "bound": None if inside["estimate"] else "above" if n >= max(sizes) else "below",
            "range": [(size - n_real) / (ratio * n_real) for size in (min(sizes), max(sizes))],
            "equivalent": equivalent, "accuracy": interval(means[-1], resampled[:, -1], level),
            "curve": {**{name: float(value[0]) for name, value in fit.items()}, "sizes": [int(s) for s in sizes],
                      "seeds": [len(rows) for rows in curve],
                      "accuracies": means[:-1].tolist(), "low": limits[0, :-1].tolist(),
                      "high": limits[1, :-1].tolist()}}


def _means_of_own_seeds(arms, groups, *, resamples, seed, counted):
    """As intervals.resampled_means, of arms whose numbers of seeds differ: float64 [resamples, arms].

    All are tested on the same draw of images; those of equally many seeds share the draw of these, too.
    """
    most = max(map(len, arms))
    images = crossed_weights(most, groups.max() + 1, resamples, seed)[1].astype(float)
    counted = np.ones(len(groups)) if counted is None else np.asarray(counted, float)
    sizes, means = images @ np.bincount(groups, counted), []
    for rows in arms:
        sums = np.stack([np.bincount(groups, row * counted) for row in np.asarray(rows, float)])
        seeds = crossed_weights(len(rows), groups.max() + 1, resamples, seed)[0]
        total = ((images @ sums.T) * seeds).sum(1)
        means.append(np.divide(total, sizes * len(rows), out=np.full(resamples, np.nan), where=sizes > 0))
    return np.stack(means, 1)


# ---- a law of the gain ---------------------------------------------------------------------------------

LAW = {"log n_real": lambda n, r, w: np.log(n), "log ratio": lambda n, r, w: np.log(r),
       "log weight": lambda n, r, w: np.log(w), "(log ratio)^2": lambda n, r, w: np.log(r) ** 2,
       "log n_real * log ratio": lambda n, r, w: np.log(n) * np.log(r)}
"""Terms of the law: gain in points = intercept + the sum of coefficient * term(n_real, ratio, weight)."""

ALPHAS = np.geomspace(1e-2, 1e4, 25)  # ridge penalties; the largest leaves little but the mean
GROUP = ["n_real", "ratio", "weight"]
MIN_CELLS = 6
SEEDS = ["split_seed", "generator_seed", "train_seed"]


def gains_table(table, *, test_set, arm="mixed", baseline="real_long"):
    """The gain of every classifier of an arm over the baseline of the same seeds, ready for `law`.

    table : DataFrame as study.run returns it; it may hold several n_real and weights. The baseline at the same
        n_real is that of the closest ratio, whatever its weight. Rows without a baseline are left out.
    Returns a DataFrame: n_real, ratio, weight, split_seed, generator_seed, train_seed, gain (percentage points).
    Raises FerError when nothing can be paired, or classifiers of the arm or the baseline differ in intensity,
    truncation or stopping.
    """
    table = table[table["test_set"] == test_set]
    keys = ["n_real", *SEEDS]
    for name in ("intensity", "truncation", "stopping"):
        if any(table.loc[table["arm"] == each, name].nunique() > 1 for each in (arm, baseline) if name in table):
            raise FerError(f"The table holds classifiers of several {name}, whose gains are not the same: pass the "
                           "rows of one, as answer.rows_of chooses them.")
    base = table.loc[table["arm"] == baseline, [*keys, "ratio", "accuracy"]]
    pairs = table.loc[table["arm"] == arm, [*GROUP, *SEEDS, "accuracy"]].merge(base, on=keys, suffixes=("", "_base"))
    if pairs.empty:
        raise FerError(f"No classifier of the arm {arm} shares n_real and seeds with one of {baseline} on the test set "
                       f"{test_set}: add both arms to the study.")
    pairs["distance"] = (pairs["ratio"] - pairs["ratio_base"]).abs()
    pairs = pairs.sort_values("distance", kind="stable").drop_duplicates([*GROUP, *SEEDS])
    pairs["gain"] = POINTS * (pairs["accuracy"] - pairs["accuracy_base"])
    return pairs[[*GROUP, *SEEDS, "gain"]].sort_values([*GROUP, *SEEDS]).reset_index(drop=True)


def law(gains, *, resamples=10_000, level=0.95, seed=0):
    """A law of the gain in (n_real, ratio, weight), and its error on cells that it never saw.

    A ridge regression on the terms of `LAW`, fitted to the mean gain of each cell (n_real, ratio, weight); the
    penalty is chosen by leave-one-out within the cells that it is fitted to. Each cell in turn is predicted from
    all others, and so is it by their mean, the least that a law must beat. Cells of one n_real are gains over the
    same classifiers without generated faces, whose luck would give a cell away; so the seeds are halved, every other
    one, and a cell's gain in one half is predicted from the others' in the other half. Where fewer than 6 cells have
    two seeds, all are taken together.

    gains : DataFrame with n_real, ratio (> 0), weight (> 0) and gain (percentage points), one row per seed, as
        `gains_table` returns it; without its columns of seeds the rows of a cell count as seeds in their order.
    Returns a dict: coefficients (term -> points per unit, with intercept, of the fit to all cells and seeds), alpha,
    cells, rmse_points and mae_points {law, mean}, which hold the chance of half of the seeds, better {estimate, low,
    high} (RMSE of the mean minus that of the law, points; the n_real are resampled, and the cells of each), beats_mean
    (low > 0), noise_points
    (root mean square standard error of the gains that are predicted; None for single seeds), predictions (list of dicts
    n_real, ratio, weight, gain of all seeds, law, mean).
    Raises FerError when there are fewer than 6 cells, or a ratio or weight is not above 0.
    """
    cells = gains.groupby(GROUP)["gain"].mean().reset_index()
    if len(cells) < MIN_CELLS or (cells[["ratio", "weight"]] <= 0).any(axis=None):
        raise FerError(f"A law of the gain needs at least {MIN_CELLS} cells (n_real, ratio, weight) with ratio and "
                       f"weight above 0, not {len(cells)}: add n_real, ratios or weights to the study.")
    terms, gain = _terms(cells), cells["gain"].to_numpy()
    halves, standard_errors = _halves(gains, cells)
    unseen = np.array([[_left_out(terms, half, row) for row in range(len(cells))] for half in halves])
    errors = unseen - halves[::-1, :, None]
    model = _ridge().fit(terms, gain)
    return {"coefficients": _coefficients(model), "alpha": float(model[-1].alpha_), "cells": len(cells),
            "rmse_points": _of_both(np.sqrt(np.nanmean(errors**2, (0, 1)))),
            "mae_points": _of_both(np.nanmean(np.abs(errors), (0, 1))),
            **_better(errors, cells["n_real"].to_numpy(), resamples, level, seed),
            "noise_points": _noise(standard_errors),
            "predictions": [{"n_real": int(n), "ratio": float(r), "weight": float(w), "gain": float(g),
                             **_of_both(both)}
                            for (n, r, w), g, both in zip(cells[GROUP].to_numpy(), gain, unseen.mean(0), strict=True)]}


def _of_both(values):
    return dict(zip(("law", "mean"), map(float, values), strict=True))


def _halves(gains, cells):
    """Mean gain of every cell in either half of the seeds, float [2, cells], NaN where it has none there, and its
    standard error; both halves are the whole where too few cells have a second seed."""
    known = [name for name in SEEDS if name in gains]
    number = (gains.groupby(known, sort=True).ngroup() if known else gains.groupby(GROUP).cumcount()).to_numpy()
    places = pd.MultiIndex.from_frame(cells[GROUP])
    found = [gains[number % 2 == half].groupby(GROUP)["gain"].agg(["mean", "sem"]).reindex(places) for half in (0, 1)]
    means, errors = (np.stack([part[name].to_numpy() for part in found]) for name in ("mean", "sem"))
    if np.isfinite(means).all(0).sum() < MIN_CELLS:
        means, errors = np.tile(gains.groupby(GROUP)["gain"].mean().reindex(places).to_numpy(), (2, 1)), errors * np.nan
    return means, errors


def predict_gain(fitted, n_real, ratio, weight=1.0):
    """Gain in percentage points by a law. fitted : as `law` returns it. Arrays or numbers."""
    terms = fitted["coefficients"]
    return terms["intercept"] + sum(terms[name] * term(n_real, ratio, weight) for name, term in LAW.items())


def _terms(cells):
    columns = [cells[name].to_numpy(float) for name in GROUP]
    return np.stack([term(*columns) for term in LAW.values()], axis=1)


def _ridge():
    return make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS))


def _left_out(terms, gain, row):
    """Prediction of one cell from all others whose gain is known, by the law and by their mean."""
    others = (np.arange(len(gain)) != row) & np.isfinite(gain)
    return _ridge().fit(terms[others], gain[others]).predict(terms[[row]])[0], gain[others].mean()


def _coefficients(model):
    scaler, ridge = model[0], model[-1]
    slopes = ridge.coef_ / scaler.scale_
    return {"intercept": float(ridge.intercept_ - slopes @ scaler.mean_),
            **dict(zip(LAW, map(float, slopes), strict=True))}


def _better(errors, sizes, resamples, level, seed):
    """RMSE of the mean minus RMSE of the law; the n_real are resampled, and the cells of each.

    errors : float [halves, cells, 2]. sizes : [cells], their n_real, which share the luck of what they are gains over.
    """
    square, rng = np.nanmean(errors**2, 0), np.random.default_rng(seed)
    groups = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    drawn = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
    often = np.zeros((resamples, len(square)))
    for count, cells in zip(drawn.T, groups, strict=True):
        often[:, cells] = rng.multinomial(count * len(cells), np.full(len(cells), 1 / len(cells)))
    by_law, by_mean = np.sqrt(often @ square / often.sum(1, keepdims=True)).T
    estimate = np.sqrt(square[:, 1].mean()) - np.sqrt(square[:, 0].mean())
    better = interval(estimate, by_mean - by_law, level)
    return {"better": better, "beats_mean": better["low"] > 0}


def _noise(standard_errors):
    known = standard_errors[np.isfinite(standard_errors)]
    return float(np.sqrt((known**2).mean())) if len(known) else None
