"""E-prop forward in time: eligibility traces of every synapse, multiplied by learning signals as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fitspike_eprop.local import LocalDerivatives


@dataclass
class Eligibility:
    """Eligibility vectors and traces of n_lines inputs (or parameters) of every neuron; memory does not depend on the number of bins.

    vector : derivative of the S entries of a neuron's state by its input's weight, (S, n_trials, n_neurons, n_lines)
    trace : of its last spike, psi du/dW, (n_trials, n_neurons, n_lines)
    filtered : the trace as a readout sees it, decay filtered + gain trace
    """

    vector: torch.Tensor
    trace: torch.Tensor
    filtered: torch.Tensor

    @classmethod
    def zeros(cls, n_trials: int, n_neurons: int, n_lines: int, n_state: int, like: torch.Tensor) -> Eligibility:
        """Return the traces at the start of a trial."""
        trace = like.new_zeros(n_trials, n_neurons, n_lines)
        return cls(like.new_zeros(n_state, n_trials, n_neurons, n_lines), trace, trace.clone())

    def step(
        self, local: LocalDerivatives, slope: torch.Tensor, by_state: Sequence[torch.Tensor | None], by_drive: torch.Tensor
    ) -> torch.Tensor:
        """Move on by one bin and return the derivative of the drive by every weight, (n_trials, n_neurons, n_lines).

        eps_t = ds'/ds eps_{t-1} + ds'/dz e_{t-1} + by_state,    e_t = psi_t (du/ds eps_{t-1} + du/dz e_{t-1} + by_drive)

        local : of this bin, see `LocalDerivatives.at`. slope : psi, (n_trials, n_neurons)
        by_state, by_drive : direct derivatives of new state, entry by entry, and of the drive by the weight, broadcasting against
        (n_trials, n_neurons, n_lines); None for 0. For an input x they are ds'/dI x and du/dI x
        """
        drive = local.drive_spike.unsqueeze(-1) * self.trace
        drive += by_drive
        for old, read in zip(self.vector, local.drive_state.unbind(-1), strict=True):
            drive.addcmul_(old, read.unsqueeze(-1))
        if local.is_diagonal:
            for new, decay in zip(self.vector, local.state_state.unbind(-1), strict=True):
                new.mul_(decay.unsqueeze(-1))
        else:
            self.vector = torch.einsum("knij,jknl->iknl", local.state_state.expand(len(slope), -1, -1, -1), self.vector)
        for new, jump, direct in zip(self.vector, local.state_spike.unbind(-1), by_state, strict=True):
            if jump.any():
                new.addcmul_(self.trace, jump.unsqueeze(-1))
            if direct is not None:
                new += direct
        self.trace = slope.unsqueeze(-1) * drive
        return drive

    def input_step(self, local: LocalDerivatives, slope: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        """Move on by one bin in which `line` (n_trials, n_lines) comes in, the same for all neurons; see `step`."""
        x = line.unsqueeze(1)
        by_state = [gain.unsqueeze(-1) * x if gain.any() else None for gain in local.state_current.unbind(-1)]
        return self.step(local, slope, by_state, local.drive_current.unsqueeze(-1) * x)

    def filter(self, decay: float, gain: float) -> torch.Tensor:
        """Move the filtered trace on by one bin and return it; before `step` for a readout with one bin of delay, after it without."""
        self.filtered = torch.add(self.filtered.mul_(decay), self.trace, alpha=gain)
        return self.filtered


@dataclass(frozen=True)
class ReadoutFilter:
    """How the readout that gives a learning signal filters spikes: y_t = decay y_{t-1} + gain W z_{t - delay}; delay 0 or 1 bin."""

    decay: float
    gain: float
    delay: int = 0

    def signal(self, error: torch.Tensor, feedback: torch.Tensor) -> torch.Tensor:
        """Return dE/dz (n_trials, n_bins, n_neurons) of errors (n_trials, n_bins, n_out) for the reverse recursion.

        G_t = B error_t + decay G_{t+1}, the signal gain G_{t + delay}; feedback : B, (n_neurons, n_out).
        """
        sent = error @ feedback.T
        found, now = [], torch.zeros_like(sent[:, 0])
        for bin_error in reversed(sent.unbind(1)):
            now = bin_error + self.decay * now
            found.append(self.gain * now)
        ahead = torch.stack(found[::-1], dim=1)
        return torch.cat([ahead[:, self.delay :], torch.zeros_like(ahead[:, : self.delay])], dim=1)


def online(
    local: LocalDerivatives,
    slope: torch.Tensor,
    lines: torch.Tensor,
    *,
    drive_signal: torch.Tensor | None = None,
    spike_signal: torch.Tensor | None = None,
    readout_signal: torch.Tensor | None = None,
    readout: ReadoutFilter | None = None,
    eligibility: Eligibility | None = None,
) -> tuple[torch.Tensor, Eligibility]:
    """Return the e-prop gradient of the weights of all inputs, (n_neurons, n_lines), summed over trials and bins, and the traces.

    grad = sum_t dE/du_t du_t/dW + dE/dz_t e_t + L_t ebar_t,    with L_t = B error_t and ebar the trace filtered as the readout filters

    Parameters
    ----------
    lines : Tensor, (n_trials, n_bins, n_lines), what comes in at each bin: x_t of inputs, z_{t-1} of recurrent connections
    drive_signal, spike_signal, readout_signal : Tensor, (n_trials, n_bins, n_neurons): dE/du, the direct dE/dz, and L
    eligibility : the traces at the end of the piece of the trial before; None at the start of a trial
    """
    n_trials, n_bins, n_neurons = slope.shape
    traces = eligibility
    if traces is None:
        traces = Eligibility.zeros(n_trials, n_neurons, lines.shape[-1], local.n_state, slope)
    gradient = slope.new_zeros(n_neurons, lines.shape[-1])
    for t in range(n_bins):
        filtered = traces.filter(readout.decay, readout.gain) if readout is not None and readout.delay else None
        by_drive = traces.input_step(local.at(t), slope[:, t], lines[:, t])
        if readout is not None and not readout.delay:
            filtered = traces.filter(readout.decay, readout.gain)
        for signal, trace in ((drive_signal, by_drive), (spike_signal, traces.trace), (readout_signal, filtered)):
            if signal is not None:
                gradient += torch.einsum("kn,knl->nl", signal[:, t], trace)
    return gradient, traces
