"""The quality of a profile's generators, as one small file of numbers: results/<profile>/generators.json."""

import json
from pathlib import Path

from fer_lib import metrics
from fer_lib.labels import EXPRESSIONS


def judge_generators(pool, bank, tests, folder, *, epochs, seed, resamples=2_000, device="auto"):
    """Train the judge, let it judge the bank, and write quality.json into `folder`.

    pool : Faces, real or rendered, that the judge learns from. bank : Faces, the generated ones.
    tests : dict name -> Faces (real or rendered) that neither GANs nor judge have seen.
    epochs, seed : of metrics.train_judge. resamples : of the intervals.
    """
    judge = metrics.train_judge(pool, seed=seed, epochs=epochs, device=device)
    tables = {name: metrics.label_fidelity(judge, bank, test, resamples=resamples, seed=seed).set_index("expression")
              for name, test in tests.items()}
    first = next(iter(tables.values()))
    fidelity = {"generated": _scores(first, ("fidelity", "low", "high"))}
    fidelity |= {name: _scores(table, ("judge_recall", "judge_low", "judge_high")) for name, table in tables.items()}
    six = pool.of(EXPRESSIONS)
    distances = {"generated": metrics.fid(judge, six, bank)}
    distances |= {f"{test.origin}, test {name}": metrics.fid(judge, six, test) for name, test in tests.items()}
    kernel = {"generated": _kernel(judge, six, bank)}
    kernel |= {f"{test.origin}, test {name}": _kernel(judge, six, test) for name, test in tests.items()}
    values = {"judge": {"trained_on": f"{len(pool)} {pool.origin} faces of the pool", "epochs": epochs, "seed": seed},
              "n_generated": len(bank), "label_fidelity": fidelity, "fid": distances, "kid": kernel}
    (Path(folder) / "quality.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_quality(folder):
    """What `judge_generators` wrote.

    Returns a dict: label_fidelity (for `generated` and every test set: expression or "all" -> {estimate, low,
    high}, fractions), fid and kid (in the judge's features, to the pool's six expressions), judge, n_generated.
    """
    return json.loads((Path(folder) / "quality.json").read_text(encoding="utf-8"))


def _scores(table, columns):
    rows = table[list(columns)].set_axis(["estimate", "low", "high"], axis=1)
    return {name: {key: round(float(value), 4) for key, value in row.items()} for name, row in rows.iterrows()
            if name != "neutral"}


def _kernel(judge, pool, faces):
    mean, spread = metrics.kid(judge, pool, faces)
    return {"mean": round(mean, 5), "standard_deviation": round(spread, 5)}
