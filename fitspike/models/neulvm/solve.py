"""From binned spikes to fitted populations: trials, membership, start, the chosen EM, intervals and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fitspike.models.base import SolverContext, SolverReport
from fitspike.models.neulvm.hard_em import HardEM, hard_em
from fitspike.models.neulvm.identifiability import marginal_information
from fitspike.models.neulvm.latents import Trial, make_trial
from fitspike.models.neulvm.membership import cluster_neurons
from fitspike.models.neulvm.particle_em import ParticleEM, e_step, particle_em
from fitspike.models.neulvm.populations import FreeSet, as_params
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.neulvm.model import NeuLVM
    from fitspike.recording.binned import BinnedSpikes

_PATHS_FOR_INFORMATION = 60


def make_trials(model: NeuLVM, binned: BinnedSpikes, membership: np.ndarray, n_populations: int) -> list[Trial]:
    """Return every trial longer than its history; the warm-up counts as history."""
    dt_s = binned.dt_ms / 1e3
    trials = []
    for k in range(binned.n_trials):
        n_bins = int(binned.bins_per_trial[k])
        n_history = max(round(model.history_s / dt_s), int(binned.warmup_bins[k]))
        if n_bins <= n_history:
            continue
        spikes = binned.dense_numpy(trials=[k], bins=range(n_bins), dtype="float64")[0]
        drive = np.zeros((n_bins, n_populations))
        if model.input_signal is not None:
            first = int(binned.trial_offset[k])
            drive = binned.signal_values(model.input_signal, first, first + n_bins)
        trials.append(make_trial(spikes, membership, drive, n_history=n_history, smoothing_s=model.smoothing_ms / 1e3, dt_s=dt_s))
    return trials


def solve(model: NeuLVM, binned: BinnedSpikes, context: SolverContext) -> tuple[ParamArrays, SolverReport]:
    """Fit; see `NeuLVM.solve`."""
    names = model.population_names(binned.info())
    dt_s = binned.dt_ms / 1e3
    membership = np.asarray(context.init["membership"], dtype=np.int64)
    extras: dict[str, np.ndarray] = {}
    if model.membership == "cluster":
        dense = [binned.dense_numpy(trials=[k], bins=range(int(n)))[0] for k, n in enumerate(binned.bins_per_trial) if n]
        membership, extras["membership_confidence"] = cluster_neurons(
            dense, len(names), dt_s=dt_s, smoothing_s=model.smoothing_ms / 1e3, stream=context.stream.child("membership")
        )
    trials = make_trials(model, binned, membership, len(names))
    if not trials:
        text = f"no trial is longer than history_s={model.history_s} s. Lower history_s, or fit longer trials."
        return dict(context.init), SolverReport("DIVERGED", text, 0)
    free = FreeSet(model.signed_pattern(len(names)), model.free)
    base = model.start_constants(len(names), binned.dt_ms)
    vector = free.vector(base)
    warnings: list[str] = []
    if model.solver == "hard-em":
        vector, modes, value = hard_em(vector, free, base, trials, HardEM(), report=context.report)
        extras |= {f"latent_mean_{k}": mode / dt_s for k, mode in enumerate(modes)}
        extras["negative_log_joint"] = np.array(value)
        n_steps = HardEM().n_iterations
        warnings.append("hard EM biases couplings by several percent and its objective does not compare models; particle-em does not.")
    else:
        settings = ParticleEM(
            n_iterations=model.n_iterations, n_particles=model.n_particles, n_averaged=max(1, min(6, model.n_iterations // 2))
        )
        found = particle_em(
            vector,
            free,
            base,
            trials,
            settings,
            context.stream.child("particle-em"),
            report=context.report,
            done=None if context.resume is None else context.resume["iterates"],
            checkpoint=lambda step, iterates: context.checkpoint(step, {"iterates": iterates}),
        )
        vector, n_steps = found.vector, len(found.iterates) - 1
        for k in range(len(trials)):
            extras |= {f"latent_mean_{k}": found.mean[k] / dt_s, f"latent_sd_{k}": found.sd[k] / dt_s}
        extras |= {"iterates": found.iterates, "marginal_log_likelihood": found.log_likelihood}
        many = ParticleEM(n_particles=model.n_particles, n_paths=_PATHS_FOR_INFORMATION)
        _, paths, _, _ = e_step(free.constants(vector, base), trials, many, context.stream.child("information"))
        information = marginal_information(vector, free, base, trials, paths)
        extras |= {"free_vector": vector, "free_vector_sd": information.sd}
        extras["coupling_sd"] = np.abs(free.constants(vector, base).coupling) * information.sd[: len(names)][None, :]
        warnings += [_direction_text(sd, weights, names) for sd, weights in information.directions]
    if model.free != "connectivity":
        warnings.append(
            "with free resting potentials an inhibitory weight is hardly identifiable: r and J_I trade off. Fix rest if J matters."
        )
    unobserved = [name for m, name in enumerate(names) if not (membership == m).any()]
    if unobserved:
        warnings.append(f"no neuron of {', '.join(unobserved)} was recorded; spikes alone do not identify their activity and couplings.")
    params = as_params(free.constants(vector, base))
    rates = np.mean([trial.guess.mean(axis=0) for trial in trials], axis=0) / dt_s
    params |= {"mean_rate_hz": rates, "membership": membership.astype(np.float64)}
    message = f"{n_steps} iterations of {model.solver}." + "".join(f" {text[0].upper()}{text[1:]}" for text in warnings)
    return params, SolverReport("CONVERGED", message, n_steps, (), {**extras, "population_names": np.array(names)})


def _direction_text(sd: float, weights: np.ndarray, names: tuple[str, ...]) -> str:
    labels = [f"log weight of {name}" for name in names] + [f"constant {i}" for i in range(len(weights) - len(names))]
    main = ", ".join(f"{w:+.2f} {label}" for w, label in zip(weights, labels, strict=True) if abs(w) > 0.2)
    size = "unbounded" if not np.isfinite(sd) else f"{sd:.2f}"
    return f"the data hardly determine the direction ({main}): standard deviation {size}."
