"""Curves of accuracy: where more generated faces stop helping, what one is worth, and a law of the gain."""

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_lib.errors import FerError
from fer_lib.intervals import POINTS, as_pairs, cluster_codes, interval, resampled_means
from fer_lib.labels import EXPRESSIONS

CLEAR = 2.0  # a difference of AICc from which one shape counts as better
ENDLESS = ("flat", "line", "slowing")  # shapes without a turn
EXPONENTS = np.geomspace(0.02, 3, 120)  # of learning curves
EDGE = 1e-9


# ---- the point of no further gain ----------------------------------------------------------------------

def upper_bound(ratios, accuracies, *, resampled=None, resamples=2_000, level=0.95, seed=0):
    """The ratio at which the accuracy stops rising, by comparing five shapes.

    Each seed has its own level; the shape is common: flat, line, slowing (a line in log(1 + ratio), which rises ever
    more slowly but without end), plateau (a line up to a knee and flat beyond) or rise_fall (a line up to a peak and
    another down beyond). The answer is the knee or the peak of the better of the last two. The maximum is
    never taken as the answer: of equal ratios the luckiest would win.

    ratios : float [R], 0 included (the baseline), at least 3 of them, increasing.
    accuracies : float [seeds, R], of `mixed` at these ratios on one test set, fractions.
    resampled : float [n, R], mean curves in resamples of seeds and test subjects together, or None to resample
        the seeds alone; the interval then holds for these very test images.
    Returns a dict: ratio; low and high, its interval (the whole grid for one seed); identified, True only where
    the ratio lies inside the grid, its interval ends before the largest ratio, the interval of the rise up to it
    excludes 0, and its shape beats flat, line and slowing by more than 2 units of AICc; preferred, the shape with the
    lowest AICc; turn, the shape that `ratio` belongs to; falls, True where rise_fall beats every other shape by
    more than 2; rise_points and change_beyond_points {estimate, low, high}, of the fit, from ratio 0 to the turn
    and from there to the largest ratio; delta_aicc, shape -> AICc above the lowest (None: too few points to fit).
    Raises FerError when shapes do not fit or ratios are fewer than 3.
    Source: AICc, Hurvich & Tsai (1989); a difference above 2, Burnham & Anderson (2002), section 2.6.
    """
    ratios, accuracies = np.asarray(ratios, float), np.atleast_2d(accuracies)
    if len(ratios) < 3 or accuracies.shape[1] != len(ratios) or (np.diff(ratios) <= 0).any():
        raise FerError(f"A point of no further gain needs at least 3 increasing ratios and an accuracy for "
                       f"each, not {len(ratios)} ratios and {list(accuracies.shape)} accuracies: add ratios.")
    if resampled is None:
        draws = np.random.default_rng(seed).integers(len(accuracies), size=(resamples, len(accuracies)))
        resampled = accuracies[draws].mean(1)
    scores = _shape_scores(ratios, accuracies)
    turn = min(("plateau", "rise_fall"), key=scores.get)
    fit = _turning_fit(ratios, accuracies.mean(0)[None], falling=turn == "rise_fall")
    fits = _turning_fit(ratios, resampled, falling=turn == "rise_fall")
    found = {name: interval(fit[name][0], fits[name], level) for name in ("knot", "rise", "beyond")}
    knot = found["knot"] if len(accuracies) > 1 else {**found["knot"], "low": ratios[1], "high": ratios[-1]}
    inside = ratios[1] < knot["estimate"] and knot["high"] < ratios[-1] and found["rise"]["low"] > 0
    clear = all(scores[turn] + CLEAR < scores[other] for other in ENDLESS)
    falls = all(scores["rise_fall"] + CLEAR < scores[other] for other in (*ENDLESS, "plateau"))
    return {"ratio": knot["estimate"], "low": float(knot["low"]), "high": float(knot["high"]),
            "identified": bool(clear and inside), "preferred": min(scores, key=scores.get), "turn": turn,
            "falls": falls, "rise_points": _in_points(found["rise"]),
            "change_beyond_points": _in_points(found["beyond"]), "delta_aicc": _above_lowest(scores)}


def _turning_fit(ratios, curves, *, falling, n_knots=200):
    """Least squares of y = c + up * min(ratio, knot) - down * max(ratio - knot, 0), up and down at least 0.

    curves : float [n, R]. falling : whether down may differ from 0.
    Returns a dict of float [n]: knot, the best of a grid (the last one, a grid edge, without any rise); explained,
    the sum of squares; rise and beyond, the changes from the first ratio to the knot and from it to the last.
    """
    knots = np.linspace(ratios[1], ratios[-1], n_knots)
    before, after = np.minimum(ratios, knots[:, None]), -np.maximum(ratios - knots[:, None], 0)
    before, after = (ramp - ramp.mean(1, keepdims=True) for ramp in (before, after))
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
    possible = determinant > EDGE
    scale = np.where(possible, determinant, 1)
    up, down = np.where(possible, a * bb - b * ab, -1) / scale, np.where(possible, b * aa - a * ab, -1) / scale
    only_up = (down < 0) | ~possible
    up, down = np.where(only_up, _one_slope(curves, before), up), np.where(only_up, 0, down)
    return np.where(up < 0, 0, up), np.where(up < 0, 0, down)


def _shape_scores(ratios, accuracies):
    """AICc of the five shapes, each with one level per seed. Returns dict shape -> float."""
    n_levels, n = len(accuracies), accuracies.size
    centred = accuracies - accuracies.mean(1, keepdims=True)
    mean, explained = centred.mean(0)[None], {"flat": (0.0, 0)}
    for shape, ramp in (("line", ratios - ratios.mean()), ("slowing", np.log1p(ratios) - np.log1p(ratios).mean())):
        explained[shape] = float((mean @ ramp)[0]) ** 2 / (ramp**2).sum(), 1
    for shape, parameters in (("plateau", 2), ("rise_fall", 3)):
        fit = _turning_fit(ratios, mean, falling=shape == "rise_fall")
        explained[shape] = float(fit["explained"][0]), parameters
    total = (centred**2).sum()
    return {shape: _aicc(total - n_levels * squares, n, n_levels + parameters + 1)
            for shape, (squares, parameters) in explained.items()}


def _aicc(residual_squares, n, k):
    """AICc = n ln(RSS / n) + 2k + 2k(k+1) / (n-k-1), for Gaussian residuals and k parameters."""
    if n - k - 1 <= 0:
        return float("inf")
    return n * np.log(max(residual_squares, 1e-12) / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


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
        more sizes, `arm` at `n_real` and `ratio`. Row s comes from the same seed everywhere; where arms have
        different numbers of rows, the first ones that all have are used.
    codes : int [images], 0..5; where given, the same for the recall of every expression.
    clusters, resamples, level, seed : as in intervals.paired_gain.
    Returns a dict: estimate, low, high (real images per generated one; None where beyond the measured sizes),
    identified (none of the three is None), bound ("above" or "below" the measured range, or None), range (what
    could have been shown), equivalent {estimate, low, high} (real images, clipped to the measured sizes), curve
    {a, b, c, sizes, accuracies, low, high}, accuracy {estimate, low, high} of the arm, n_real, ratio, seeds; with
    codes also expressions, expression -> the same.
    Raises FerError when an arm or a third size is missing.
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
    """(sizes, the baseline at each of them, the arm), cut to the seeds that all of them have."""
    curve = {}
    for size in sorted(by_size):
        ratios = [r for name, r in by_size[size] if name == baseline]
        if ratios:
            curve[size] = by_size[size][baseline, min(ratios, key=lambda r: abs(r - ratio))]
    mixed = by_size.get(n_real, {}).get((arm, float(ratio)))
    if mixed is None or len(curve) < 3:
        raise FerError(f"The worth of a generated face needs the arm {arm} at n_real {n_real} and ratio {ratio:g}, and "
                       f"the arm {baseline} at 3 or more n_real, not {sorted(curve)}: add them to the study.")
    n_seeds = min(map(len, [mixed, *curve.values()]))
    mixed, *arms = as_pairs(*(rows[:n_seeds] for rows in [mixed, *curve.values()]))
    return list(curve), arms, mixed


def _worth(sizes, curve, mixed, n_real, ratio, *, counted, clusters, resamples, level, seed):
    groups = cluster_codes(clusters, mixed.shape[1])
    kept = slice(None) if counted is None else counted
    means = np.array([rows[:, kept].mean() for rows in [*curve, mixed]])
    resampled = resampled_means([*curve, mixed], groups, resamples=resamples, seed=seed, counted=counted).T
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
                      "accuracies": means[:-1].tolist(), "low": limits[0, :-1].tolist(),
                      "high": limits[1, :-1].tolist()}}


# ---- a law of the gain ---------------------------------------------------------------------------------

LAW = {"log n_real": lambda n, r, w: np.log(n), "log ratio": lambda n, r, w: np.log(r),
       "log weight": lambda n, r, w: np.log(w), "(log ratio)^2": lambda n, r, w: np.log(r) ** 2,
       "log n_real * log ratio": lambda n, r, w: np.log(n) * np.log(r)}
"""Terms of the law: gain in points = intercept + the sum of coefficient * term(n_real, ratio, weight)."""

ALPHAS = np.geomspace(1e-2, 1e4, 25)  # ridge penalties; the largest leaves little but the mean
GROUP = ["n_real", "ratio", "weight"]
SEEDS = ["split_seed", "generator_seed", "train_seed"]


def gains_table(table, *, test_set, arm="mixed", baseline="real_long"):
    """The gain of every classifier of an arm over the baseline of the same seeds, ready for `law`.

    table : DataFrame as study.run returns it; it may hold several n_real and weights. The baseline at the same
        n_real is that of the closest ratio, whatever its weight. Rows without a baseline are left out.
    Returns a DataFrame: n_real, ratio, weight, split_seed, generator_seed, train_seed, gain (percentage points).
    Raises FerError when nothing can be paired.
    """
    table = table[table["test_set"] == test_set]
    keys = ["n_real", *SEEDS]
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
    all others, and so is it by their mean, the least that a law must beat.

    gains : DataFrame with n_real, ratio (> 0), weight (> 0) and gain (percentage points), one row per seed.
    Returns a dict: coefficients (term -> points per unit, with intercept, of the fit to all cells), alpha, cells,
    rmse_points and mae_points {law, mean}, better {estimate, low, high} (RMSE of the mean minus that of the law,
    points; the cells are resampled), beats_mean (low > 0), noise_points (root mean square standard error of the
    cells' own gains, what no law can go below; None for single seeds), predictions (list of dicts n_real, ratio,
    weight, gain, law, mean).
    Raises FerError when there are fewer than 6 cells, or a ratio or weight is not above 0.
    """
    cells = gains.groupby(GROUP)["gain"].agg(["mean", "sem"]).reset_index()
    if len(cells) < 6 or (cells[["ratio", "weight"]] <= 0).any(axis=None):
        raise FerError(f"A law of the gain needs at least 6 cells (n_real, ratio, weight) with ratio and weight above "
                       f"0, not {len(cells)}: add n_real, ratios or weights to the study.")
    terms = _terms(cells)
    gain = cells["mean"].to_numpy()
    unseen = np.array([_left_out(terms, gain, row) for row in range(len(cells))])
    errors = unseen - gain[:, None]
    model = _ridge().fit(terms, gain)
    return {"coefficients": _coefficients(model), "alpha": float(model[-1].alpha_), "cells": len(cells),
            "rmse_points": dict(zip(("law", "mean"), map(float, np.sqrt((errors**2).mean(0))), strict=True)),
            "mae_points": dict(zip(("law", "mean"), map(float, np.abs(errors).mean(0)), strict=True)),
            **_better(errors, resamples, level, seed), "noise_points": _noise(cells["sem"]),
            "predictions": [{"n_real": int(n), "ratio": float(r), "weight": float(w), "gain": float(g),
                             "law": float(by_law), "mean": float(by_mean)}
                            for (n, r, w), g, (by_law, by_mean) in zip(cells[GROUP].to_numpy(), gain, unseen,
                                                                       strict=True)]}


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
    """Prediction of one cell from all others, by the law and by their mean."""
    others = np.arange(len(gain)) != row
    return _ridge().fit(terms[others], gain[others]).predict(terms[[row]])[0], gain[others].mean()


def _coefficients(model):
    scaler, ridge = model[0], model[-1]
    slopes = ridge.coef_ / scaler.scale_
    return {"intercept": float(ridge.intercept_ - slopes @ scaler.mean_),
            **dict(zip(LAW, map(float, slopes), strict=True))}


def _better(errors, resamples, level, seed):
    """RMSE of the mean minus RMSE of the law, with the cells resampled."""
    draws = np.random.default_rng(seed).integers(len(errors), size=(resamples, len(errors)))
    by_law, by_mean = np.sqrt((errors[draws] ** 2).mean(1)).T
    estimate = np.sqrt((errors[:, 1] ** 2).mean()) - np.sqrt((errors[:, 0] ** 2).mean())
    better = interval(estimate, by_mean - by_law, level)
    return {"better": better, "beats_mean": better["low"] > 0}


def _noise(standard_errors):
    known = standard_errors.dropna()
    return float(np.sqrt((known**2).mean())) if len(known) else None
