"""How the GANs' weights are changed: Adam, or Muon for the weights of convolutions."""

import torch

from fer_lib.errors import FerError

SMALLEST = 16  # rows and columns that a weight must have for Muon, see `muon`
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Newton and Schulz' iteration: five take singular values near to 1


def adam(network, *, lr, betas, interval=None):
    """Adam over a network's parameters; for a lazily regularised one, lr and betas are corrected.

    Source: Karras et al. 2020, appendix B: c = interval / (interval + 1), lr * c, betas ** c.
    """
    return _adam(list(network.parameters()), *_lazy(lr, betas, interval))


def muon(network, *, lr, betas, interval=None):
    """Muon over the weights of a network's convolutions, Adam, with `betas`, over its other parameters;
    one rate for both. interval : as in `adam`.

    A weight of fewer than SMALLEST output channels, or inputs to each, is left to Adam.
    """
    lr, betas = _lazy(lr, betas, interval)
    parameters = list(network.parameters())
    wide = [weight.ndim == 4 and min(len(weight), weight[0].numel()) >= SMALLEST for weight in parameters]
    if not any(wide):
        return _adam(parameters, lr, betas)
    return Together(Muon([weight for weight, chosen in zip(parameters, wide) if chosen],
                         lr=_rate(lr, parameters[0].device)),
                    _adam([weight for weight, chosen in zip(parameters, wide) if not chosen], lr, betas))


OPTIMISERS = {"adam": adam, "muon": muon}
"""What may change the networks of a GAN: name -> function of a network, lr, betas and interval."""


def chosen_optimiser(name):
    """The function in OPTIMISERS that is called `name`. Raises FerError for another name."""
    if name not in OPTIMISERS:
        raise FerError(f"The optimiser {name!r} is unknown: use {' or '.join(OPTIMISERS)}.")
    return OPTIMISERS[name]


class Muon(torch.optim.Optimizer):
    """Steps along the momentum after its singular values were made 1, so that no direction of a weight is neglected.

    parameters : weights of convolutions, [out, in, height, width], each taken as a matrix [out, in * height * width].
    lr : the size of a step is 0.2 of it for each entry in the mean square, as that of Adam is.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
    (kellerjordan.github.io/posts/muon); size of a step: Liu et al. 2025 (arXiv 2502.16982), section 2.2.
    torch.optim.Muon takes matrices alone, and iterates in bfloat16, which not every processor has.
    """

    def __init__(self, parameters, *, lr, momentum=0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(state["momentum"], group["momentum"])  # Nesterov's
                step = orthogonal(ahead.flatten(1))
                weight.sub_(step.view(weight.shape) * (0.2 * max(step.shape) ** 0.5 * group["lr"]))


def orthogonal(matrix, *, iterations=5):
    """The matrix [m, n] with its singular values brought near to 1 (0.7 to 1.2), by Newton and Schulz' iteration."""
    a, b, c = COEFFICIENTS
    x = matrix.T if len(matrix) > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-12)
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + torch.addmm(b * square, square, square, alpha=c) @ x
    return x.T if len(matrix) > matrix.shape[1] else x


class Together:
    """Two optimisers that are used like one."""

    def __init__(self, *parts):
        self.parts = parts

    @property
    def param_groups(self):
        return [group for part in self.parts for group in part.param_groups]

    def step(self):
        for part in self.parts:
            part.step()

    def state_dict(self):
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}


def resume_optimiser(optimiser, saved):
    """Load the state of an optimiser that `adam` or `muon` made, perhaps for another kind of device."""
    if isinstance(optimiser, Together):
        for number, part in enumerate(optimiser.parts):
            resume_optimiser(part, saved[str(number)])
        return
    for old, new in zip(saved["param_groups"], optimiser.param_groups, strict=True):
        old |= {name: new[name] for name in ("lr", "fused", "capturable") if name in new}
    optimiser.load_state_dict(saved)
    for parameter, moments in optimiser.state.items():  # in the parameter's layout, which a fused optimiser expects
        for name in {"exp_avg", "exp_avg_sq", "momentum"} & moments.keys():
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


def set_rate(optimiser, lr):
    """Set the learning rate of an optimiser that `adam` or `muon` made."""
    for group in optimiser.param_groups:
        if torch.is_tensor(group["lr"]):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def update(optimiser, loss, network):
    """One optimiser step on `loss` for the parameters of `network`; returns the loss, detached.

    Raises FerError on a CPU when the loss is not finite, of which grid_sample's gradient would kill the process; on a
    GPU it is found when the losses are looked at, see training.loop.
    """
    if loss.device.type == "cpu" and not loss.isfinite():
        raise diverged(loss.item())
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients):
        if gradient is not None and gradient.stride() != parameter.stride():
            gradient = torch.empty_like(parameter).copy_(gradient)  # the fused optimiser wants both in one layout
        parameter.grad = gradient
    optimiser.step()
    return loss.detach()


def diverged(loss, name="its loss"):
    """The FerError of a training that got lost."""
    return FerError(f"The GAN's training diverged ({name} is {loss}): train it with a lower learning rate "
                    "(identity_lr, critic_lr, expression_lr), or another seed.")


@torch.no_grad()
def follow(average, network, *, keep):
    """Move the parameters of `average` towards those of `network`: average = keep * average + (1 - keep) * network."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
    for old, new in zip(average.buffers(), network.buffers()):
        old.copy_(new)


def _adam(parameters, lr, betas):
    device = parameters[0].device
    capturable = ({"capturable": True}  # everything that changes stays there, see engine.recorded
                  if device.type == "cuda" else {})
    return torch.optim.Adam(parameters, lr=_rate(lr, device), betas=betas, eps=1e-8, fused=True, **capturable)


def _lazy(lr, betas, interval):
    """lr and betas of a network whose penalty comes every `interval`-th update, or never; see `adam`."""
    c = interval / (interval + 1) if interval else 1
    return lr * c, tuple(beta**c for beta in betas)


def _rate(lr, device):
    return torch.tensor(lr, device=device) if device.type == "cuda" else lr
