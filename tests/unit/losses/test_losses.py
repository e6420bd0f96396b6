"""Losses against scipy and hand sums; weights are applied once, in the total."""

import numpy as np
import pytest
import torch
from scipy import stats

from fitspike.errors import InvalidInputError, PluginError
from fitspike.losses.base import LossContext
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.losses.priors import L1, L2, Group, Smoothness
from fitspike.losses.total import check_losses, weighted_terms
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.srm import SRM
from fitspike.params import initial_params, to_tensors
from fitspike.recording.recording import Recording
from fitspike.rng import Stream


@pytest.fixture
def context():
    rng = np.random.default_rng(0)
    binned = Recording.from_counts([rng.poisson(0.2, (n, 3)) for n in (20, 35)], dt_ms=1.0).bin()
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=()), emission="poisson", n_coupling=2)
    params = to_tensors(initial_params(model.param_specs(binned.info()), Stream(0, "init")))
    return LossContext(model, params, next(binned.chunks(35, batch_trials=2)), binned.info(), Stream(0, "x"))


def test_nll_is_scipys_per_scored_spike_bin_with_ragged_trials(context):
    context.params["coupling"] *= 0
    value = NegativeLogLikelihood()(context)["nll"]
    counts, mask = context.chunk.dense_numpy("float64"), context.chunk.mask_numpy
    expected = -stats.poisson(np.exp(context.params["bias"].numpy())).logpmf(counts)[mask].mean()
    assert mask.sum() == 55
    np.testing.assert_allclose(value.item(), expected, rtol=1e-12)
    assert context.new_carry is not None


def test_nll_of_a_chunk_without_scored_bins_is_zero(context):
    context.chunk.mask[:] = False
    context.chunk.mask_numpy[:] = False
    assert NegativeLogLikelihood()(context)["nll"].item() == 0.0


def test_priors_are_log_densities_per_spike_bin(context):
    weight = torch.tensor(np.random.default_rng(1).normal(size=(3, 3, 2)))
    context.params["coupling"] = weight
    w, n_spike_bins = weight.numpy(), 55 * 3
    # a normal prior of precision s and a Laplace prior of rate s, up to the density at 0
    normal = (stats.norm(scale=2.0**-0.5).logpdf(0.0) - stats.norm(scale=2.0**-0.5).logpdf(w)).sum()
    laplace = (stats.laplace(scale=0.5).logpdf(0.0) - stats.laplace(scale=0.5).logpdf(w)).sum()
    np.testing.assert_allclose(L2(scale=2.0)(context)["l2"].item() * n_spike_bins, normal, rtol=1e-12)
    np.testing.assert_allclose(L1(scale=2.0)(context)["l1"].item() * n_spike_bins, laplace, rtol=1e-12)
    groups = sum(np.linalg.norm(w[i, j]) for i in range(3) for j in range(3))
    np.testing.assert_allclose(Group()(context)["group"].item() * n_spike_bins, groups, rtol=1e-12)


def test_smoothness_is_zero_for_straight_filters_and_half_the_square_of_a_kink(context):
    straight = torch.arange(5.0, dtype=torch.float64).expand(3, 3, 5).clone()
    context.params["coupling"] = straight
    assert Smoothness()(context)["smoothness"].item() == 0.0
    straight[1, 2] = torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0])  # second differences 3, -6, 3
    np.testing.assert_allclose(Smoothness()(context)["smoothness"].item() * 165, 0.5 * (9 + 36 + 9), rtol=1e-12)


def test_group_penalty_has_a_finite_gradient_at_zero(context):
    weight = torch.zeros(3, 3, 2, dtype=torch.float64)
    weight[0, 1] = torch.tensor([3.0, 4.0])
    context.params["coupling"] = weight.requires_grad_()
    (gradient,) = torch.autograd.grad(Group()(context)["group"], weight)
    expected = np.zeros((3, 3, 2))
    expected[0, 1] = [0.6, 0.8]
    np.testing.assert_allclose(gradient.numpy() * 165, expected, atol=1e-12)


def test_priors_act_on_named_parameters(context):
    np.testing.assert_allclose(L1(parameters=("bias",))(context)["l1"].item() * 165, context.params["bias"].abs().sum().item())
    with pytest.raises(InvalidInputError, match="did you mean 'coupling'"):
        L1(parameters=("couplings",))(context)


def test_total_is_the_weighted_sum_of_unweighted_terms(context):
    losses = {"nll": (NegativeLogLikelihood(), 1.0), "l2": (L2(scale=3.0), 0.25)}
    terms, metrics = weighted_terms(losses, context)
    total = sum(terms.values())
    separate = NegativeLogLikelihood()(context)["nll"] + 0.25 * L2(scale=3.0)(context)["l2"]
    torch.testing.assert_close(total, separate)
    assert metrics["loss"] == total.item() and metrics["l2"] == L2(scale=3.0)(context)["l2"].item()


def test_wrong_losses_are_refused(context):
    class Vector:
        name, needs = "vector", frozenset({"chunk"})

        def __call__(self, context):
            return {"vector": torch.zeros(3)}

    class Greedy:
        name, needs = "greedy", frozenset({"future"})

    with pytest.raises(InvalidInputError, match="no loss"):
        check_losses({})
    with pytest.raises(InvalidInputError, match="weight nan"):
        check_losses({"nll": (NegativeLogLikelihood(), float("nan"))})
    with pytest.raises(PluginError, match="needs future"):
        check_losses({"greedy": (Greedy(), 1.0)})
    with pytest.raises(PluginError, match=r"shape \(3,\)"):
        weighted_terms({"vector": (Vector(), 1.0)}, context)
