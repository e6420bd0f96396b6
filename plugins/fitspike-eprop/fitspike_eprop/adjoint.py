"""The reverse recursion of e-prop: what a loss says about drives and spikes, sent back through each neuron's own past."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fitspike.plugin import InvalidInputError
from fitspike_eprop.local import LocalDerivatives


class Adjoint(NamedTuple):
    """What comes out of the recursion.

    drive, current : derivatives of the loss by u and I, (n_trials, n_bins, n_neurons). The gradient of a weight W[j, i] is the sum over
    trials and bins of current_j times what i sends. state, spikes : by state and spikes before the first bin, (n_trials, n_neurons, S) and
    (n_trials, n_neurons).
    """

    drive: torch.Tensor
    current: torch.Tensor
    state: torch.Tensor
    spikes: torch.Tensor


def adjoint(
    local: LocalDerivatives,
    slope: torch.Tensor,
    drive_signal: torch.Tensor | None,
    spike_signal: torch.Tensor | None,
    *,
    recurrent_weight: torch.Tensor | None = None,
    last_state: torch.Tensor | None = None,
    last_spikes: torch.Tensor | None = None,
    backend: str = "auto",
) -> Adjoint:
    """Return the e-prop gradient by drive and current, or with `recurrent_weight` that of back-propagation through time.

    For bins t from the last to the first, with m_t and w_t what state and spikes of bin t owe to later bins:

        q_t = dE/du_t + psi_t (dE/dz_t + w_t [+ W^T G_{t+1}])         the drive; psi = slope; in brackets: BPTT alone
        G_t = ds'/dI . m_t + du/dI q_t                                the current
        w_{t-1} = ds'/dz . m_t + du/dz q_t;   m_{t-1} = ds'/ds^T m_t + du/ds q_t

    With all bins' signals known this equals the forward recursion of eligibility traces (`Eligibility`), at the cost of one pass over
    neurons instead of one over synapses per bin. Which effects of the own spike w_t follows is `local`'s `own_spike`; BPTT is its "all".

    Parameters
    ----------
    slope : Tensor, (n_trials, n_bins, n_neurons), pseudo-derivative dz/du, 0 for neurons whose spikes are data
    drive_signal, spike_signal : Tensor, (n_trials, n_bins, n_neurons), the direct partials dE/du and dE/dz; None for 0
    recurrent_weight : Tensor, (n_neurons, n_neurons) [post, pre], of currents W z_{t-1}
    last_state, last_spikes : what state (n_trials, n_neurons, S) and spikes (n_trials, n_neurons) of the last bin owe to later ones
    backend : "numba" (diagonal derivatives, on the CPU), "reference", or "auto": numba where it can
    """
    zeros = slope.new_zeros(()).expand(1, 1, slope.shape[-1])
    drive_signal, spike_signal = (zeros if signal is None else signal for signal in (drive_signal, spike_signal))
    n_trials, _, n_neurons = slope.shape
    state = slope.new_zeros(n_trials, n_neurons, local.n_state) if last_state is None else last_state
    spikes = slope.new_zeros(n_trials, n_neurons) if last_spikes is None else last_spikes
    reason = _reason_against_numba(local, slope)
    if backend not in ("auto", "numba", "reference"):
        raise InvalidInputError(f"backend={backend!r} is unknown. Use 'auto', 'numba' or 'reference'.")
    if backend == "numba" and reason is not None:
        raise InvalidInputError(f"backend='numba' cannot run this: {reason}. Use backend='auto'.")
    with torch.no_grad():
        if backend == "reference" or reason is not None:
            return _reference(local, slope, drive_signal, spike_signal, recurrent_weight, state, spikes)
        from fitspike_eprop.adjoint_numba import run

        return Adjoint(*run(local, slope, drive_signal, spike_signal, recurrent_weight, state, spikes))


def _reason_against_numba(local: LocalDerivatives, slope: torch.Tensor) -> str | None:
    if not local.is_diagonal:
        return "entries of a state act on one another"
    return None if slope.device.type == "cpu" else f"it runs on the CPU, not on {slope.device}"


def _reference(
    local: LocalDerivatives,
    slope: torch.Tensor,
    drive_signal: torch.Tensor,
    spike_signal: torch.Tensor,
    weight: torch.Tensor | None,
    owed_state: torch.Tensor,
    owed_spikes: torch.Tensor,
) -> Adjoint:
    """Return the same bin by bin with torch: the specification."""
    drives, currents, from_others = [], [], 0.0
    drive_signal, spike_signal = drive_signal.expand_as(slope), spike_signal.expand_as(slope)
    for t in reversed(range(slope.shape[1])):
        now = local.at(t)
        drive = drive_signal[:, t] + slope[:, t] * (spike_signal[:, t] + owed_spikes + from_others)
        current = (now.state_current * owed_state).sum(-1) + now.drive_current * drive
        owed_spikes = (now.state_spike * owed_state).sum(-1) + now.drive_spike * drive
        back = now.state_state * owed_state if local.is_diagonal else (now.state_state * owed_state.unsqueeze(-1)).sum(-2)
        owed_state = back + now.drive_state * drive.unsqueeze(-1)
        if weight is not None:
            from_others = current @ weight
        drives.append(drive)
        currents.append(current)
    in_order = [torch.stack(values[::-1], dim=1) if values else torch.zeros_like(slope) for values in (drives, currents)]
    return Adjoint(*in_order, owed_state, owed_spikes)
