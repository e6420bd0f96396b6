"""Where a network of neurons that cannot say it themselves starts: constant inputs at which they would fire as the recording does."""

from __future__ import annotations

import numpy as np
import torch

from fitspike.neurons.base import Emission, HasLinearForm, NeuronModel
from fitspike.params import initial_params, to_tensors
from fitspike.rng import Stream

_N_CANDIDATES = 48
"""Inputs tried at once, in each of two rounds: sizes of either sign, then between the two that enclose what is wanted."""

_SMALLEST, _LARGEST = 1e-3, 1e5
"""Sizes of input that are tried first, in the neuron model's unit; models are written in pA, mV or numbers about 1."""

_FEWEST_BINS, _MOST_BINS, _MOST_MS = 100, {"linear": 1000, "other": 300}, 2000.0
"""Bins over which the means are taken: two intervals of the rarest neuron, but within these bounds; bins of other neurons are dear."""


def background_for_counts(neuron: NeuronModel, expected: np.ndarray, emission: Emission, dt_ms: float, stream: Stream) -> np.ndarray:
    """Return for each neuron the constant input (n_neurons,) at which its expected counts are those wanted, in the mean over bins.

    The neurons are given regular spikes at the wanted counts, so that adaptation and reset are what they are in the recording. Of the
    inputs between which the mean comes to exceed what is wanted, the smallest are searched more finely.

    Parameters
    ----------
    expected : mean counts per bin that are wanted, (n_neurons,), above 0
    """
    params = to_tensors(initial_params(neuron.param_specs(len(expected)), stream))
    wanted = torch.as_tensor(np.asarray(expected, dtype=np.float64))
    most = _MOST_BINS["linear" if isinstance(neuron, HasLinearForm) else "other"]
    spikes = _regular_spikes(wanted, max(_FEWEST_BINS, min(most, round(_MOST_MS / dt_ms))))
    sizes = torch.logspace(np.log10(_SMALLEST), np.log10(_LARGEST), _N_CANDIDATES // 2, dtype=torch.float64)
    tried = torch.cat([-sizes.flip(0), torch.zeros(1, dtype=torch.float64), sizes])
    found = _mean_counts(neuron, params, emission, tried[:, None].expand(-1, len(wanted)), spikes, dt_ms)
    low, high = _enclosing(tried, found, wanted)
    between = low + torch.linspace(0.0, 1.0, _N_CANDIDATES, dtype=torch.float64)[:, None] * (high - low)
    means = _mean_counts(neuron, params, emission, between, spikes, dt_ms)
    return between[_nearest(means, wanted), torch.arange(len(wanted))].numpy()


def _regular_spikes(wanted: torch.Tensor, most: int) -> torch.Tensor:
    """Return spikes (n_bins, n_neurons) at equal intervals, as many as wanted, in at most so many bins."""
    n_bins = int(min(most, max(_FEWEST_BINS, 2.0 / float(wanted.min()))))
    t = torch.arange(n_bins + 1, dtype=torch.float64)[:, None]
    return torch.floor(t * wanted + 0.5).diff(dim=0)


def _enclosing(tried: torch.Tensor, found: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest neighbours, each (n_neurons,), between which the means (n_candidates, n_neurons) come to exceed what is wanted.

    Where they never do, both are the input that comes nearest.
    """
    is_above = (found >= wanted) | found.isnan()
    crosses = ~is_above[:-1] & is_above[1:]
    size = torch.maximum(tried[:-1].abs(), tried[1:].abs())[:, None].expand_as(crosses)
    at = torch.where(crosses, size, np.inf).argmin(0)
    nearest = _nearest(found, wanted)
    any_crosses = crosses.any(0)
    return torch.where(any_crosses, tried[at], tried[nearest]), torch.where(any_crosses, tried[at + 1], tried[nearest])


def _nearest(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return for each neuron the candidate whose mean is nearest in ratio, all below a thousandth of what is wanted being equal."""
    return (torch.maximum(found, 1e-3 * wanted).log() - wanted.log()).abs().nan_to_num(nan=np.inf).argmin(0)


def _mean_counts(
    neuron: NeuronModel, params: dict[str, torch.Tensor], emission: Emission, current: torch.Tensor, spikes: torch.Tensor, dt_ms: float
) -> torch.Tensor:
    """Return the mean expected counts (n_candidates, n_neurons) of neurons with these inputs, after a first quarter of the bins."""
    n_bins = len(spikes)
    with torch.no_grad():
        state, before, total = neuron.init_state(params, len(current)), torch.zeros_like(current), torch.zeros_like(current)
        for t in range(n_bins):
            state, drive = neuron.step(params, state, current, before, dt_ms)
            if t >= n_bins // 4:
                total += emission.expected(drive, dt_ms)
            before = spikes[t].expand_as(current)
    return total / (n_bins - n_bins // 4)
