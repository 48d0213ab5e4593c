"""The quality of a profile's generators, as one small file of numbers: results/<profile>/generators.json.

Shares compare generated with real (or rendered) faces: 1 means as good as those.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib import (alignment, embedding, engine, generation, inception, metrics, referee, selection, statistics,
                     study, training, truth, weights)
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import EXPRESSIONS

TRUE_TAKES = 16  # pictures of each true expression, of which the nearest counts
NEIGHBOURS = 5  # of coverage, as in its paper; fewer where a class has so few faces
log = logging.getLogger(__name__)

COVERAGE_DRAWS = 40  # repeated draws behind the interval of coverage


MEASURES = ("coverage", "truth", "selection", "gan_train", "identity_fid", "face_found")
IDENTITY_DRAWS, FACES_PER_DRAW = 10, 1_000  # faces of random identities behind identity_fid_ratio and face_found_share


def judge_generators(parts, tests, bank, gans, referee_folder, folder, *, measures, seed, keep_share=0.7,
                     remove_duplicates=True, gan_train=None, inception_weights="", resamples=2_000, device="auto"):
    """Measure the generators and write quality.json into `folder`.

    parts : dict with the Faces pool (the GANs' and the judge's), train and validation.
    tests : dict name -> Faces (real or rendered) that neither GANs nor judge have seen; the first is compared with.
    bank : Faces, the generated ones. gans : dict name -> folder of its generator.safetensors: `expression`, `identity`,
    and `identity_paper` for "identity_fid". referee_folder : of the networks that look, see referee.provide.
    measures : what is measured besides labels and distances, of MEASURES: "coverage" of real faces by generated
    ones, with precision, recall, density and, unless the identity GAN learned from others, the distance to the nearest
    pool face; "truth", errors against rendered
    expressions and the identity kept (built-in faces only); "selection", labels and coverage after filtering;
    "gan_train", what a classifier learns from generated faces alone; "identity_fid", the Fréchet distance of the
    identity GAN beside that of the paper's; "face_found", in how many of the identity GAN's draws a face detector finds
    a face.
    seed : of resamples and draws. keep_share : of selection.keep_best. remove_duplicates : of selection.select.
    gan_train : options of `gan_train_share`. inception_weights : a file, see inception.load, for inception_fid and
    inception_kid beside fid and kid, which are in the judge's features; "" for none.
    Raises FerError for an unknown measure, and for a file that holds no weights of Inception.
    """
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise FerError(f"The measure {unknown[0]!r} is unknown: choose from {', '.join(MEASURES)}.")
    beside = inception.load(inception_weights, device=device) if inception_weights else None
    pool, first = parts["pool"], next(iter(tests.values()))
    options = {"resamples": resamples, "seed": seed}
    networks = referee.load(referee_folder, device=device)
    judge, scores = networks.judge, selection.score(networks.selector, bank)
    trained_on = weights.read_metadata(Path(referee_folder) / "judge.safetensors")["trained_on"]
    whose = "of the pool" if trained_on["fingerprint"] == pool.fingerprint else "of another pool"
    values = {"judge": {"trained_on": f"{trained_on['n']} {trained_on['origin']} faces {whose}"},
              "selector_thresholds": referee.thresholds_of(bank, scores, share=keep_share),
              "n_generated": len(bank), "label_fidelity": judged(judge, bank, tests, **options),
              **distances(judge, pool.of(EXPRESSIONS), bank, tests, seed=seed)}
    if beside:
        found = distances(beside, pool.of(EXPRESSIONS), bank, tests, seed=seed)
        values |= {f"inception_{name}": value for name, value in found.items()}
    shares = {"label_fidelity_share": fidelity_share(judge, bank, first, **options)}
    if "coverage" in measures:
        values["neighbours"], shares["coverage_unfiltered_share"] = coverage_share(judge, pool, bank, first, seed=seed)
        if weights.has_seen(Path(gans["identity"]) / "generator.safetensors", pool):
            shares["nearest_distance_share"] = nearest_distance_share(pool, bank, first, **options)
        else:
            log.info("whether the identity GAN copies cannot be told: it learned from other faces than this pool's")
    if "truth" in measures and pool.origin == "rendered":
        shares |= measured_against_truth(gans["expression"], networks.embedder, first, seed=seed + 2,
                                         resamples=resamples, device=device)
    if "selection" in measures:
        kept, values["selection"] = selection.select(bank, scores, share=keep_share,
                                                     remove_duplicates=remove_duplicates)
        np.savez(Path(folder) / "kept.npz", kept=bank.table["id"].isin(kept.table["id"]).to_numpy(),
                 bank=bank.fingerprint)
        shares["label_fidelity_filtered_share"] = fidelity_share(judge, kept, first, **options)
        _, shares["coverage_share"] = coverage_share(judge, pool, kept, first, seed=seed)
    if "gan_train" in measures:
        shares["gan_train_share"] = gan_train_share(parts, bank, first, Path(folder) / "gan_train",
                                                    resamples=resamples, device=device, **gan_train)
    if "identity_fid" in measures:
        shares["identity_fid_ratio"] = identity_fid_ratio(judge, pool, gans["identity"], gans["identity_paper"],
                                                          seed=seed, device=device)
    if "face_found" in measures:
        values["face_found"], shares["face_found_share"] = face_found_share(gans["identity"], first, device=device,
                                                                            **options)
    (Path(folder) / "quality.json").write_text(json.dumps(values | _rounded(shares), indent=2) + "\n",
                                               encoding="utf-8")


def load_quality(folder):
    """What `judge_generators` wrote.

    Returns a dict: selector_thresholds (see referee.Referee), label_fidelity (for `generated` and every test set:
    expression or "all" -> {estimate, low, high}, fractions), fid and kid (in the judge's features, to the pool's six
    expressions), inception_fid and inception_kid where asked for, judge, n_generated, neighbours (precision, recall,
    density, coverage; by_expression the same of each), selection (how many generated faces were kept), face_found
    (fractions of identities drawn, and of test faces), and each *_share and *_ratio as {estimate, low, high}.
    """
    return json.loads((Path(folder) / "quality.json").read_text(encoding="utf-8"))


def load_kept(folder, bank):
    """Which faces of the bank the selector keeps: bool [len(bank)]; of standard ones, see generation.standard.
    folder : where `judge_generators` wrote with the measure "selection". bank : Faces, the whole bank.
    Raises FerError where nothing was selected, or from another bank.
    """
    kept = generation.standard(bank)
    try:
        with np.load(Path(folder) / "kept.npz", allow_pickle=False) as found:
            judged, fingerprint = found["kept"], str(found["bank"])
    except FileNotFoundError as error:
        raise FerError("No generated face was selected: run notebooks/04_generation.ipynb with `selection` among its "
                       "measures.") from error
    if fingerprint != bank.select(kept).fingerprint:
        raise FerError("The faces that were selected are of another bank than the generated ones: run "
                       "notebooks/04_generation.ipynb to its end.")
    kept[kept] = judged
    return kept


# ---- labels ---------------------------------------------------------------------------------------------

def judged(judge, bank, tests, **options):
    """Label fidelity of generated faces, and the judge's recall on each test set: nested dict."""
    tables = {name: metrics.label_fidelity(judge, bank, test, **options).set_index("expression")
              for name, test in tests.items()}
    first = next(iter(tables.values()))
    found = {"generated": _scores(first, ("fidelity", "low", "high"))}
    return found | {name: _scores(table, ("judge_recall", "judge_low", "judge_high")) for name, table in tables.items()}


def fidelity_share(judge, bank, test, *, resamples=2_000, level=0.95, seed=0):
    """The judge's accuracy on generated faces / on test faces; both resampled by subject."""
    rng, rates, resampled = np.random.default_rng(seed), [], []
    for faces in (bank, test.of(EXPRESSIONS)):
        hit = metrics.judged_codes(judge, faces) == faces.codes
        groups = statistics.cluster_codes(faces.subjects, len(faces))
        resampled.append(cluster_means(hit, groups, resamples, rng))
        rates.append(hit.mean())
    return _share(rates, resampled, level)


def cluster_means(values, groups, resamples, rng):
    """Means of `values` [n] in bootstrap resamples of whole groups: float [resamples]."""
    sums, sizes = np.bincount(groups, values), np.bincount(groups)
    weights = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    return (weights @ sums) / (weights @ sizes)


def _share(values, resampled, level=0.95):
    """{estimate, low, high} of values[0] / values[1] with its percentile interval."""
    ratios = resampled[0] / np.maximum(resampled[1], 1e-9)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return {"estimate": float(values[0] / max(values[1], 1e-9)), "low": float(low), "high": float(high)}


# ---- distances and coverage -----------------------------------------------------------------------------

def distances(judge, pool, bank, tests, *, seed=0):
    """FID and KID to the pool, of generated faces and of equally many test faces: {"fid": dict, "kid": dict}.
    judge : or Inception, see inception.load."""
    sets = {"generated": bank} | {f"{test.origin}, test {name}": test for name, test in tests.items()}
    n, rng = min(map(len, sets.values())), np.random.default_rng(seed)
    sets = {name: faces.select(np.sort(rng.permutation(len(faces))[:n])) for name, faces in sets.items()}
    known, *seen = (metrics.judge_features(judge, faces) for faces in (pool, *sets.values()))
    frechet, kernel = {}, {}
    for name, features in zip(sets, seen, strict=True):
        frechet[name] = metrics.frechet_distance(known, features)
        mean, spread = metrics.kernel_distance(known, features)
        kernel[name] = {"mean": round(mean, 5), "standard_deviation": round(spread, 5)}
    return {"fid": frechet, "kid": kernel}


def coverage_share(judge, pool, kept, test, *, seed=0, draws=COVERAGE_DRAWS, level=0.95):
    """Coverage of pool faces by generated ones / by held-out test faces, at equal counts, mean over classes.

    The interval comes from repeated draws of equally many faces; it leaves out which faces the test set holds.
    Returns (dict with precision, recall, density and coverage of `generated` and of `test`, and the same of every
    expression in by_expression; the share of coverage).
    """
    features = {name: (metrics.judge_features(judge, faces), faces.codes)
                for name, faces in (("pool", pool), ("generated", kept), ("test", test))}
    n = min((codes == code).sum() for _, codes in features.values() for code in range(len(EXPRESSIONS)))
    if n < 2:
        raise FerError("Coverage needs two faces of every expression in the pool, the test set and what is kept of the "
                       "generated ones: raise n_test_per_class or keep_share, or leave coverage out of measures.")
    k, rng, found = min(NEIGHBOURS, n - 1), np.random.default_rng(seed), []
    for _ in range(draws):
        for code in range(len(EXPRESSIONS)):
            drawn = {name: vectors[rng.permutation(np.flatnonzero(codes == code))[:n]]
                     for name, (vectors, codes) in features.items()}
            found += [{"set": name, "expression": EXPRESSIONS[code]} | metrics.coverage(drawn["pool"], drawn[name], k=k)
                      for name in ("generated", "test")]
    table = pd.DataFrame(found).assign(draw=np.arange(len(found)) // (2 * len(EXPRESSIONS)))
    of_draws = table.groupby(["set", "draw"])["coverage"].mean().unstack("set")[["generated", "test"]].to_numpy().T
    table = table.drop(columns="draw")
    means = table.drop(columns="expression").groupby("set").mean().to_dict("index")
    means["by_expression"] = {name: table[table["expression"] == name].drop(columns="expression").groupby("set").mean()
                              .to_dict("index") for name in EXPRESSIONS}
    return _rounded(means), _share(of_draws.mean(1), of_draws, level)


def nearest_distance_share(pool, bank, test, *, resamples=2_000, level=0.95, seed=0):
    """Median distance of generated faces to their nearest pool face / of held-out test faces to theirs.

    Far below 1, the generators would copy the pool, mirrored or not. Distances as in generation.nearest_faces.
    """
    rng, medians, resampled = np.random.default_rng(seed), [], []
    for faces in (bank, test):
        near = generation.nearest_distances(faces.images, pool)
        groups = statistics.cluster_codes(faces.subjects, len(faces))
        order = np.argsort(near)
        n_groups = groups.max() + 1
        weights_of = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
        middle = np.array([_middle(row[groups[order]]) for row in weights_of])
        medians.append(np.median(near))
        resampled.append(near[order][middle])
    return _share(medians, resampled, level)


def _middle(counts):
    """Place of the median among values in order that are there `counts` times each."""
    return (counts.cumsum() >= counts.sum() / 2).argmax()


def identity_fid_ratio(judge, pool, better, paper, *, seed, level=0.95, device="auto"):
    """Fréchet distance to the pool of the faces that one identity GAN draws / that the paper's draws.

    better, paper : folders of their generator.safetensors. The interval comes from repeated draws of identities.
    """
    found = []
    for folder in (better, paper):
        generator = weights.load_generator(Path(folder) / "generator.safetensors", device=engine.device(device))
        found.append([_fid_of_draw(judge, pool, generator, [seed, draw]) for draw in range(IDENTITY_DRAWS)])
    found = np.array(found)
    return _share(found.mean(1), found, level)


def _fid_of_draw(judge, pool, generator, seed):
    n = min(FACES_PER_DRAW, len(pool))
    images = generation.to_uint8(generation.identities(generator, range(n), seed=seed))
    return metrics.fid(judge, pool, Faces(images, pool.table.iloc[:n].reset_index(drop=True), "generated"))


def face_found_share(identity_gan, test, *, seed, resamples=2_000, level=0.95, device="auto"):
    """How often a face is found in the draws of an identity GAN / in test faces; see alignment.shows_face.

    identity_gan : folder of its generator.safetensors. All draws count, of the full variety, whatever was left out
    afterwards. Returns (dict generated, test -> fraction, the share). Test faces are resampled by subject.
    """
    generator = weights.load_generator(Path(identity_gan) / "generator.safetensors", device=engine.device(device))
    drawn = generation.to_uint8(generation.identities(generator, range(FACES_PER_DRAW), seed=seed))
    found = [alignment.shows_face(images).astype(float) for images in (drawn, test.images)]
    groups = [np.arange(len(drawn)), statistics.cluster_codes(test.subjects, len(test))]
    rates, rng = [values.mean() for values in found], np.random.default_rng(seed)
    resampled = [cluster_means(*pair, resamples, rng) for pair in zip(found, groups, strict=True)]
    return _rounded(dict(zip(("generated", "test"), rates, strict=True))), _share(rates, resampled, level)


# ---- what a classifier learns from them -----------------------------------------------------------------

def gan_train_share(parts, bank, test, folder, *, n_real, n_seeds, resamples=2_000, level=0.95, **options):
    """Accuracy of classifiers trained on n_real generated faces / on n_real real (or rendered) ones.

    Both make as many updates, and keep the look that is best on the same validation faces: with the paper's stopping, a
    training on few faces may end before it has left the level of guessing. options : of study.run.
    Raises FerError when the bank has too few faces. Source: GAN-train of Shmelkov et al. 2018; CAS of Ravuri and
    Vinyals 2019.
    """
    of_bank = {name: float(bank.table[name].iloc[0]) for name in ("intensity", "truncation") if name in bank.table}
    try:
        for seed in range(n_seeds):
            study.draw_generated(bank, n_real, generator_seed=seed, **of_bank)
    except FerError as error:
        raise FerError(f"gan_train trains on {n_real} generated faces of each seed, and fewer were made for the study: "
                       "add 1 to ratios, or leave gan_train out of measures.") from error
    cells = study.plan(["real_long", "generated"], [1], n_real, range(n_seeds), stopping="updates", **of_bank)
    tests = {"first": test.of(EXPRESSIONS)}
    study.run(cells, train=parts["train"], validation=parts["validation"], generated=bank, tests=tests,
              folder=folder, **options)
    correct = study.correctness(folder, cells, tests)["first"]
    arms = [correct["generated", 1.0], correct["real_long", 0.0]]
    gain = statistics.paired_gain(arms[1], arms[0], clusters=tests["first"].subjects, resamples=resamples, level=level)
    return {key: 1 + value for key, value in gain["relative"].items()}


# ---- against the truth, which is known for built-in faces -------------------------------------------------

def measured_against_truth(expression_gan, embedder, test, *, seed, resamples, device):
    """Errors per region and identity kept, on people that no network has seen: dict of shares.

    embedder : of embedding.train_embedder. test : rendered Faces, whose subjects are called s<data seed>-<number>.
    seed : of resamples.
    """
    generator = weights.load_generator(Path(expression_gan) / "generator.safetensors", device=engine.device(device))
    given, true, masks = truth.render_truth_of(test, takes=TRUE_TAKES)
    images = training.to_device(given.images, engine.device(device))
    made = np.stack([generation.to_uint8(generation.impose(generator, images, name)) for name in EXPRESSIONS], 1)
    rng = np.random.default_rng(seed)
    faces = {"": (made, true), "_of_truth": (true[:, :, 0], true[:, :, 1:])}
    shares = {f"region_error_share{name}": region_error_share(given, *pair, masks, resamples, rng)
              for name, pair in faces.items()}
    shares |= identity_shares(embedder, given, made, test, resamples, rng)
    shares |= {f"region_error_mean_share{name}": region_error_share(given, *pair, masks, resamples, rng, nearest=False)
               for name, pair in faces.items()}
    return shares | {f"region_change_ratio{name}": region_change_ratio(given, changed, masks, resamples, rng)
                     for name, changed in (("", made[:, :, None]), ("_of_truth", true))}


def region_error_share(given, made, true, masks, resamples, rng, *, nearest=True):
    """Error of the imposed expression to the nearest true take / of the unchanged face to the same take: per region.

    given : Faces [n]. made : uint8 [n, expressions, C, H, W]. true : uint8 [n, expressions, takes, C, H, W].
    nearest : False takes the mean over all takes in place of the one that is nearest to what was made.
    """
    pairs = [truth.region_errors(made[:, code], true[:, code], masks, unchanged=given.images) if nearest else
             [truth.mean_errors(images, true[:, code], masks) for images in (made[:, code], given.images)]
             for code in range(made.shape[1])]
    errors = [np.mean([pair[part].to_numpy() for pair in pairs], axis=0) for part in (0, 1)]
    return _by_region(*errors, masks, resamples, rng)


def region_change_ratio(given, changed, masks, resamples, rng):
    """How much more an expression changes a region than what lies outside of all of them: per region.

    given : Faces [n], before. changed : uint8 [n, expressions, takes, C, H, W], after. Near 1 everything would change
    alike; mean absolute changes of pixels, over expressions and takes, inside / elsewhere.
    """
    changes = [truth.change_inside(given.images, changed[:, code, take], masks) for code in range(changed.shape[1])
               for take in range(changed.shape[2])]
    mean = sum(changes) / len(changes)
    inside = mean[list(masks)].to_numpy()
    return _by_region(inside, np.repeat(mean[["elsewhere"]].to_numpy(), inside.shape[1], 1), masks, resamples, rng)


def _by_region(above, below, masks, resamples, rng):
    """Mean over people above / below: dict region -> share, people resampled. above, below : float [n, regions], NaN
    above where a face does not show a region."""
    shares = {}
    for column, region in enumerate(masks):
        both = [part[:, column][~np.isnan(above[:, column])] for part in (above, below)]
        if not len(both[0]):  # hidden in all of them
            continue
        weights = rng.multinomial(len(both[0]), np.full(len(both[0]), 1 / len(both[0])), size=resamples)
        shares[region] = _share([part.mean() for part in both], [weights @ part for part in both])
    return shares


def identity_shares(embedder, given, made, test, resamples, rng):
    """Similarity of a face before and after / of two real (or rendered) pictures of one person, and, to judge it by,
    that of pictures of two people, identity_similarity_share_of_strangers: dict of shares.

    given : Faces [n]. made : uint8 [n, expressions, C, H, W]. test : Faces with the subjects that are compared. The
    strangers' interval is that of the same-person pairs alone, as people are in many pairs of strangers at once.
    """
    rows = np.arange(len(given)).repeat(made.shape[1])
    after = Faces(made.reshape(-1, *made.shape[2:]), given.table.iloc[rows].reset_index(drop=True), "generated")
    kept = embedding.similarity(embedder, given.select(rows), after)
    same, different, pairs = embedding.pair_similarities(embedder, test)
    of_pairs = np.unique(test.subjects[pairs[:, 0]].astype(str), return_inverse=True)[1]
    of_change, of_same = (cluster_means(kept, rows, resamples, rng), cluster_means(same, of_pairs, resamples, rng))
    return {"identity_similarity_share": _share([kept.mean(), same.mean()], [of_change, of_same]),
            "identity_similarity_share_of_strangers": _share([different.mean(), same.mean()],
                                                             [np.full(resamples, different.mean()), of_same])}


# ---- plain values -----------------------------------------------------------------------------------------

def _scores(table, columns):
    rows = table[list(columns)].set_axis(["estimate", "low", "high"], axis=1)
    return {name: {key: round(float(value), 4) for key, value in row.items()} for name, row in rows.iterrows()
            if name != "neutral"}


def _rounded(values):
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    return round(float(values), 4)
