"""Where work runs: the device of a network, and the processes of a parallel loop."""

import ctypes
import os
import warnings
from functools import lru_cache

import joblib
import torch

from fer_lib.errors import FerError


def device(name="auto"):
    """The torch device called `name`: "auto" (the first NVIDIA GPU, or else the CPU), "cpu" or "cuda".

    Raises FerError for another name, and for "cuda" on a machine without a usable GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise FerError(f"The device {name!r} is unknown: use auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise FerError("No NVIDIA GPU can be used on this machine: set device to auto or cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@lru_cache
def has_bfloat16(kind):
    """Whether a device of a type, "cpu" or "cuda", computes in bfloat16 itself; emulated, it is slower than float32."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def check_precision(precision):
    """Raise FerError for a precision that `in_precision` does not know."""
    if precision not in ("float32", "bfloat16"):
        raise FerError(f"The precision {precision!r} is unknown: use float32 or bfloat16.")


def in_precision(precision, device):
    """A context in which convolutions and matrix products on `device` are computed in "float32" or "bfloat16".

    Where the device has no bfloat16 of its own, float32 takes its place: emulated, it would take three times as long.
    """
    check_precision(precision)
    wanted = precision == "bfloat16" and has_bfloat16(device.type)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


def fastest_convolutions():
    """A context in which a GPU tries which way of convolving is the fastest; their sums differ in the last digits."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False,
                                      allow_tf32=torch.backends.cudnn.allow_tf32)


def sent(tensor, device):
    """A tensor of this machine's memory on `device`; on its way to a GPU nobody waits for it, nor for what the GPU had
    to do before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def keep_memory():
    """Let glibc keep freed memory instead of returning it to the system, in this process.

    Training on the CPU frees and asks for the same megabytes at every step; handing them back makes the
    system clear them anew each time. Does nothing elsewhere than on Linux with glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(-3, 2**25)  # M_MMAP_THRESHOLD of <malloc.h>, the largest value it takes
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def recorded(function, device):
    """`function` of tensors; on a GPU it is recorded as a CUDA graph and then replayed, so that small operations follow
    each other without waiting for Python.

    function : positional arguments, all tensors on `device`, and each time of the same shapes; all else it uses must
    stay where it is in memory. It may update networks and draw random numbers on the device, but not look at values or
    move data to or from the CPU. Its result (tensors in tuples, lists or dicts) is overwritten by the next call on a
    GPU.
    Source: Gray, "Getting Started with CUDA Graphs", NVIDIA 2019.
    """
    return _Recorded(function) if device.type == "cuda" else function


class _Recorded:
    """See `recorded`. The first calls are carried out as they are,
    so that all lasting memory is there when it records."""

    def __init__(self, function, *, warm_up=3):
        self.function, self.left, self.graph = function, warm_up, None

    def __call__(self, *inputs):
        if self.graph is None:
            with warnings.catch_warnings():  # the weights were made on the default stream, which does no harm
                warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
                if self.left:
                    self.left -= 1
                    return self._aside(inputs)
                self._record(inputs)
        for kept, tensor in zip(self.inputs, inputs, strict=True):
            kept.copy_(tensor)
        self.graph.replay()
        return self.result

    def _record(self, inputs):
        self.inputs, graph = [tensor.clone() for tensor in inputs], torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.result = self.function(*self.inputs)
        self.graph = graph

    def _aside(self, inputs):
        """On another stream than the default, as when it records."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return result


def job_count(jobs=None):
    """Number of worker processes: `jobs`, or the environment's FER_JOBS, or one per usable core."""
    given = os.environ.get("FER_JOBS")
    if not jobs and given and not (given.isdigit() and int(given)):
        raise FerError(f"FER_JOBS is {given!r}: set it to the number of processes, 1 or more.")
    return int(jobs or given or joblib.cpu_count())


def map(function, tasks, *, jobs=None, progress=None):
    """Call `function` on every task, in single-threaded processes, and yield results as they finish.

    Several single-threaded processes use a small machine better than one process with many threads,
    and their sums do not depend on the number of cores.

    function : importable from a module; called as function(task).
    tasks : sequence of picklable values.
    jobs : int, worker processes (default: see `job_count`); with 1 the work stays in this process.
    progress : called as progress(done, total) after each result.
    Yields (index, result), in the order in which tasks finish.
    """
    tasks = list(tasks)
    jobs = min(job_count(jobs), max(len(tasks), 1))
    calls = (joblib.delayed(_indexed)(function, index, task) for index, task in enumerate(tasks))
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1) if jobs > 1 else _one_thread():
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        for done, (index, result) in enumerate(parallel(calls), start=1):
            if progress:
                progress(done, len(tasks))
            yield index, result


def _indexed(function, index, task):
    torch.set_num_threads(1)
    return index, function(task)


class _one_thread:
    """Restores this process's thread count after work that ran in it with one thread."""

    def __enter__(self):
        self.threads = torch.get_num_threads()

    def __exit__(self, *_):
        torch.set_num_threads(self.threads)
