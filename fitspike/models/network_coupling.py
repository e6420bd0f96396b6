"""Current from past spikes: coupling weights on a basis of lags, with a delay, stepwise for sampling and in one go for clamped spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch

from fitspike.kernels.linear_rollout import LinearCoupling
from fitspike.kernels.spike_trace import spike_trace
from fitspike.models.bases import LagBasis
from fitspike.types import State


@dataclass(frozen=True, eq=False)
class LagCoupling:
    """Coupling through filters of finite length.

    I_j(t) = sum_i sum_b weight[j, i, b] sum_{d=1..L} basis[b, d] z_i(t - (n_delay - 1) - d)

    weight : Tensor, (n_post, n_pre, n_basis). basis : Tensor, (n_basis, n_lags), or None for one weight per lag.
    The state (n_trials, n_delay - 1 + n_lags, n_pre) holds past spikes, the latest first.
    """

    weight: torch.Tensor
    basis: torch.Tensor | None
    n_delay: int = 1

    @property
    def n_lags(self) -> int:
        """Return how many lags the filters span."""
        return self.weight.shape[2] if self.basis is None else self.basis.shape[1]

    def init_state(self, n_trials: int) -> State:
        """Return a silent past."""
        return self.weight.new_zeros(n_trials, self.n_delay - 1 + self.n_lags, self.weight.shape[1])

    def step(self, state: State, spikes: torch.Tensor) -> tuple[State, torch.Tensor]:
        """Return the new state and the current (n_trials, n_post) of a bin, given the spikes of the bin before."""
        state = torch.cat([spikes.unsqueeze(1), state[:, :-1]], dim=1)
        seen = state[:, self.n_delay - 1 :].transpose(1, 2)  # (n_trials, n_pre, n_lags)
        return state, self._current(seen if self.basis is None else seen @ self.basis.T)

    def currents(self, state: State, previous: torch.Tensor) -> tuple[State, torch.Tensor]:
        """Return the new state and the currents (n_trials, n_bins, n_post), given each bin's previous spikes (n_trials, n_bins, n_pre)."""
        n_bins, n_past = previous.shape[1], state.shape[1]
        known = torch.cat([state.flip(1), previous], dim=1)  # in order of time; ends with the spikes the last bin sees
        # The window that starts at entry t + 1 of `known` ends n_delay - 1 entries before the spikes that bin t sees last.
        window = known.unfold(1, self.n_lags, 1)[:, 1 : n_bins + 1].flip(-1)  # (n_trials, n_bins, n_pre, n_lags), the latest first
        features = window if self.basis is None else window @ self.basis.T  # (n_trials, n_bins, n_pre, n_basis)
        return known[:, known.shape[1] - n_past :].flip(1), self._current(features)

    def linear(self) -> LinearCoupling:
        """Return the same for the kernel: one weight per lag."""
        by_lag = self.weight if self.basis is None else self.weight @ self.basis  # (n_post, n_pre, n_lags)
        none = by_lag.new_zeros(0, *by_lag.shape[1::-1])
        return LinearCoupling(by_lag.permute(2, 1, 0), none, by_lag.new_zeros(0), self.n_delay)

    def to_kernel(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a state as the kernel's past spikes and traces."""
        return state, state.new_zeros(state.shape[0], state.shape[2], 0)

    def from_kernel(self, past: torch.Tensor, trace: torch.Tensor) -> State:
        """Return the kernel's past spikes and traces as a state."""
        return past

    def _current(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(-2) @ self.weight.flatten(1).T


@dataclass(frozen=True, eq=False)
class TraceCoupling:
    """Coupling through exponential filters, which need no more past than their traces and the delay.

    I_j(t) = sum_i sum_c weight[j, i, c] (1 - decay_c) r_{i,c}(t),    r_{i,c}(t) = decay_c r_{i,c}(t-1) + z_i(t - n_delay)

    weight : Tensor, (n_post, n_pre, n_filters). decay : Tensor, (n_filters,), per bin. The state is the spikes still under way
    (n_trials, n_delay - 1, n_pre), the latest first, and the traces (n_trials, n_pre, n_filters).
    """

    weight: torch.Tensor
    decay: torch.Tensor
    n_delay: int = 1

    def init_state(self, n_trials: int) -> State:
        """Return a silent past."""
        n_pre = self.weight.shape[1]
        return self.weight.new_zeros(n_trials, self.n_delay - 1, n_pre), self.weight.new_zeros(n_trials, n_pre, len(self.decay))

    def step(self, state: State, spikes: torch.Tensor) -> tuple[State, torch.Tensor]:
        """Return the new state and the current (n_trials, n_post) of a bin, given the spikes of the bin before."""
        under_way, trace = state
        if self.n_delay > 1:
            under_way = torch.cat([spikes.unsqueeze(1), under_way], dim=1)
            under_way, spikes = under_way[:, :-1], under_way[:, -1]
        trace = self.decay * trace + spikes.unsqueeze(-1)
        return (under_way, trace), self._current(trace)

    def currents(self, state: State, previous: torch.Tensor) -> tuple[State, torch.Tensor]:
        """Return the new state and the currents (n_trials, n_bins, n_post), given each bin's previous spikes (n_trials, n_bins, n_pre)."""
        under_way, trace = state
        n_bins = previous.shape[1]
        known = torch.cat([under_way.flip(1), previous], dim=1)
        traces = spike_trace(known[:, :n_bins], self.decay, trace)
        last = traces[:, -1] if n_bins else trace
        return (known[:, n_bins:].flip(1), last), self._current(traces)

    def linear(self) -> LinearCoupling:
        """Return the same for the kernel: traces weighted so that each filter has sum 1."""
        by_filter = (self.weight * (1.0 - self.decay)).permute(2, 1, 0)  # (n_filters, n_pre, n_post)
        return LinearCoupling(by_filter.new_zeros(0, *by_filter.shape[1:]), by_filter, self.decay, self.n_delay)

    def to_kernel(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a state as the kernel's past spikes and traces."""
        return state

    def from_kernel(self, past: torch.Tensor, trace: torch.Tensor) -> State:
        """Return the kernel's past spikes and traces as a state."""
        return past, trace

    def _current(self, trace: torch.Tensor) -> torch.Tensor:
        return ((1.0 - self.decay) * trace).flatten(-2) @ self.weight.flatten(1).T


NetworkCoupling: TypeAlias = LagCoupling | TraceCoupling


def make_coupling(weight: torch.Tensor, basis: LagBasis, n_delay: int) -> NetworkCoupling:
    """Return the coupling with these weights (n_post, n_pre, n_basis) on a basis."""
    if basis.decay is not None:
        return TraceCoupling(weight, torch.as_tensor(basis.decay, dtype=weight.dtype, device=weight.device), n_delay)
    values = torch.as_tensor(basis.values, dtype=weight.dtype, device=weight.device)
    is_identity = values.shape[0] == values.shape[1] and bool((values == torch.eye(len(values), dtype=values.dtype)).all())
    return LagCoupling(weight, None if is_identity else values, n_delay)
