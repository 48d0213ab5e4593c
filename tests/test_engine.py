"""Where work runs: recording for GPUs."""

import pytest
import torch

from fer_lib import engine


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
