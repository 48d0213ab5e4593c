"""Laws of the optimisers: Muon treats all directions of a weight alike, and state goes on where it was."""

import pytest
import torch
from torch import nn

from fer_lib import optimisers
from fer_lib.errors import FerError


def test_lazy_regularisation_corrects_the_optimiser():
    optimiser = optimisers.adam(torch.nn.Linear(1, 1), lr=0.01, betas=(0.0, 0.99), interval=16)
    assert optimiser.defaults["lr"] == pytest.approx(0.01 * 16 / 17)
    assert optimiser.defaults["betas"][1] == pytest.approx(0.99 ** (16 / 17))


def test_an_optimiser_goes_on_in_the_way_of_the_device_that_it_is_on():
    network = torch.nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
    optimiser = optimisers.adam(network, lr=0.1, betas=(0.5, 0.9))
    optimisers.update(optimiser, network(torch.ones(1, 2, 5, 5)).sum(), network)
    saved = optimiser.state_dict()
    elsewhere = {"state": {number: {name: value.contiguous() for name, value in moments.items()}
                           for number, moments in saved["state"].items()},
                 "param_groups": [group | {"lr": torch.tensor(0.3), "fused": True, "capturable": True}
                                  for group in saved["param_groups"]]}
    resumed = optimisers.adam(network, lr=0.1, betas=(0.5, 0.9))
    optimisers.resume_optimiser(resumed, elsewhere)
    assert resumed.param_groups == optimiser.param_groups
    for parameter in network.parameters():
        for name in ("exp_avg", "exp_avg_sq"):
            mine, other = (each.state[parameter][name] for each in (resumed, optimiser))
            assert torch.equal(mine, other) and mine.stride() == parameter.stride()


def test_a_matrix_is_made_orthogonal_and_keeps_its_directions():
    torch.manual_seed(0)
    for shape in ((16, 144), (64, 32)):
        matrix = torch.randn(shape)
        made = optimisers.orthogonal(matrix)
        left, values, right = torch.linalg.svd(made, full_matrices=False)
        assert made.shape == shape and values.min() > 0.6 and values.max() < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        assert (left @ right - u @ v).abs().max() < 0.01  # the nearest orthogonal matrix is the same
        assert torch.allclose(optimisers.orthogonal(matrix * 1000), made, atol=1e-4)


def test_muon_takes_the_wide_convolutions_and_adam_the_rest():
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 2, 3), nn.Conv2d(16, 16, 1), nn.Linear(32, 32))
    wide, rest = ([tuple(weight.shape) for weight in part.param_groups[0]["params"]]
                  for part in optimisers.muon(network, lr=0.1, betas=(0.9, 0.99)).parts)
    assert wide == [(16, 3, 3, 3), (16, 16, 1, 1)] and len(rest) == 6


def test_a_network_too_narrow_for_muon_learns_with_adam():
    network = nn.Conv2d(3, 8, 3)
    optimiser = optimisers.muon(network, lr=0.1, betas=(0.0, 0.99))
    optimisers.update(optimiser, network(torch.ones(1, 3, 4, 4)).sum(), network)
    assert isinstance(optimiser, torch.optim.Adam) and len(optimiser.state) == 2


def test_the_rates_of_a_lazily_regularised_network_are_corrected_with_every_optimiser():
    network = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Linear(2, 2))
    for name in optimisers.OPTIMISERS:
        made = optimisers.chosen_optimiser(name)(network, lr=0.8, betas=(0.0, 0.5), interval=3)
        assert [group["lr"] for group in made.param_groups] == pytest.approx([0.6] * len(made.param_groups))
        assert made.param_groups[-1]["betas"] == (0.0, pytest.approx(0.5**0.75))


def test_an_unknown_optimiser_is_named():
    with pytest.raises(FerError, match="optimiser 'sgd' is unknown: use adam or muon"):
        optimisers.chosen_optimiser("sgd")


def test_a_step_of_muon_is_as_long_as_the_rate_says_whatever_the_loss_is_multiplied_with():
    def moved(factor):
        torch.manual_seed(0)
        layer = nn.Conv2d(32, 32, 3, bias=False).to(memory_format=torch.channels_last)
        before, optimiser = layer.weight.detach().clone(), optimisers.muon(
            nn.ModuleList([layer, nn.Linear(1, 1)]), lr=1.0, betas=(0.9, 0.99))
        optimisers.set_rate(optimiser, 0.01)
        optimisers.update(optimiser, factor * layer(torch.randn(4, 32, 8, 8)).pow(3).sum(), layer)
        return layer.weight.detach() - before

    assert moved(1).pow(2).mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.2)
    assert torch.allclose(moved(1), moved(1000), atol=1e-6)


def test_muon_finds_a_direction_that_the_gradient_hardly_shows():
    """Inputs of very different sizes: along the small ones gradient descent makes no way."""
    torch.manual_seed(0)
    sizes, goal = torch.logspace(0, -2, 16).view(1, 16, 1, 1), torch.randn(16, 16, 1, 1)
    layer = nn.Conv2d(16, 16, 1, bias=False)
    nn.init.zeros_(layer.weight)
    optimiser = optimisers.Muon(layer.parameters(), lr=0.5)
    for number in range(200):
        optimisers.set_rate(optimiser, 0.5 * (1 - number / 200))
        x = torch.randn(64, 16, 1, 1) * sizes
        optimisers.update(optimiser, (layer(x) - nn.functional.conv2d(x, goal)).pow(2).mean(), layer)
    assert (layer.weight - goal)[:, -4:].abs().mean() < 0.2 * goal[:, -4:].abs().mean()
