"""Populations of integrate-and-fire neurons with escape noise, neuron by neuron: the ground truth of the mesoscopic model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.kernels.mesoscopic import Constants


@dataclass(frozen=True)
class MicroscopicRun:
    """counts (n_steps, n_populations): spikes of each whole population per step. spike_step, spike_neuron: the recorded neurons' spikes."""

    counts: np.ndarray
    spike_step: np.ndarray
    spike_neuron: np.ndarray


def simulate(
    drive_per_s: np.ndarray, constants: Constants, generator: np.random.Generator, *, recorded: np.ndarray, n_steps: int | None = None
) -> MicroscopicRun:
    """Simulate every neuron of every population with steps of `constants.dt_s`.

    drive_per_s : (n, n_populations), external input du/dt, each row held for n_steps / n steps
    recorded : neurons whose spikes are returned; neurons are numbered population after population

    Raises
    ------
    InvalidInputError
        If the refractory time is no whole number of steps, or n_steps no multiple of the rows of the drive.
    """
    from fitspike.kernels.microscopic.numba_cpu import simulate as run

    c = constants
    sizes = np.rint(c.n_neurons).astype(np.int64)
    n_steps = len(drive_per_s) if n_steps is None else n_steps
    steps = c.t_ref_s / c.dt_s
    if abs(steps - round(steps)) > 1e-6:
        raise InvalidInputError(f"t_ref_s={c.t_ref_s} is no whole number of steps of {c.dt_s} s. Choose a step that divides it.")
    if n_steps % len(drive_per_s):
        raise InvalidInputError(f"n_steps={n_steps} is no multiple of the {len(drive_per_s)} rows of the drive.")
    mask = np.zeros(int(sizes.sum()), dtype=bool)
    mask[recorded] = True
    drive = np.ascontiguousarray(drive_per_s, dtype=np.float64)
    stride = n_steps // len(drive)
    out = run(
        drive,
        stride,
        sizes,
        c.tau_s,
        c.rest,
        c.threshold,
        c.coupling,
        c.tau_syn_s,
        round(steps),
        c.delay_bins,
        c.dt_s,
        n_steps,
        mask,
        generator,
    )
    return MicroscopicRun(*out)
