"""Coupling currents against direct sums over past spikes, stepwise and in one go."""

import numpy as np
import pytest
import torch

from fitspike.models.bases import lag_basis
from fitspike.models.network_coupling import LagCoupling, TraceCoupling, make_coupling

N_TRIALS, N_BINS, N_PRE, N_POST = 2, 50, 4, 3


def spikes_and_weight(n_basis):
    rng = np.random.default_rng(0)
    spikes = rng.poisson(0.3, (N_TRIALS, N_BINS, N_PRE)).astype(float)
    return spikes, rng.normal(size=(N_POST, N_PRE, n_basis))


def direct_current(spikes, kernel, n_delay):
    """Return sum over pre and lag of kernel[post, pre, lag] z(t - n_delay - lag), lag = 0, 1, ..."""
    current = np.zeros((*spikes.shape[:2], kernel.shape[0]))
    for t in range(spikes.shape[1]):
        for lag in range(kernel.shape[2]):
            if t - n_delay - lag >= 0:
                current[:, t] += spikes[:, t - n_delay - lag] @ kernel[:, :, lag].T
    return current


@pytest.mark.parametrize("n_delay", [1, 4])
@pytest.mark.parametrize("kind, n_basis", [("boxes", 6), ("raised-cosine", 3), ("exponential", 2)])
def test_currents_equal_the_direct_sum_stepwise_and_at_once_in_any_chunks(kind, n_basis, n_delay):
    basis = lag_basis(kind, n_basis, 6.0, 1.0)
    spikes, weight = spikes_and_weight(n_basis)
    expected = direct_current(spikes, weight @ basis.at_lags(N_BINS), n_delay)
    coupling = make_coupling(torch.as_tensor(weight), basis, n_delay)
    assert isinstance(coupling, TraceCoupling if kind == "exponential" else LagCoupling)
    tensor = torch.as_tensor(spikes)
    previous = torch.cat([torch.zeros(N_TRIALS, 1, N_PRE, dtype=torch.float64), tensor[:, :-1]], dim=1)

    state, stepwise = coupling.init_state(N_TRIALS), []
    for t in range(N_BINS):
        state, current = coupling.step(state, previous[:, t])
        stepwise.append(current)
    np.testing.assert_allclose(torch.stack(stepwise, 1).numpy(), expected, atol=1e-12)

    for size in (1, 7, N_BINS):
        state, parts = coupling.init_state(N_TRIALS), []
        for first in range(0, N_BINS, size):
            state, part = coupling.currents(state, previous[:, first : first + size])
            parts.append(part)
        np.testing.assert_allclose(torch.cat(parts, 1).numpy(), expected, atol=1e-12)


def test_the_state_after_a_chunk_is_the_same_stepwise_and_at_once():
    spikes, weight = spikes_and_weight(2)
    for kind in ("boxes", "exponential"):
        coupling = make_coupling(torch.as_tensor(weight), lag_basis(kind, 2, 2.0, 1.0), 3)
        at_once, _ = coupling.currents(coupling.init_state(N_TRIALS), torch.as_tensor(spikes))
        state = coupling.init_state(N_TRIALS)
        for t in range(N_BINS):
            state, _ = coupling.step(state, torch.as_tensor(spikes[:, t]))
        for ours, theirs in zip(*(s if isinstance(s, tuple) else (s,) for s in (at_once, state)), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_weights_are_read_as_post_pre():
    weight = torch.zeros(2, 2, 1, dtype=torch.float64)
    weight[1, 0] = 5.0  # from neuron 0 to neuron 1
    coupling = LagCoupling(weight, None)
    _, current = coupling.step(coupling.init_state(1), torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert current.tolist() == [[0.0, 5.0]]
