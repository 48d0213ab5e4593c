"""Images per second of the paper's CNN in training, beside the same network in Keras and the machine's peak.

Run from the repository root:
    python benchmarks/classifier.py [--size 64] [--images 960] [--jobs N] [--repeats 5] [--keras PYTHON] [--ensemble 64]
                                    [--precision float32 bfloat16] [--json FILE]

PYTHON is that of an environment with `pip install keras tensorflow-cpu`. Both sides have the same layers, optimiser,
loss, dropout, batch of 16, precisions and cores, and take turns, so that a change of the machine's speed meets both.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from gan_step import counted, product_rates
from torch.nn import functional as F

from fer_lib import classifier, engine, ensemble
from fer_lib.faces import Faces
from fer_lib.labels import EXPRESSIONS
from fer_lib.networks.paper_cnn import PaperCNN

BATCH_SIZE = 16
CPU = torch.device("cpu")


def main():
    options = arguments()
    jobs = engine.job_count(options.jobs)
    print(machine(), flush=True)
    with ExitStack() as stack:
        contestants = {} if options.gpu_only else ours(options, jobs) | peaks(jobs)
        if options.keras:
            contestants |= keras(options, jobs, stack)
        figures = take_turns(contestants, options.repeats)
    operations = per_image, carried_out = operations_per_image(options.size)
    print(f"{options.size} px, batch {BATCH_SIZE}, {options.images} images per process and turn, {options.repeats} "
          f"turns; {per_image / 1e9:.3f} GFLOP per image, computed with {carried_out / 1e9:.3f} in float32 on one "
          "thread of a processor, where convolutions need fewer multiplications\n")
    if figures:
        print(table(figures).to_string(index=False))
        print("\n" + "\n".join(conclusions(figures, jobs, operations, options.precision)))
    print(gpu(options, figures) if torch.cuda.is_available() else
          "No NVIDIA GPU here: one classifier at a time against many together was not measured.")
    if options.json:
        result = {"machine": machine(), "options": vars(options), "jobs": jobs, "flop_per_image": per_image,
                  "flop_carried_out_per_image": carried_out, "rates": figures}
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--images", type=int, default=960, help="images per process and turn")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one per core)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contestant, after one to warm up")
    parser.add_argument("--keras", metavar="PYTHON", help="Python of an environment with Keras and TensorFlow")
    parser.add_argument("--ensemble", type=int, default=64, help="classifiers trained together on an NVIDIA GPU")
    parser.add_argument("--precision", nargs="+", default=["float32"], choices=list(POLICIES), help="one or both")
    parser.add_argument("--json", metavar="FILE", help="keep every rate there")
    parser.add_argument("--gpu-only", action="store_true", help="leave out what runs on processors")
    options = parser.parse_args()
    if options.gpu_only and (options.keras or not torch.cuda.is_available()):
        parser.error("--gpu-only needs an NVIDIA GPU, and no --keras")
    if "bfloat16" in options.precision and not options.gpu_only and not engine.has_bfloat16("cpu"):
        parser.error("this processor has no bfloat16, and float32 would be measured in its place: leave it out")
    return options


def machine():
    """One sentence on processor, cores, load and versions."""
    try:
        names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")]
    except OSError:
        names = []
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (f"{names[0] if names else platform.processor() or platform.machine()}, {engine.job_count()} cores"
            f"{load}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")


def take_turns(contestants, repeats):
    """Run every contestant once to warm up, then `repeats` times in turn.

    contestants : dict name -> function that returns a rate. One of Keras that is not half as fast as its best in the
    warm-up is left out of the turns, to save time. Returns dict name -> list of rates, one per turn.
    """
    first = {name: run() for name, run in contestants.items()}
    best = max((rate for name, rate in first.items() if name.startswith("Keras")), default=0)
    slow = {name: rate for name, rate in first.items() if name.startswith("Keras") and rate < best / 2}
    for name, rate in slow.items():
        print(f"Left out, not half as fast as Keras at its best: {name}, {rate:.0f} images/s with its compilation")
    kept = [name for name in contestants if name not in slow]
    turns = [{name: contestants[name]() for name in kept} for _ in range(repeats)]
    return {name: [turn[name] for turn in turns] for name in kept}


def rate(n, times):
    """Images per second of processes that trained on n each. times : (start, end) of each, on one clock."""
    starts, ends = zip(*times, strict=True)
    return n * len(times) / (max(ends) - min(starts))


def table(figures):
    """Median, lowest and highest rate of each contestant."""
    rows = [(name, "GFLOP/s" if name.startswith("peak") else "images/s",
             statistics.median(rates), min(rates), max(rates)) for name, rates in figures.items()]
    frame = pd.DataFrame(rows, columns=["what", "unit", "median", "lowest", "highest"])
    return frame.assign(**{name: frame[name].map("{:.0f}".format) for name in ("median", "lowest", "highest")})


def conclusions(figures, jobs, operations, precisions):
    """Ratios of figures of the same turn, as sentences: medians and ranges. operations : see operations_per_image."""
    for n in dict.fromkeys((1, jobs)):
        for product in ("fastest", "a @ b") if "float32" in precisions else ():
            mine = OURS.format("float32", n)
            whole, carried_out = ([rate * each / 1e9 / peak for rate, peak in
                                   zip(figures[mine], figures[PEAK.format(product, n)], strict=True)]
                                  for each in operations)
            yield (f"{mine}: {spread(whole, '.0%')} of {PEAK.format(product, n)}; "
                   f"{spread(carried_out, '.0%')} by the operations that are carried out")
    for precision in precisions:
        for rival in precisions:
            names = [name for name in figures
                     if name.startswith("Keras") and POLICIES[rival] in name.split("(")[1].split(", ")]
            if names:
                mine, best = OURS.format(precision, jobs), max(names, key=lambda name: statistics.median(figures[name]))
                ratios = [ours / theirs for ours, theirs in zip(figures[mine], figures[best], strict=True)]
                yield f"{mine}: {spread(ratios, '.2f')} times Keras at its best in {rival} ({best})"


def spread(values, form):
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


# ---- ours -----------------------------------------------------------------------------------------------

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""Precision -> Keras' name for it; weights and their updates are float32 on both sides."""

OURS = "ours, {}, processes: {}"


def ours(options, jobs):
    """Training in one single-threaded process, and in one per core."""
    def run(precision, n):
        tasks = [(options.images, options.size, precision, seed) for seed in range(n)]
        return rate(options.images, [times for _, times in engine.map(train_one_epoch, tasks, jobs=n)])

    return {OURS.format(precision, n): lambda precision=precision, n=n: run(precision, n)
            for precision in options.precision for n in dict.fromkeys((1, jobs))}


def train_one_epoch(task):
    """Start and end of classifier.train for one epoch, set-up and validation included.

    task : (images, size, precision, seed).
    """
    n, size, precision, seed = task
    training, validation = random_faces(n, size=size), random_faces(12, size=size)
    start = time.time()
    classifier.train(training, validation, seed=seed, batch_size=BATCH_SIZE, max_epochs=1, precision=precision,
                     device="cpu")
    return start, time.time()


def random_faces(n, *, size, seed=0):
    """Noise with the six labels in turn: what is in the pictures does not change the time."""
    images = np.random.default_rng(seed).integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    rows = pd.DataFrame({"id": np.arange(n).astype(str), "subject": "", "domain": "",
                         "expression": [EXPRESSIONS[index % 6] for index in range(n)]})
    return Faces(images, rows, "real")


def operations_per_image(size):
    """Floating-point operations of forward and backward of the convolutions and products, two for a multiply-add, and
    how many are carried out in float32 on one thread of a processor.

    The first convolution needs no gradient of its input, so none is counted.
    """
    model, before = PaperCNN(image_size=size), torch.get_num_threads()
    images, codes = torch.rand(BATCH_SIZE, 1, size, size), torch.zeros(BATCH_SIZE, dtype=torch.long)
    torch.set_num_threads(1)
    found = [counted(lambda: F.cross_entropy(model.train(training)(images), codes).backward()) / BATCH_SIZE
             for training in (False, True)]
    torch.set_num_threads(before)
    return found


# ---- the machine's peak ---------------------------------------------------------------------------------

PEAK = "peak, {} product, processes: {}"


def peaks(jobs):
    """Rate of a large float32 matrix product in one single-threaded process, and in one per core at once."""
    kept = {}

    def run(product, n):
        if product == "fastest":  # both are measured together
            kept[n] = [rates for _, rates in engine.map(product_rate, [CPU] * n, jobs=n)]
        return sum(max(rates.values()) if product == "fastest" else rates[product] for rates in kept[n]) / 1e9

    return {PEAK.format(product, n): lambda n=n, product=product: run(product, n)
            for n in dict.fromkeys((1, jobs)) for product in ("fastest", "a @ b")}


def product_rate(device):
    return product_rates(device)


# ---- many classifiers on a GPU --------------------------------------------------------------------------

def gpu(options, figures):
    """Train one classifier at a time and --ensemble of them together on a GPU, in turn; adds the rates to `figures`."""
    training, validation = random_faces(options.images, size=options.size), random_faces(12, size=options.size)
    steps = options.images // BATCH_SIZE
    shared = {"batch_size": BATCH_SIZE, "steps_per_epoch": steps, "max_epochs": 1, "device": "cuda"}

    def alone(precision):
        return steps * BATCH_SIZE / classifier.train(training, validation, seed=0, precision=precision,
                                                     **shared).seconds

    def together(precision):
        results = ensemble.train([training] * options.ensemble, validation, seeds=range(options.ensemble),
                                 precision=precision, **shared)
        return steps * BATCH_SIZE / results[0].seconds

    kinds = [(precision, n, run) for precision in options.precision
             for n, run in ((1, alone), (options.ensemble, together))]
    names = [f"{torch.cuda.get_device_name()}, {precision}, classifiers at once: {n}" for precision, n, _ in kinds]
    found = take_turns({name: lambda run=run, precision=precision: run(precision)
                        for name, (precision, _, run) in zip(names, kinds, strict=True)}, options.repeats)
    figures |= found
    ratios = {name: [many / one for one, many in zip(found[alone], found[name], strict=True)]
              for name, alone in zip(names[1::2], names[::2], strict=True)}
    return "\n".join([table(found).to_string(index=False),
                      *(f"{name}: {spread(values, '.1f')} times one at a time" for name, values in ratios.items())])


# ---- Keras ----------------------------------------------------------------------------------------------

def keras(options, jobs, stack):
    """The same training in Keras: in one process with TensorFlow's own threads, and in one single-threaded per core.

    stack : ExitStack that ends the processes. Stops the program with one sentence when Keras cannot be used.
    """
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    groups = {"Keras, all cores in one process": [start_keras(options, stack, {})]}
    if jobs > 1:
        groups[f"Keras, processes: {jobs}"] = [start_keras(options, stack, one_thread) for _ in range(jobs)]
    print(*{answer(process) for group in groups.values() for process in group}, flush=True)
    kinds = [(POLICIES[precision], compilation) for precision in options.precision for compilation in ("graph", "xla")]
    return {f"{name} ({', '.join(kind)})": lambda group=group, kind=kind: run_keras(group, " ".join(kind), options)
            for name, group in groups.items() for kind in kinds}


def start_keras(options, stack, environment):
    command = [options.keras, str(Path(__file__).with_name("classifier_keras.py")), str(options.size),
               str(options.images)]
    errors = stack.enter_context(tempfile.TemporaryFile("w+"))
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                                   text=True, env=os.environ | environment)
    except OSError as error:
        raise SystemExit(f"{options.keras} cannot be started ({error}): "
                         "give the Python of an environment with Keras.") from None
    process.errors = errors
    stack.callback(process.wait)
    stack.callback(process.stdin.close)
    return process


def answer(process):
    """The next answer of a Keras process."""
    line = process.stdout.readline()
    if not line:
        process.errors.seek(0)
        reason = (process.errors.read().strip().splitlines() or ["it ended without a word"])[-1]
        raise SystemExit(f"Keras cannot be measured ({reason}): give a Python with `pip install keras tensorflow-cpu`.")
    return json.loads(line)


def run_keras(group, kind, options):
    """Images per second of an epoch in every process of a group at once."""
    for process in group:
        process.stdin.write(kind + "\n")
        process.stdin.flush()
    return rate(options.images, [answer(process) for process in group])


if __name__ == "__main__":
    main()
