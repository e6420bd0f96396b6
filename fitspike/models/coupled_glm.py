"""The coupled generalised linear model: stimulus, time, history and coupling filters, and a convex fit of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fitspike.citation import Citation
from fitspike.errors import InvalidInputError, Problems, did_you_mean
from fitspike.models.bases import BASES
from fitspike.models.glm_layout import Layout, make_layout
from fitspike.params import ParamSpec
from fitspike.types import Carry, ParamArrays, Params

if TYPE_CHECKING:
    import torch

    from fitspike.models.base import DataInfo, Rollout, SolverContext, SolverReport
    from fitspike.models.connectivity import Connectivity
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.chunk import SpikeChunk
    from fitspike.rng import Stream

Auto = float | str
Strength = float | tuple[float, ...] | str

# What an open setting becomes when nothing is selected on data. condition_time and trial_time depend on the trials, see `resolved`.
_DEFAULTS: Mapping[str, Any] = {
    "emission": "poisson",
    "history_ms": 200.0,
    "coupling_ms": 50.0,
    "population_ms": 0.0,
    "n_time_bumps": 10,
    "drift_bumps": 0,
    "signal_before_ms": 0.0,
    "signal_after_ms": 0.0,
    "ridge_signal": 1.0,
    "ridge_time": 1.0,
    "ridge_drift": 1.0,
    "ridge_population": 1.0,
    "ridge_history": 1.0,
    "ridge_coupling": 1.0,
    "sparsity_coupling": 0.0,
    "gain_s": 0.0,
    "ceiling": 0.0,
}


@dataclass(frozen=True)
class CoupledGLM:
    """Settings of the coupled GLM.

    drive_n(t) = b_n + sum_c (k_nc * x_c)(t) + trial time + condition x trial time + drift + (p_n * S_-n)(t) + (h_n * y_n)(t)
                 + sum_{m != n} (w_nm * y_m)(t)

    with spike counts y, signals x, the summed count S_-n of the other neurons, and filters that are weighted sums of basis functions;
    spike filters start at a lag of one bin. Poisson: the expected count of a bin is exp(drive). Bernoulli: drive is the log-odds of a
    spike. The fit minimises, for each target neuron alone, the summed negative log-likelihood plus 0.5 * ridge * the sum of squared weights
    of each term, plus the sparsity penalty on couplings. A setting of "auto" is chosen by `select` on training data, or, without
    selection, takes the value that `resolved` documents.

    emission : "poisson", "bernoulli" or "auto" (poisson)
    basis : "raised-cosine" (logarithmic lags), "raised-cosine-linear", "boxes" or "exponential", for all spike filters
    history_ms, n_history : window and number of functions of the own-history filter; 0 leaves it out. Likewise coupling and population
    condition_time, trial_time : bumps over trial time in each condition, and shared by all; n_time_bumps of them
    drift_bumps : bumps over the whole recording; 0 leaves drift out
    signals : "all", or names; () leaves signals out
    signal_before_ms, signal_after_ms : how far a signal filter looks back and ahead; both 0: the bin itself
    n_signal : number of functions of a signal filter, at most one per bin of its window
    standardise_signals : give weights per standard deviation of the training data, so that one ridge fits channels of any unit
    penalty : "l2" (ridge alone), "l1" or "group-l1" (one group per pair, scaled by the root of its size): adds sparsity_coupling
    ridge_* , sparsity_coupling : a number, or one per target neuron
    gain_s : time constant over which a neuron's rate is compared with what the model expected, to follow slow changes; 0: not at all.
        The expected count is multiplied by (gain_spikes + spikes of late) / (gain_spikes + spikes expected of late), within 1/4 and 4
    ceiling : drives are cut at this quantile of a neuron's drives on the training data, such as 0.999, so that input never seen in
        training, or free activity, cannot drive a neuron beyond what it was seen to do; 0: no ceiling. Both act after the convex fit
    dale : True (signs from population labels), or a sign +1, -1, 0 per presynaptic neuron; a bound, so weights of 0 are allowed
    solver : "auto" (by estimated cost), "newton", "lbfgs" or "proximal"
    tolerance : a target has converged when the decrease still to be had, g' M^-1 g / 2 with M the (approximate) Hessian, is below
        tolerance times its number of spikes, nats
    precision : "float64", "float32" or "auto" (float32 from 2e8 bin-target pairs for passes over the data; sums are always float64)
    standard_errors : True, False or "auto" (as far as their estimated cost allows)
    stabilise : what a fit does about filters that run away in free runs (see `stability`). "history": neurons whose own history runs away
        by itself are fitted again with a ten times stronger history ridge (at least 10), up to eight times; activity that runs away only
        through couplings or the population covariate is reported, since stronger ridges there cost prediction. "network": all neurons
        that run away are fitted again, with stronger ridges on all spike filters. "warn": only the report. "off": no free runs
    """

    name: ClassVar[str] = "coupled-glm"
    citation: ClassVar[tuple[Citation, ...]] = (
        Citation(
            "Truccolo W, Eden UT, Fellows MR, Donoghue JP, Brown EN (2005). A point process framework for relating neural spiking activity "
            "to spiking history, neural ensemble, and extrinsic covariate effects. J. Neurophysiol. 93:1074-1089",
            doi="10.1152/jn.00697.2004",
        ),
        Citation(
            "Pillow JW, Shlens J, Paninski L, Sher A, Litke AM, Chichilnisky EJ, Simoncelli EP (2008). Spatio-temporal correlations and "
            "visual signalling in a complete neuronal population. Nature 454:995-999",
            doi="10.1038/nature07140",
        ),
    )
    emissions: ClassVar[tuple[str, ...]] = ("poisson", "bernoulli")
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    emission: str = "auto"
    basis: str = "raised-cosine"
    history_ms: Auto = "auto"
    n_history: int = 5
    coupling_ms: Auto = "auto"
    n_coupling: int = 3
    population_ms: Auto = "auto"
    n_population: int = 3
    condition_time: bool | str = "auto"
    trial_time: bool | str = "auto"
    n_time_bumps: int | str = "auto"
    drift_bumps: int | str = "auto"
    signals: str | tuple[str, ...] = "all"
    signal_before_ms: Auto = "auto"
    signal_after_ms: Auto = "auto"
    n_signal: int = 5
    standardise_signals: bool = True
    penalty: str = "l2"
    ridge_signal: Strength = "auto"
    ridge_time: Strength = "auto"
    ridge_drift: Strength = "auto"
    ridge_population: Strength = "auto"
    ridge_history: Strength = "auto"
    ridge_coupling: Strength = "auto"
    sparsity_coupling: Strength = "auto"
    gain_s: Auto = "auto"
    gain_spikes: float = 5.0
    ceiling: Auto = "auto"
    dale: bool | tuple[int, ...] = False
    solver: str = "auto"
    tolerance: float = 1e-9
    precision: str = "auto"
    standard_errors: bool | str = "auto"
    stabilise: str = "history"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray | list):
                object.__setattr__(self, field.name, tuple(np.asarray(value).tolist()))
        self._check()

    def _check(self) -> None:
        problems = Problems("coupled-glm settings")
        choices = {
            "emission": ("auto", *self.emissions),
            "basis": BASES,
            "penalty": ("l2", "l1", "group-l1"),
            "solver": ("auto", "newton", "lbfgs", "proximal"),
            "precision": ("auto", "float32", "float64"),
            "stabilise": ("history", "network", "warn", "off"),
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                problems.add(f"{name}={value!r}{did_you_mean(str(value), known)} Known: {', '.join(known)}.")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and value != "auto" and field.name not in (*choices, "signals"):
                problems.add(f"{field.name}={value!r}. Give a value, or 'auto'.")
            elif field.name.endswith("_ms") or field.name.startswith(("n_", "ridge_", "sparsity_", "drift_", "tolerance")):
                if value != "auto" and not (np.isfinite(np.asarray(value, float)).all() and (np.asarray(value, float) >= 0).all()):
                    problems.add(f"{field.name}={value!r}. Give a finite number from 0 up.")
        for name in ("n_signal", "n_time_bumps"):
            if getattr(self, name) != "auto" and getattr(self, name) < 1:
                problems.add(f"{name}={getattr(self, name)} must be at least 1.")
        if self.gain_s != "auto" and not (np.isfinite(self.gain_s) and self.gain_s >= 0):
            problems.add(f"gain_s={self.gain_s!r}. Give seconds from 0 up.")
        if not self.gain_spikes > 0:
            problems.add(f"gain_spikes={self.gain_spikes!r}. Give a number above 0.")
        if self.ceiling != "auto" and not 0 <= self.ceiling <= 1:
            problems.add(f"ceiling={self.ceiling!r}. Give a quantile from 0 to 1.")
        if isinstance(self.signals, str) and self.signals != "all":
            problems.add(f"signals={self.signals!r}. Give 'all' or a tuple of names, such as ({self.signals!r},).")
        problems.raise_if_any()

    def open_settings(self) -> tuple[str, ...]:
        """Return the names of the settings that are still "auto" and belong to the model rather than to the solver."""
        terms = {"history": self.history_ms, "coupling": self.coupling_ms, "population": self.population_ms, "drift": self.drift_bumps}
        left_out = {f"ridge_{name}" for name, size in terms.items() if size == 0}
        if self.penalty == "l2":
            left_out.add("sparsity_coupling")
        names = (*_DEFAULTS, "condition_time", "trial_time")
        return tuple(
            name for name in names if isinstance(getattr(self, name), str) and getattr(self, name) == "auto" and name not in left_out
        )

    def resolved(self, data: DataInfo) -> CoupledGLM:
        """Return the model with every setting that is still open set to its default.

        History of 200 ms, coupling of 50 ms, signals of the bin itself, no population covariate, no drift, no slow gain, no ceiling, all
        ridges 1. Ten bumps over trial time from five trials on; in each condition, if there are two conditions or more and at least two
        trials of each on average.
        """
        changes = {
            name: value for name, value in _DEFAULTS.items() if isinstance(getattr(self, name), str) and getattr(self, name) == "auto"
        }
        for name, n_basis in (("history_ms", self.n_history), ("coupling_ms", self.n_coupling)):
            if name in changes:  # coarse bins need a longer window to tell the basis functions apart
                changes[name] = max(changes[name], n_basis * data.dt_ms)
        window_ms = [changes.get(name, getattr(self, name)) for name in ("signal_before_ms", "signal_after_ms")]
        changes["n_signal"] = min(self.n_signal, 1 + sum(round(ms / data.dt_ms) for ms in window_ms))
        if self.condition_time == "auto":
            changes["condition_time"] = data.n_conditions > 1 and data.n_trials >= 2 * data.n_conditions
        if self.trial_time == "auto":
            changes["trial_time"] = data.n_trials >= 5
        return replace(self, **changes)

    def layout(self, data: DataInfo) -> Layout:
        """Return where each weight sits; open settings at their defaults."""
        return make_layout(self.resolved(data), data)

    def param_specs(self, data: DataInfo) -> Mapping[str, ParamSpec]:
        """Return the specs of the weights of every term in the model, and of the fixed numbers that place signals and bumps."""
        return self.layout(data).param_specs(data.mean_count)

    def select(self, binned: BinnedSpikes, context: SolverContext) -> tuple[CoupledGLM, Mapping[str, Any]]:
        """Return the model with every open setting chosen by blocked cross-validation on these data, and the table of what was tried."""
        from fitspike.models.glm_selection import select

        return select(self, binned, context)

    def solve(self, binned: BinnedSpikes, context: SolverContext) -> tuple[ParamArrays, SolverReport]:
        """Return the parameters at the optimum of the penalised likelihood and how it went.

        Target neurons are fitted independently but in the same passes over the data. A neuron without training spikes gets the rate of
        half a spike in all bins and no weights, and the report names it.
        """
        from fitspike.models.glm_solver import solve

        return solve(self, binned, context)

    def log_likelihood(
        self, params: Params, chunk: SpikeChunk, carry: Carry = None, rng: Stream | None = None
    ) -> tuple[torch.Tensor, Carry]:
        """Return the log-likelihood of a chunk given its past, (n_trials, n_neurons) float64 nats, and the carry.

        Differentiable in the parameters. Without carry, the spikes before the chunk are read from the recording the chunk came from.
        """
        from fitspike.models.glm_drive import log_likelihood

        return log_likelihood(self, params, chunk, carry)

    def intensity(self, params: Params, chunk: SpikeChunk, carry: Carry = None) -> tuple[torch.Tensor, Carry]:
        """Return expected counts (n_trials, n_bins, n_neurons) float64 given the past, and the carry."""
        from fitspike.models.glm_drive import intensity

        return intensity(self, params, chunk, carry)

    def rollout(
        self,
        params: Params,
        context: SpikeChunk,
        *,
        uniforms: torch.Tensor,
        observed: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        carry: Carry = None,
    ) -> Rollout:
        """Drive the model over the bins of `context`: clamped, free or mixed; see `fitspike.models.base.Model`.

        All three take the same path, so a replayed free run gives its drives again bit for bit. Drives saturate at 100 expected spikes
        per bin. Spikes carry no gradient.
        """
        from fitspike.models.glm_drive import rollout

        return rollout(self, params, context, uniforms, observed, observed_mask, carry)

    def connectivity(self, params: Params, extras: Mapping[str, Any]) -> Connectivity:
        """Return the couplings [post, pre] as log gains per spike, with Wald tests if the fit kept coefficient covariances.

        Under a ridge the covariances are those of the penalised fit, which makes the p-values approximate.

        Raises
        ------
        InvalidInputError
            If the model was fitted without coupling filters.
        """
        from fitspike.models.connectivity import from_basis_weights

        if "coupling" not in params:
            raise InvalidInputError("this coupled GLM has no coupling filters. Fit again with coupling_ms above 0, such as coupling_ms=50.")
        value = params["coupling"]
        return from_basis_weights(value.detach().cpu().numpy() if hasattr(value, "detach") else value, extras)

    def filters(self, params: Params) -> dict[str, np.ndarray]:
        """Return the filters of history, coupling, population and signals as functions of lag; see `glm_filters.filters`."""
        from fitspike.models.glm_filters import filters

        return filters(self, params)

    def stability(self, params: ParamArrays, *, rates_hz: np.ndarray | None = None, seed: int = 0) -> Mapping[str, Any]:
        """Return {"is_stable", "message", ...}: whether free activity under these filters runs away.

        Judged by free runs of 10 s without covariates (up to 100 of them, fewer for large networks): a neuron that passes 200 Hz over a
        second, and five times its recorded rate if `rates_hz` (n_neurons,) is given, has run away. "linear_gain" above 1 beside it says
        that small changes grow on average. runaway (n_neurons,) bool says which neurons do, runaway_alone which do by their own history.
        """
        from fitspike.models.stability import stability

        return stability(self, params, rates_hz=rates_hz, seed=seed)
