"""neuLVM: whole hidden populations inferred from a few recorded neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fitspike.citation import Citation
from fitspike.errors import Problems
from fitspike.kernels.mesoscopic import Constants
from fitspike.models.base import DataInfo, Rollout, SolverContext, SolverReport
from fitspike.models.neulvm.populations import PRESETS, as_constants
from fitspike.params import ParamSpec, interval, positive
from fitspike.rng import Stream
from fitspike.types import Carry, ParamArrays, Params

if TYPE_CHECKING:
    import torch

    from fitspike.recording.binned import BinnedSpikes, SpikeChunk

MOST_CLUSTERED = 5
"""Populations that may be found by clustering: each of up to 120 assignments of clusters to roles is a start."""
_SOURCE = "Wang, Schmutz, Bellec, Gerstner 2022"


@dataclass(frozen=True)
class NeuLVM:
    """Settings of the mesoscopic latent-variable model.

    Each population is homogeneous: leaky integrate-and-fire neurons with membrane time constant tau_m, rest and escape threshold in units
    of the escape noise (hazard exp(u - threshold) Hz, reset 0), coupled all to all through their population's filtered rate. Which
    recorded neuron belongs to which population is read from the neurons' population labels, or found by clustering.

    n_neurons : neurons in each population, a number or one per population; required, since the recording cannot say it
    signs : +1 (excitatory) or -1 (inhibitory) per population, in the order of `population_names`; required
    pattern : [post, pre] which population reaches which, 1 or 0; default: all reach all
    membership : "labels" or "cluster"
    n_populations : how many populations to cluster into; with labels, their number unless given
    allow_unobserved : accept populations without a recorded neuron
    free : "connectivity" (outgoing weights only), "shared" (and one tau, rest, threshold for all) or "full" (one per population)
    tau_m_ms, rest, threshold, tau_syn_ms : a number or one per population; start values where they are free
    weight : start value of the outgoing weights
    t_ref_ms, delay_ms : absolute refractory time, synaptic delay
    input_signal : name of a signal with one channel per population, an input in units of escape noise per second
    history_s : start of each trial whose population activity is taken from smoothed spikes and not scored
    piece_s : longer trials are fitted in pieces of this length, each with its own history
    smoothing_ms : sds of the Gaussian that smooths spikes for first guesses; the start with the highest likelihood is taken
    n_random_starts : further starts from random constants, for each smoothing
    solver : "particle-em" (EM, then the gradient of the marginal likelihood), "gradient" (that alone), or "hard-em" as published
    n_particles, n_iterations : of a filter; of EM
    n_points, n_rounds : points at which the marginal gradient is measured in a round, and rounds after EM
    """

    name: ClassVar[str] = "neulvm"
    citation: ClassVar[tuple[Citation, ...]] = (
        Citation(
            "Wang S, Schmutz V, Bellec G, Gerstner W (2022). Mesoscopic modeling of hidden spiking neurons. "
            "Advances in Neural Information Processing Systems 35"
        ),
        Citation(
            "Schwalger T, Deger M, Gerstner W (2017). Towards a theory of cortical columns: From spiking neurons to interacting neural "
            "populations of finite size. PLoS Comput. Biol. 13:e1005507",
            doi="10.1371/journal.pcbi.1005507",
        ),
    )
    emissions: ClassVar[tuple[str, ...]] = ("bernoulli",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    conformance_settings: ClassVar[Mapping[str, Any]] = {
        "n_neurons": 50,
        "signs": (1,),
        "membership": "cluster",
        "n_populations": 1,
        "t_ref_ms": 0.0,
        "rest": 6.0,
        "weight": 0.5,
        "history_s": 0.02,
        "n_particles": 20,
        "n_iterations": 2,
        "n_points": 4,
    }

    n_neurons: float | tuple[float, ...] | None = None
    signs: tuple[int, ...] | None = None
    pattern: tuple[tuple[float, ...], ...] | None = None
    membership: str = "labels"
    n_populations: int | None = None
    allow_unobserved: bool = False
    free: str = "connectivity"
    tau_m_ms: float | tuple[float, ...] = 20.0
    rest: float | tuple[float, ...] = 14.4
    threshold: float | tuple[float, ...] = 3.7
    tau_syn_ms: float | tuple[float, ...] = 3.0
    weight: float = 5.0
    t_ref_ms: float = 4.0
    delay_ms: float = 0.0
    input_signal: str | None = None
    history_s: float = 1.0
    piece_s: float = 20.0
    smoothing_ms: float | tuple[float, ...] = (100.0, 200.0, 400.0)
    n_random_starts: int = 0
    solver: str = "particle-em"
    n_particles: int = 200
    n_iterations: int = 6
    n_points: int = 16
    n_rounds: int = 2
    emission: str = "auto"

    def __post_init__(self) -> None:
        for name in ("n_neurons", "signs", "tau_m_ms", "rest", "threshold", "tau_syn_ms", "smoothing_ms"):
            value = getattr(self, name)
            if isinstance(value, list | np.ndarray):
                object.__setattr__(self, name, tuple(value))
        if self.pattern is not None:
            object.__setattr__(self, "pattern", tuple(tuple(float(x) for x in row) for row in self.pattern))
        problems = Problems("neulvm settings")
        for name, known in (("free", PRESETS), ("membership", ("labels", "cluster")), ("solver", ("particle-em", "gradient", "hard-em"))):
            if getattr(self, name) not in known:
                problems.add(f"{name}={getattr(self, name)!r}. Known: {', '.join(known)}.")
        if self.emission not in ("auto", "bernoulli"):
            problems.add(f"emission={self.emission!r}. The model's own escape noise is Bernoulli; leave it at 'auto'.")
        if self.n_neurons is not None and not (np.asarray(self.n_neurons, dtype=float) >= 1).all():
            problems.add(f"n_neurons={self.n_neurons!r} must be at least 1.")
        if self.signs is not None and any(sign not in (1, -1) for sign in self.signs):
            problems.add(f"signs={self.signs!r} is not made of +1 and -1. Give one per population, such as signs=(1, 1, -1).")
        if self.membership == "cluster" and not self.n_populations:
            problems.add("membership='cluster' needs n_populations.")
        for name in ("tau_m_ms", "tau_syn_ms", "piece_s", "smoothing_ms", "weight"):
            if not (np.asarray(getattr(self, name), dtype=float) > 0).all():
                problems.add(f"{name}={getattr(self, name)!r} must be positive.")
        for name, least in (
            ("history_s", 0),
            ("delay_ms", 0),
            ("t_ref_ms", 0),
            ("n_random_starts", 0),
            ("n_particles", 2),
            ("n_iterations", 1),
            ("n_points", 4),
            ("n_rounds", 0),
        ):
            if not getattr(self, name) >= least:
                problems.add(f"{name}={getattr(self, name)} must be at least {least}.")
        problems.raise_if_any()

    @property
    def smoothings_ms(self) -> tuple[float, ...]:
        """Return `smoothing_ms` as a tuple."""
        return self.smoothing_ms if isinstance(self.smoothing_ms, tuple) else (self.smoothing_ms,)

    # -- populations ----------------------------------------------------------------------------------------------------------------

    def population_names(self, data: DataInfo) -> tuple[str, ...]:
        """Return the populations' names: sorted labels, then numbers for unobserved or clustered ones."""
        count = self.n_populations
        if self.membership == "cluster":
            return tuple(f"population {m}" for m in range(int(count or 0)))
        names = sorted({label for label in data.populations if label})
        return (*names, *(f"unobserved {m}" for m in range(len(names), int(count or len(names)))))

    def _checked_names(self, data: DataInfo) -> tuple[str, ...]:
        names = self.population_names(data)
        n = len(names)
        problems = Problems("neulvm")
        if self.n_neurons is None:
            problems.add("n_neurons is missing. Say how many neurons each population has, such as n_neurons=(400, 400, 200).")
        if self.signs is None:
            problems.add("signs is missing. Give +1 (excitatory) or -1 (inhibitory) per population, such as signs=(1, 1, -1).")
        if self.membership == "labels" and (n_bare := sum(not label for label in data.populations)):
            problems.add(
                f"{n_bare} of {data.n_neurons} neurons carry no population label. Attach a population column, leave those neurons out, or "
                "use membership='cluster'."
            )
        if self.membership == "labels" and any(name.startswith("unobserved ") for name in names) and not self.allow_unobserved:
            problems.add(
                "some populations have no recorded neuron, so nothing but the couplings constrains them. Set allow_unobserved to fit "
                "them all the same, or lower n_populations."
            )
        if self.membership == "labels" and self.n_populations and self.n_populations < n:
            problems.add(f"n_populations={self.n_populations}, but the labels name {n} ({', '.join(names)}). Leave it out.")
        if self.membership == "cluster" and n > MOST_CLUSTERED:
            problems.add(
                f"n_populations={n}: clusters are tried in every role, which is possible for {MOST_CLUSTERED} at most. Give labels instead."
            )
        if self.membership == "labels" and np.size(self.n_neurons) in (1, n) and self.n_neurons is not None:
            for name, size in zip(names, np.broadcast_to(self.n_neurons, n), strict=True):
                if (recorded := data.populations.count(name)) > size:
                    problems.add(f"{recorded} neurons of {name} were recorded, more than the {size:g} that n_neurons gives it.")
        if n and self.signs is not None and len(self.signs) != n:
            problems.add(f"{len(self.signs)} signs for {n} populations ({', '.join(names)}).")
        for name in ("n_neurons", "tau_m_ms", "rest", "threshold", "tau_syn_ms"):
            value = np.asarray(getattr(self, name), dtype=float)
            if value.ndim and value.shape != (n,):
                problems.add(f"{name} has {value.size} values for {n} populations ({', '.join(names)}).")
        if self.pattern is not None and np.shape(self.pattern) != (n, n):
            problems.add(f"pattern has shape {np.shape(self.pattern)}; expected [post, pre] with {n} populations.")
        if data.mean_count is not None and self.t_ref_ms > 0:
            limit = data.dt_ms / self.t_ref_ms
            if (np.nan_to_num(data.mean_count) >= limit).any():
                fast = int(np.nanargmax(data.mean_count))
                problems.add(
                    f"neuron {fast} fires {data.mean_count[fast] / data.dt_ms * 1e3:.0f} Hz, above the limit of {1e3 / self.t_ref_ms:.0f} "
                    f"Hz that t_ref_ms={self.t_ref_ms} allows. Lower t_ref_ms, or leave the neuron out."
                )
        if self.input_signal is not None and data.signals.get(self.input_signal) != n:
            problems.add(f"input_signal {self.input_signal!r} must be a signal with {n} channels, one per population.")
        problems.raise_if_any()
        return names

    def signed_pattern(self, n_populations: int) -> np.ndarray:
        """Return what an outgoing weight of 1 does, [post, pre], sign included."""
        reach = np.ones((n_populations, n_populations)) if self.pattern is None else np.asarray(self.pattern, dtype=float)
        assert self.signs is not None
        return np.abs(reach) * np.asarray(self.signs, dtype=float)[None, :]

    def start_constants(self, n_populations: int, dt_ms: float) -> Constants:
        """Return the constants that the settings give, on bins of `dt_ms`."""

        def each(value: object) -> np.ndarray:
            return np.broadcast_to(np.asarray(value, dtype=float), (n_populations,))

        return Constants(
            each(self.tau_m_ms) / 1e3,
            each(self.rest),
            each(self.threshold),
            self.signed_pattern(n_populations) * self.weight,
            each(self.tau_syn_ms) / 1e3,
            each(self.n_neurons),
            dt_ms / 1e3,
            self.t_ref_ms / 1e3,
            round(self.delay_ms / dt_ms),
        )

    # -- protocol -------------------------------------------------------------------------------------------------------------------

    def param_specs(self, data: DataInfo) -> Mapping[str, ParamSpec]:
        """Return the specs of couplings and constants; `membership` holds each recorded neuron's population."""
        names = self._checked_names(data)
        n = len(names)
        start = self.start_constants(n, data.dt_ms)
        labels = np.array([names.index(label) if label in names else 0 for label in data.populations], dtype=float)
        each, free = (n,), self.free != "connectivity"

        def fixed(shape: tuple[int, ...], unit: str, init: object, doc: str, trainable: bool = False, **more: Any) -> ParamSpec:
            return ParamSpec(shape, unit, init=init, trainable=trainable, doc=doc, source=_SOURCE, **more)

        return {
            "coupling": fixed((n, n), "1", start.coupling, "input (du/dt) per Hz of filtered rate", True, axes=("post", "pre"), symbol="W"),
            "tau_m_ms": fixed(each, "ms", start.tau_s * 1e3, "membrane time constant", free, constraint=positive, symbol="tau_m"),
            "rest": fixed(each, "1", start.rest, "resting potential and constant drive, units of escape noise", free, symbol="r"),
            "threshold": fixed(each, "1", start.threshold, "hazard exp(u - threshold) Hz", free, symbol="theta"),
            "tau_syn_ms": fixed(each, "ms", start.tau_syn_s * 1e3, "synaptic filter of the presynaptic population", constraint=positive),
            "n_neurons": fixed(each, "1", start.n_neurons, "neurons in the population", constraint=positive),
            "t_ref_ms": fixed((1,), "ms", self.t_ref_ms, "absolute refractory time"),
            "delay_ms": fixed((1,), "ms", self.delay_ms, "synaptic delay"),
            "mean_rate_hz": fixed(each, "Hz", 5.0, "mean population rate of the training data, the state a trial starts from"),
            "membership": fixed((data.n_neurons,), "1", labels, "population of each recorded neuron", constraint=interval(0, max(n, 1))),
        }

    def populations(self, params: Params, extras: Mapping[str, Any], dt_ms: float, stream: Stream) -> Mapping[str, np.ndarray]:
        """Return couplings with their errors, inferred and free activity, dwell times and answers to pulses; see `HasPopulations`."""
        from fitspike.models.neulvm.activity import summary

        arrays = _arrays(params)
        constants = as_constants(arrays, dt_ms)
        n = len(constants.tau_s)
        excitatory = np.flatnonzero((constants.coupling >= 0).all(axis=0) & (constants.coupling > 0).any(axis=0))
        found: dict[str, np.ndarray] = {
            "names": np.asarray(extras.get("population_names", [f"population {m}" for m in range(n)])),
            "coupling": constants.coupling,
            "membership": arrays["membership"].astype(np.int64),
        }
        found |= {name: np.asarray(extras[name]) for name in ("coupling_sd", "membership_confidence") if name in extras}
        return found | summary(constants, excitatory, extras, arrays["mean_rate_hz"], stream)

    def latent_specs(self, data: DataInfo) -> Mapping[str, ParamSpec]:
        """Return the spec of one trial's population activity, (n_bins, n_populations) Hz; trials may be shorter."""
        n_bins = int(np.max(data.bins_per_trial, initial=0))
        shape = (n_bins, len(self._checked_names(data)))
        doc = "activity of whole populations"
        return {"population_rate_hz": ParamSpec(shape, "Hz", init=5.0, constraint=positive, axes=("bin", "population"), doc=doc)}

    def log_joint(self, params: Params, latents: Mapping[str, torch.Tensor], chunk: SpikeChunk) -> torch.Tensor:
        """Return log p(spikes, activity) of each trial, (n_trials,) nats, from its first unmasked bin on.

        latents: population_rate_hz (n_trials, n_bins, n_populations). Differentiable in it and in coupling, tau_m_ms, rest and threshold.
        The activity's density is that of the fraction of a population that fires per bin.
        """
        import torch

        from fitspike.models.neulvm.joint import JointLogProb

        arrays = _arrays(params)
        constants = as_constants(arrays, chunk.dt_ms)
        spikes = np.minimum(chunk.dense_numpy("float64"), 1.0)
        drive = self._drive(chunk, len(constants.tau_s))
        rate_hz, total = latents["population_rate_hz"].double(), []
        for row, mask in enumerate(chunk.mask_numpy):
            stop = int(np.flatnonzero(mask).max(initial=-1)) + 1
            total.append(
                JointLogProb.apply(
                    rate_hz[row, :stop] * constants.dt_s,
                    params["tau_m_ms"].double() / 1e3,
                    params["rest"].double(),
                    params["threshold"].double(),
                    params["coupling"].double(),
                    constants,
                    spikes[row, :stop],
                    arrays["membership"].astype(np.int64),
                    drive[row, :stop],
                    int(np.argmax(mask)),
                )
            )
        return torch.stack(total)

    def solve(self, binned: BinnedSpikes, context: SolverContext) -> tuple[ParamArrays, SolverReport]:
        """Return the fitted parameters by particle EM or hard EM."""
        from fitspike.models.neulvm.solve import solve

        return solve(self, binned, context)

    def log_likelihood(self, params: Params, chunk: SpikeChunk, carry: Carry, rng: Stream) -> tuple[torch.Tensor, Carry]:
        """Return each neuron's predictive log-likelihood of a chunk, (n_trials, n_neurons) nats.

        Every bin's spike probability is that given all recorded spikes of the past, by particle filter; the neurons of a bin are scored
        one by one, so the sum is that of the predictive marginals.
        """
        import torch

        predicted, carry = self._predict(params, chunk, carry, rng)
        spikes = np.minimum(chunk.dense_numpy("float64"), 1.0)
        p = np.clip(predicted, 1e-12, 1 - 1e-12)
        log_prob = np.where(spikes > 0, np.log(p), np.log1p(-p)) * chunk.mask_numpy[..., None]
        return torch.as_tensor(log_prob.sum(axis=1)), carry

    def intensity(self, params: Params, chunk: SpikeChunk, carry: Carry) -> tuple[torch.Tensor, Carry]:
        """Return the spike probability of each bin given the recorded past, (n_trials, n_bins, n_neurons)."""
        import torch

        predicted, carry = self._predict(params, chunk, carry, Stream(0, "neulvm/intensity"))
        return torch.as_tensor(predicted), carry

    def _predict(self, params: Params, chunk: SpikeChunk, carry: Carry, rng: Stream) -> tuple[np.ndarray, Carry]:
        from fitspike.models.neulvm.runs import Populations, run_filtered

        populations = Populations.of(_arrays(params), chunk.dt_ms, self.history_s)
        run = run_filtered(
            populations,
            np.minimum(chunk.dense_numpy("float64"), 1.0),
            self._drive(chunk, populations.n_populations),
            [rng.child(f"trial-{trial}") for trial in chunk.trial],
            first_bin=chunk.first_bin,
            n_particles=self.n_particles,
            states=carry,
        )
        return run.predicted, run.states

    def _drive(self, chunk: SpikeChunk, n_populations: int) -> np.ndarray:
        """Return the input of a chunk's trials, (n_trials, n_bins, n_populations) 1/s."""
        if self.input_signal is None:
            return np.zeros((chunk.n_trials, chunk.n_bins, n_populations))
        return chunk.signals[self.input_signal].numpy().astype(np.float64)

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
        """Simulate population activity with finite-size noise, and the recorded neurons as members of their populations.

        Given observed spikes, the activity is filtered: neurons that are not observed fire by their probability given the past of those
        that are, which is the latent "expected"; log_prob is that of the observed ones. The noise of the populations is drawn from
        counters keyed by the uniforms, so that the same uniforms give the same run.
        """
        import torch

        from fitspike.models.neulvm.runs import Populations, run_filtered, run_free

        populations = Populations.of(_arrays(params), context.dt_ms, self.history_s)
        drive, dt_s = self._drive(context, populations.n_populations), context.dt_ms / 1e3
        numbers = np.asarray(uniforms.detach().cpu(), dtype=np.float64)
        if observed is None:
            spikes, fractions, states = run_free(populations, drive, numbers, carry)
            empty = torch.zeros(spikes.shape[::2], dtype=torch.float64)
            return Rollout(torch.as_tensor(spikes), empty, {"population_rate_hz": torch.as_tensor(fractions / dt_s)}, states)
        is_clamped = np.ones(context.n_neurons, dtype=bool) if observed_mask is None else np.asarray(observed_mask.cpu(), dtype=bool)
        states, rng = (None, Stream(int(numbers[0, 0, 0] * 2**32), "neulvm/conditional")) if carry is None else carry
        run = run_filtered(
            populations,
            np.where(is_clamped, np.minimum(observed.detach().cpu().numpy().astype(np.float64), 1.0), 0.0),
            drive,
            [rng.child(f"row-{row}") for row in range(len(numbers))],
            first_bin=context.first_bin,
            n_particles=self.n_particles,
            is_clamped=is_clamped,
            uniforms=numbers,
            states=states,
        )
        p = np.clip(run.predicted, 1e-12, 1 - 1e-12)
        log_prob = np.where(run.spikes > 0, np.log(p), np.log1p(-p)) * is_clamped
        latents = {"expected": torch.as_tensor(run.predicted), "population_rate_hz": torch.as_tensor(run.fractions / dt_s)}
        return Rollout(torch.as_tensor(run.spikes), torch.as_tensor(log_prob.sum(axis=1)), latents, (run.states, rng))


def _arrays(params: Params) -> dict[str, np.ndarray]:
    """Return parameters as float64 arrays."""
    return {name: np.asarray(value.detach().cpu(), dtype=np.float64) for name, value in params.items()}
