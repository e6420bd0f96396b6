"""Compiled rollout and traces against the torch reference: equal spikes, equal gradients, at awkward sizes."""

import numpy as np
import pytest
import torch

from fitspike.kernels.linear_rollout import LinearCarry, LinearCoupling, LinearNeuron, Sampling, linear_rollout
from fitspike.kernels.spike_trace import spike_trace

N_COMPONENTS = 3
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # relative to the largest entry of a gradient


def problem(
    n_trials, n_bins, n_neurons, dtype, *, reset="none", n_lags=2, n_filters=1, n_delay=2, n_refractory=0, kind="threshold", bias=0.0
):
    """Return everything a rollout takes, of a fixed seed, weights scaled so that activity stays between silence and saturation."""
    rng = np.random.default_rng(n_bins + 10 * n_neurons)

    def random(*shape, scale=1.0, shift=0.0):
        return torch.as_tensor(rng.normal(shift, scale, shape), dtype=dtype)

    each = (N_COMPONENTS, n_neurons)
    neuron = LinearNeuron(
        decay=torch.as_tensor(rng.uniform(0.3, 0.9, each), dtype=dtype),
        gain=random(*each, scale=0.5),
        jump=random(*each, scale=0.3, shift=-0.3),
        readout=random(*each, scale=0.5),
        bias=random(n_neurons, scale=0.3, shift=bias),
        reset_value=random(*each, scale=0.2),
        reset=reset,
        is_reset=(True, False, True),
        n_refractory=n_refractory,
        never_drive=-30.0,
    )
    weight = (n_neurons * 3) ** -0.5
    coupling = LinearCoupling(
        random(n_lags, n_neurons, n_neurons, scale=weight, shift=-0.5 * weight),
        random(n_filters, n_neurons, n_neurons, scale=weight, shift=-0.5 * weight),
        torch.as_tensor(np.linspace(0.5, 0.8, n_filters), dtype=dtype),
        n_delay,
    )
    carry = LinearCarry(
        random(n_trials, *each),
        torch.as_tensor(rng.integers(0, n_refractory + 1, (n_trials, n_neurons)) * 1.0, dtype=dtype),
        torch.as_tensor((rng.random((n_trials, n_neurons)) < 0.3) * 1.0, dtype=dtype),
        torch.as_tensor((rng.random((n_trials, n_delay - 1 + n_lags, n_neurons)) < 0.3) * 1.0, dtype=dtype),
        torch.as_tensor(rng.random((n_trials, n_neurons, n_filters)), dtype=dtype),
    )
    uniforms = torch.as_tensor(rng.random((n_trials, n_bins, n_neurons)))
    values = torch.logit(uniforms) if kind == "threshold" else uniforms
    sampling = Sampling(kind, values, lambda drive: torch.sigmoid(drive) * (1 - torch.sigmoid(drive)))
    current = random(n_trials, n_bins, n_neurons, scale=0.5)
    given = [random(n_trials, n_bins, n_neurons) for _ in range(2)]
    return neuron, coupling, carry, sampling, current, given


def run(backend, neuron, coupling, carry, sampling, current, given, *, observed=None, observed_mask=None):
    """Return spikes, drive, carry and the gradients of a random linear function of spikes and drive."""
    names = ("decay", "gain", "jump", "readout", "bias", "reset_value")
    leaves = [getattr(neuron, name).clone().requires_grad_() for name in names]
    neuron = neuron._replace(**dict(zip(names, leaves, strict=True)))
    leaves.append(current.clone().requires_grad_())
    if coupling is not None:
        weights = [coupling.lag_weight.clone().requires_grad_(), coupling.trace_weight.clone().requires_grad_()]
        coupling = coupling._replace(lag_weight=weights[0], trace_weight=weights[1])
        leaves += weights
    how = {"coupling": coupling, "sampling": sampling, "observed": observed, "observed_mask": observed_mask}
    torch.utils.deterministic.fill_uninitialized_memory = True
    spikes, drive, new = linear_rollout(neuron, leaves[6], carry, backend=backend, **how)
    total = (drive * given[0]).sum() + (spikes * given[1]).sum() + 0.0 * leaves[0].sum()  # with no bins nothing depends on them
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return spikes.detach(), drive.detach(), new, [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]


def assert_same(ours, theirs, dtype):
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 10)
    for a, b in zip(ours[2], theirs[2], strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 10)
    for a, b in zip(ours[3], theirs[3], strict=True):
        assert a.shape == b.shape
        if b.numel():
            assert (a - b).abs().max() <= TOLERANCE[dtype] * max(1.0, b.abs().max())


@pytest.mark.parametrize("n_neurons", [1, 7, 200])
@pytest.mark.parametrize("n_bins", [0, 1, 63, 1000])
def test_free_runs_are_equal_at_awkward_sizes(n_bins, n_neurons):
    if n_bins * n_neurons == 200000:
        n_bins = 250  # the reference would take most of a second per run
    parts = problem(2, n_bins, n_neurons, torch.float64)
    ours, theirs = run("numba", *parts), run("reference", *parts)
    if n_bins >= 63 and n_neurons >= 7:
        assert 0.02 < theirs[0].mean() < 0.98
    assert_same(ours, theirs, torch.float64)


@pytest.mark.parametrize("reset", ["none", "subtract", "to_value"])
@pytest.mark.parametrize("kind", ["threshold", "poisson"])
@pytest.mark.parametrize("mask", [None, "some", "all"])
def test_resets_emissions_and_clamping(reset, kind, mask):
    parts = problem(3, 80, 5, torch.float64, reset=reset, kind=kind, n_refractory=2, bias=-1.0)
    observed = torch.as_tensor(np.random.default_rng(0).poisson(0.3, (3, 80, 5)) * 1.0)
    how = {
        "observed": observed if mask else None,
        "observed_mask": torch.tensor([True, False, True, False, False]) if mask == "some" else None,
    }
    assert_same(run("numba", *parts, **how), run("reference", *parts, **how), torch.float64)


@pytest.mark.parametrize("n_lags, n_filters, n_delay", [(0, 2, 1), (0, 1, 5), (4, 0, 1), (1, 0, 3), (3, 2, 2)])
def test_couplings(n_lags, n_filters, n_delay):
    parts = problem(2, 40, 6, torch.float64, n_lags=n_lags, n_filters=n_filters, n_delay=n_delay)
    assert_same(run("numba", *parts), run("reference", *parts), torch.float64)


def test_counts_that_saturate_are_equal():
    """Feedback that would send counts beyond all bounds: half of the bins at the ceiling of e^1.5."""
    neuron, coupling, carry, sampling, current, given = problem(3, 60, 5, torch.float64, kind="poisson", bias=0.5)
    sampling = sampling._replace(log_ceiling=1.5)
    coupling = coupling._replace(lag_weight=coupling.lag_weight.abs(), trace_weight=coupling.trace_weight.abs())
    ours, theirs = (run(backend, neuron, coupling, carry, sampling, current, given) for backend in ("numba", "reference"))
    assert 0.3 < (theirs[1] > 1.5).double().mean() and theirs[0].max() < 20
    assert_same(ours, theirs, torch.float64)


def test_without_coupling():
    neuron, _, carry, sampling, current, given = problem(2, 40, 6, torch.float64, n_lags=0, n_filters=0, n_delay=1)
    parts = (neuron, None, carry, sampling, current, given)
    assert_same(run("numba", *parts), run("reference", *parts), torch.float64)


@pytest.mark.parametrize("bias, rate", [(-60.0, 0.0), (60.0, 1.0)])
def test_no_spikes_and_all_spikes(bias, rate):
    parts = problem(2, 50, 7, torch.float64, bias=bias)
    parts[0].gain.zero_()
    parts[0].jump.zero_()
    ours, theirs = run("numba", *parts), run("reference", *parts)
    assert theirs[0].mean() == rate
    assert_same(ours, theirs, torch.float64)


def test_no_trials():
    parts = problem(0, 20, 4, torch.float64)
    assert_same(run("numba", *parts), run("reference", *parts), torch.float64)


@pytest.mark.parametrize("n_neurons, n_bins", [(1, 63), (7, 1000), (200, 60)])
def test_float32_gradients_given_the_same_spikes(n_neurons, n_bins):
    parts = problem(2, n_bins, n_neurons, torch.float32)
    spikes = run("reference", *parts)[0]
    # thresholds far on the right side of the drive, so that rounding cannot change a spike
    parts = (*parts[:3], parts[3]._replace(values=torch.where(spikes > 0, -1e3, 1e3).double()), *parts[4:])
    assert_same(run("numba", *parts), run("reference", *parts), torch.float32)


def test_a_run_in_chunks_equals_the_whole_run():
    neuron, coupling, carry, sampling, current, _ = problem(2, 90, 6, torch.float64, reset="to_value", n_refractory=2)
    whole, _, last = linear_rollout(neuron, current, carry, coupling=coupling, sampling=sampling, backend="numba")
    parts, state = [], carry
    for first in range(0, 90, 40):
        part = slice(first, first + 40)
        spikes, _, state = linear_rollout(
            neuron, current[:, part], state, coupling=coupling, sampling=sampling._replace(values=sampling.values[:, part]), backend="numba"
        )
        parts.append(spikes)
    assert torch.equal(torch.cat(parts, 1), whole)
    for ours, theirs in zip(state, last, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_runaway_poisson_rates_are_left_to_the_reference():
    parts = problem(1, 6, 3, torch.float64, kind="poisson", bias=9.0)
    parts[0].jump.zero_()
    ours, theirs = run("numba", *parts), run("reference", *parts)
    assert theirs[0].max() > 500
    assert_same(ours, theirs, torch.float64)


@pytest.mark.parametrize("n_bins, n_neurons", [(0, 3), (1, 1), (63, 7), (1000, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_spike_traces_and_their_gradients(n_bins, n_neurons, dtype):
    rng = np.random.default_rng(0)
    spikes = torch.as_tensor(rng.poisson(0.3, (2, n_bins, n_neurons)), dtype=dtype)
    initial = torch.as_tensor(rng.random((2, n_neurons, 2)), dtype=dtype)
    given = torch.as_tensor(rng.normal(size=(2, n_bins, n_neurons, 2)), dtype=dtype)
    for decay in (torch.tensor([0.5, 0.9], dtype=dtype), torch.as_tensor(rng.uniform(0.1, 0.9, (n_neurons, 2)), dtype=dtype)):
        results = []
        for backend in ("numba", "reference"):
            leaves = [x.clone().requires_grad_() for x in (spikes, decay, initial)]
            trace = spike_trace(*leaves, backend=backend)
            results.append((trace.detach(), *torch.autograd.grad((trace * given).sum() + 0.0 * sum(x.sum() for x in leaves), leaves)))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 30)


def test_spike_trace_by_hand():
    spikes = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0], dtype=torch.float64).reshape(1, 5, 1)
    trace = spike_trace(spikes, torch.tensor([0.5], dtype=torch.float64), torch.full((1, 1, 1), 8.0, dtype=torch.float64))
    assert trace.flatten().tolist() == [4.0, 3.0, 1.5, 2.75, 1.375]
