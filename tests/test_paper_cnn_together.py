"""The GPU's kernels for many of the paper's CNNs, by Triton's interpreter on the CPU."""

import json

import pytest
import torch
from conftest import command_line

from fer_lib import ensemble
from fer_lib.networks import paper_cnn_together

SCRIPT = """
import json
import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from fer_lib.networks import paper_cnn_together as together
from fer_lib.networks.paper_cnn import PaperCNN

together.DTYPE = torch.float32  # the interpreter has no bfloat16
together.STEPS = 1  # several parts of each weight's gradient
torch.set_num_threads(1)
torch.manual_seed(0)

def error(mine, other):
    return float((mine - other).detach().norm() / other.detach().norm())

def as_torch(x, weight, bias):
    x = F.conv2d(x.permute(0, 3, 1, 2), weight, bias)
    return F.relu(F.max_pool2d(x, 2)).permute(0, 2, 3, 1)

errors = {}
for shape, out in (((2, 3, 9, 12, 16), 32), ((3, 1, 8, 7, 32), 16), ((1, 5, 11, 11, 16), 64)):
    inputs = torch.randn(shape), torch.randn(shape[0], out, shape[4], 3, 3), torch.randn(shape[0], out)
    mine = [tensor.clone().requires_grad_() for tensor in inputs]
    other = [tensor.double().requires_grad_() for tensor in inputs]
    results = together.conv_pool_relu(*mine), torch.stack(list(map(as_torch, *other)))
    slope = torch.randn(results[0].shape)
    for result in results:
        result.backward(slope.to(result.dtype))
    errors[str(shape)] = max(error(*results), *(error(a.grad, b.grad) for a, b in zip(mine, other)))

models = [PaperCNN(image_size=33, channels=3) for _ in range(2)]
for model in models:
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.1)
states = stack_module_state(models)[0]
others = {name: state.detach().double().requires_grad_() for name, state in states.items()}
model = models[0].double().eval()  # where two maxima are nearly equal, float32 takes one or the other
images = torch.rand(2, 2, 3, 33, 33)
logits = together.forward(states, images, training=False)
expected = vmap(lambda state, images: functional_call(model, state, (images,)))(others, images.double())
for result in (logits, expected):
    F.cross_entropy(result.flatten(0, 1), torch.tensor([0, 1, 2, 3])).backward()
errors["logits"] = error(logits, expected)
errors |= {name: error(state.grad, others[name].grad) for name, state in states.items()}
print(json.dumps(errors))
"""


def test_results_and_gradients_are_those_of_torch():
    pytest.importorskip("triton", reason="the kernels are written in Triton, which this system has not")
    run = command_line("-c", SCRIPT, TRITON_INTERPRET=1)
    assert run.returncode == 0, run.stderr
    errors = json.loads(run.stdout.splitlines()[-1])
    assert len(errors) == 3 + 1 + 12 and max(errors.values()) < 1e-5, errors


def test_other_devices_and_precisions_have_the_general_way():
    assert not paper_cnn_together.usable(torch.device("cpu"), "bfloat16")
    assert not paper_cnn_together.usable(torch.device("cuda"), "float32")


def test_it_is_for_training_only(monkeypatch):
    monkeypatch.setattr(paper_cnn_together, "usable", lambda device, precision: True)
    monkeypatch.setattr(paper_cnn_together, "forward", lambda states, images: "together")
    models = [ensemble.PaperCNN(image_size=32) for _ in range(2)]
    forward = ensemble._mapped(models[0], torch.device("cpu"), "bfloat16")
    states, images = ensemble.stack_module_state(models)[0], torch.rand(2, 3, 1, 32, 32)
    assert forward(states, images) == "together"
    models[0].eval()
    assert forward(states, images).shape == (2, 3, 6)
