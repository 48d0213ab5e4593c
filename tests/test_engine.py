"""Where work runs, in which precision, and recording for GPUs."""

import pytest
import torch

from fer_lib import engine
from fer_lib.errors import FerError


@pytest.mark.parametrize("there", [True, False])
def test_bfloat16_is_used_where_the_processor_has_it(monkeypatch, there):
    monkeypatch.setattr(engine, "has_bfloat16", lambda kind: there)
    with engine.in_precision("bfloat16", torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if there else torch.float32)


def test_the_fastest_convolutions_are_sought_with_cudnn_and_only_inside():
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark
    with engine.fastest_convolutions():
        assert cudnn.enabled and cudnn.benchmark
    assert (cudnn.enabled, cudnn.benchmark) == before


@pytest.mark.parametrize("value", ["0", "-2", "many"])
def test_a_number_of_processes_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("FER_JOBS", value)
    with pytest.raises(FerError, match="FER_JOBS"):
        engine.job_count()
    assert engine.job_count(3) == 3


def test_on_a_cpu_nothing_is_recorded():
    def function(x):
        return x + 1

    assert engine.recorded(function, torch.device("cpu")) is function


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_recorded_function_does_what_the_function_does():
    total = torch.zeros(3, device="cuda")

    def function(x):
        total.add_(x)
        return {"total": total * 2, "drawn": torch.rand(4, device="cuda")}

    recorded, draws = engine.recorded(function, torch.device("cuda")), []
    for number in range(1, 8):
        torch.manual_seed(number % 2)
        result = recorded(torch.full([3], float(number), device="cuda"))
        assert result["total"].tolist() == [number * (number + 1.0)] * 3
        draws.append(result["drawn"].tolist())
    assert draws[-1] == draws[-3] != draws[-2]
