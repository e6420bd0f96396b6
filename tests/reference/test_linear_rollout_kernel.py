"""Compiled rollout and traces against the torch reference: equal spikes, equal gradients, at awkward sizes."""

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from fitspike.kernels.linear_rollout import LinearCarry, LinearCoupling, LinearNeuron, Sampling, linear_rollout
from fitspike.kernels.spike_trace import spike_trace
from fitspike.neurons.emissions import Bernoulli, Hazard, Poisson, kernel_sampling

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


NEURON = ("decay", "gain", "jump", "readout", "bias", "reset_value")
CARRY = ("state", "spikes", "past", "trace")


def leaves_of(neuron, coupling, carry, current):
    """Return copies of everything that has a gradient, by name."""
    given = {name: getattr(neuron, name) for name in NEURON} | {name: getattr(carry, name) for name in CARRY} | {"current": current}
    if coupling is not None:
        given |= {"lag_weight": coupling.lag_weight, "trace_weight": coupling.trace_weight}
    return {name: value.clone().requires_grad_() for name, value in given.items()}


def with_leaves(neuron, coupling, carry, leaves):
    """Return neuron, coupling and carry with the leaves in their places."""
    neuron = neuron._replace(**{name: leaves[name] for name in NEURON})
    if coupling is not None:
        coupling = coupling._replace(lag_weight=leaves["lag_weight"], trace_weight=leaves["trace_weight"])
    return neuron, coupling, carry._replace(**{name: leaves[name] for name in CARRY})


def weighted(spikes, drive, new, given):
    """Return a random linear function of all that a rollout gives."""
    total = (drive * given[0]).sum() + (spikes * given[1]).sum()
    for name, part in zip(CARRY, (new.state, new.spikes, new.past, new.trace), strict=True):
        weights = np.random.default_rng(len(name)).normal(size=tuple(part.shape))
        total = total + (part * torch.as_tensor(weights, dtype=part.dtype)).sum()
    return total


def run(backend, neuron, coupling, carry, sampling, current, given, *, observed=None, observed_mask=None):
    """Return spikes, drive, carry and the gradients of a random linear function of all three."""
    leaves = leaves_of(neuron, coupling, carry, current)
    neuron, coupling, carry = with_leaves(neuron, coupling, carry, leaves)
    how = {"coupling": coupling, "sampling": sampling, "observed": observed, "observed_mask": observed_mask}
    torch.utils.deterministic.fill_uninitialized_memory = True
    spikes, drive, new = linear_rollout(neuron, leaves["current"], carry, backend=backend, **how)
    total = weighted(spikes, drive, new, given) + 0.0 * leaves["decay"].sum()  # with no bins or trials nothing depends on them
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves.values(), gradients, strict=True)]
    return spikes.detach(), drive.detach(), LinearCarry(*(x.detach() for x in new)), found


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
    parts = problem(1 if n_bins * n_neurons == 200000 else 2, n_bins, n_neurons, torch.float64)
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


EMISSIONS = [
    Bernoulli(),
    Bernoulli(pseudo_derivative="triangle", dampening=0.3),
    Hazard(),
    Hazard(pseudo_derivative="triangle"),
    Poisson(),
    Poisson(pseudo_derivative="triangle", dampening=0.5),
]


@pytest.mark.parametrize("emission", EMISSIONS, ids=lambda e: f"{e.name}-{e.pseudo_derivative}")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_built_in_emissions_are_sampled_and_sloped_as_by_torch(emission, dtype):
    parts = problem(3, 60, 6, dtype, kind="poisson")  # uniforms
    sampling = kernel_sampling(emission, parts[3].values, 1000.0 if emission.name == "hazard" else 1.0)
    assert sampling.closed_slope is not None
    parts = (*parts[:3], sampling, *parts[4:])
    ours, theirs = run("numba", *parts), run("reference", *parts)
    assert 0.05 < theirs[0].mean() < 0.9
    assert_same(ours, theirs, dtype)


@pytest.mark.parametrize("emission", EMISSIONS[::2], ids=lambda e: e.name)
def test_single_precision_decides_spikes_to_a_millionth_of_the_probability(emission):
    neuron, coupling, carry, sampling, current, _ = problem(4, 1, 200, torch.float32)
    exact = [LinearNeuron(*(x.double() if isinstance(x, torch.Tensor) else x for x in neuron)), LinearCarry(*(x.double() for x in carry))]
    double = coupling._replace(
        **{name: getattr(coupling, name).double() for name in ("lag_weight", "trace_weight", "trace_decay")}
    )  # fmt: skip
    drive = linear_rollout(exact[0], current.double(), exact[1], coupling=double, sampling=sampling, backend="reference")[1]
    silent = torch.exp(-emission.expected(drive, 1.0)) if emission.name == "poisson" else 1.0 - emission.expected(drive, 1.0)
    probability = 1.0 - silent if emission.name != "poisson" else silent  # the uniform at which a first spike comes or goes
    distance = torch.as_tensor(np.random.default_rng(1).normal(size=drive.shape)) * 1e-6
    uniforms = (probability + distance).clamp(1e-9, 1 - 1e-9)
    is_decided = (distance.abs() > 1e-6) & (probability > 1e-5) & (probability < 1 - 1e-5)
    assert is_decided.sum() > 50
    spikes = linear_rollout(neuron, current, carry, coupling=coupling, sampling=kernel_sampling(emission, uniforms, 1.0), backend="numba")[
        0
    ]
    is_spike = distance > 0 if emission.name == "poisson" else distance < 0
    assert torch.equal(spikes[is_decided] > 0, is_spike[is_decided])


def test_any_gradient_alone_is_that_of_all_together():
    neuron, coupling, carry, sampling, current, given = problem(2, 30, 5, torch.float64, reset="to_value", n_refractory=1)
    all_of_them = dict(
        zip(leaves_of(neuron, coupling, carry, current), run("numba", neuron, coupling, carry, sampling, current, given)[3], strict=True)
    )
    for name, expected in all_of_them.items():
        leaves = {key: leaf if key == name else leaf.detach() for key, leaf in leaves_of(neuron, coupling, carry, current).items()}
        one, two, three = with_leaves(neuron, coupling, carry, leaves)
        found = linear_rollout(one, leaves["current"], three, coupling=two, sampling=sampling, backend="numba")
        (gradient,) = torch.autograd.grad(weighted(*found, given), [leaves[name]])
        assert torch.equal(gradient, expected), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_depends_on_the_number_of_threads(dtype):
    parts, before = problem(20, 150, 12, dtype, reset="subtract", n_refractory=1), torch.get_num_threads()
    results = []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            results.append(run("numba", *parts))
    finally:
        torch.set_num_threads(before)
    one, two = results
    assert all(torch.equal(a, b) for a, b in zip((one[0], one[1], *one[2], *one[3]), (two[0], two[1], *two[2], *two[3]), strict=True))


def test_a_trial_does_not_depend_on_the_trials_beside_it():
    neuron, coupling, carry, sampling, current, given = problem(19, 40, 9, torch.float32)

    def found(row):
        some = current[row].clone().requires_grad_()
        trial = LinearCarry(*(x[row] for x in carry))
        values = sampling._replace(values=sampling.values[row])
        spikes, drive, _ = linear_rollout(neuron, some, trial, coupling=coupling, sampling=values, backend="numba")
        return spikes, drive, *torch.autograd.grad((drive * given[0][row]).sum() + (spikes * given[1][row]).sum(), some)

    together = found(slice(None))
    for trial in (0, 7, 18):
        row = slice(trial, trial + 1)
        assert all(torch.equal(a, b[row]) for a, b in zip(found(row), together, strict=True))


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_a_run_in_chunks_equals_the_whole_run_gradients_included(backend, is_checkpointed):
    neuron, coupling, carry, sampling, current, given = problem(2, 90, 6, torch.float64, reset="to_value", n_refractory=2)
    whole, drive, last, expected = run(backend, neuron, coupling, carry, sampling, current, given)
    leaves = leaves_of(neuron, coupling, carry, current)
    neuron, coupling, state = with_leaves(neuron, coupling, carry, leaves)
    parts, total = [], 0.0

    def piece(part, carry):
        some = sampling._replace(values=sampling.values[:, part])
        spikes, drive, new = linear_rollout(neuron, leaves["current"][:, part], carry, coupling=coupling, sampling=some, backend=backend)
        return spikes, (drive * given[0][:, part]).sum() + (spikes * given[1][:, part]).sum(), new

    for first in range(0, 90, 40):
        part = slice(first, first + 40)
        spikes, term, state = checkpoint(piece, part, state, use_reentrant=False) if is_checkpointed else piece(part, state)
        parts.append(spikes.detach())
        total = total + term
    nothing = [torch.zeros_like(whole)] * 2
    gradients = torch.autograd.grad(total + weighted(whole, drive, state, nothing), list(leaves.values()))
    assert torch.equal(torch.cat(parts, 1), whole)
    for ours, theirs in zip(state, last, strict=True):
        torch.testing.assert_close(ours.detach(), theirs)
    for name, a, b in zip(leaves, gradients, expected, strict=True):
        assert (a - b).abs().max() <= 1e-10 * max(1.0, b.abs().max()), name


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
