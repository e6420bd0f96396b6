"""Which weights a coupled GLM has for given data, where each sits in a target neuron's row of weights, and its parameters' specs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fitspike.errors import InvalidInputError, Problems, did_you_mean
from fitspike.models.base import DataInfo
from fitspike.models.bases import LagBasis, lag_basis
from fitspike.params import ParamSpec, sign
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.coupled_glm import CoupledGLM

_TRUCCOLO = "Truccolo et al. 2005, J. Neurophysiol. 93:1074, Eqs. 3-11"
_PILLOW = "Pillow et al. 2008, Nature 454:995"

_HIGHEST_DRIVE = 700.0  # exp of more overflows

_EXCITATORY = ("e", "exc", "excitatory", "pyr", "pyramidal", "ex", "rs")
_INHIBITORY = ("i", "inh", "inhibitory", "int", "interneuron", "in", "fs")


@dataclass(frozen=True)
class Term:
    """A group of weights: `name` of its parameter, its columns `start:stop` in a row, and what the shared ridge setting is called."""

    name: str
    start: int
    stop: int
    ridge: str

    @property
    def columns(self) -> slice:
        """Return the columns of this term."""
        return slice(self.start, self.stop)

    @property
    def n_columns(self) -> int:
        """Return how many there are."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Layout:
    """The weights of every target neuron as one row: bias | covariates | population | history | coupling (pre-major, own place unused).

    Terms before history are covariates, the same for all targets but for the population's, from which a target's own spikes are taken out.
    """

    model: CoupledGLM
    n_neurons: int
    dt_ms: float
    signal_names: tuple[str, ...]
    signal_channels: tuple[int, ...]
    n_conditions: int
    signs: np.ndarray | None

    @cached_property
    def history(self) -> LagBasis | None:
        """Return the basis of a neuron's own history."""
        return self._spike_basis(self.model.n_history, self.model.history_ms)

    @cached_property
    def coupling(self) -> LagBasis | None:
        """Return the basis of the couplings."""
        return self._spike_basis(self.model.n_coupling, self.model.coupling_ms) if self.n_neurons > 1 else None

    @cached_property
    def population(self) -> LagBasis | None:
        """Return the basis of the population covariate."""
        return self._spike_basis(self.model.n_population, self.model.population_ms) if self.n_neurons > 1 else None

    def _spike_basis(self, n_basis: int, window_ms: float) -> LagBasis | None:
        return lag_basis(self.model.basis, n_basis, window_ms, self.dt_ms) if n_basis and window_ms else None

    @property
    def n_signal_channels(self) -> int:
        """Return the number of channels of all signals used."""
        return sum(self.signal_channels)

    @property
    def signal_bins(self) -> tuple[int, int]:
        """Return how many bins the signal filters reach back and how many they reach ahead."""
        return round(self.model.signal_before_ms / self.dt_ms), round(self.model.signal_after_ms / self.dt_ms)

    @cached_property
    def terms(self) -> Mapping[str, Term]:
        """Return the terms by name, in the order of their columns."""
        model, at, terms = self.model, 1, {"bias": Term("bias", 0, 1, "")}
        sizes = [
            ("signal", self.n_signal_channels * model.n_signal, "ridge_signal"),
            ("trial_time", model.n_time_bumps if model.trial_time else 0, "ridge_time"),
            ("condition_time", self.n_conditions * model.n_time_bumps if model.condition_time else 0, "ridge_time"),
            ("drift", model.drift_bumps, "ridge_drift"),
            ("population", self.population.n_basis if self.population else 0, "ridge_population"),
            ("history", self.history.n_basis if self.history else 0, "ridge_history"),
            ("coupling", self.n_neurons * self.coupling.n_basis if self.coupling else 0, "ridge_coupling"),
        ]
        for name, size, ridge in sizes:
            if size:
                terms[name] = Term(name, at, at + size, ridge)
                at += size
        return terms

    @property
    def n_weights(self) -> int:
        """Return the length of a row, bias included."""
        return max(term.stop for term in self.terms.values())

    @property
    def n_covariates(self) -> int:
        """Return the number of columns between bias and history, the population's included."""
        spikes = [self.terms[name].start for name in ("history", "coupling") if name in self.terms]
        return (min(spikes) if spikes else self.n_weights) - 1

    @cached_property
    def free(self) -> np.ndarray:
        """Return which weights of each target exist, (n_neurons, n_weights) bool: all but a neuron's coupling to itself."""
        mask = np.ones((self.n_neurons, self.n_weights), dtype=bool)
        if "coupling" in self.terms:
            block = mask[:, self.terms["coupling"].columns].reshape(self.n_neurons, self.n_neurons, -1)
            block[np.arange(self.n_neurons), np.arange(self.n_neurons)] = False
        return mask

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a term's parameter."""
        n, bumps = self.n_neurons, self.model.n_time_bumps
        if name == "bias":
            return (n,)
        if name == "signal":
            return (n, self.n_signal_channels, self.model.n_signal)
        if name == "condition_time":
            return (n, self.n_conditions, bumps)
        if name == "coupling":
            return (n, n, self.coupling.n_basis)
        return (n, self.terms[name].n_columns)

    def pack(self, params: ParamArrays) -> np.ndarray:
        """Return the weights as rows, (n_neurons, n_weights) float64."""
        return np.concatenate([np.asarray(params[name], dtype=np.float64).reshape(self.n_neurons, -1) for name in self.terms], axis=1)

    def unpack(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the parameters of rows of weights."""
        return {name: np.ascontiguousarray(rows[:, term.columns]).reshape(self.shape(name)) for name, term in self.terms.items()}

    def ridge(self) -> np.ndarray:
        """Return the ridge on every weight, (n_neurons, n_weights); 0 on the bias."""
        ridge = np.zeros((self.n_neurons, self.n_weights))
        for term in self.terms.values():
            if term.ridge:
                ridge[:, term.columns] = np.asarray(getattr(self.model, term.ridge), dtype=np.float64).reshape(-1, 1)
        return ridge

    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the lowest and highest value of every weight under Dale's law, each (n_neurons, n_weights), or None."""
        if self.signs is None or "coupling" not in self.terms:
            return None
        low = np.full((self.n_neurons, self.n_weights), -np.inf)
        high = np.full_like(low, np.inf)
        sign_of = np.repeat(self.signs, self.coupling.n_basis)
        low[:, self.terms["coupling"].columns] = np.where(sign_of > 0, 0.0, -np.inf)
        high[:, self.terms["coupling"].columns] = np.where(sign_of < 0, 0.0, np.inf)
        return low, high

    def param_specs(self, mean_count: np.ndarray | None) -> dict[str, ParamSpec]:
        """Return the specs: the weights, then the fixed numbers that place signals, trial time and drift."""
        mean = np.full(self.n_neurons, 0.01) if mean_count is None else np.maximum(np.nan_to_num(mean_count), 1e-6)
        bias = np.log(mean) if self.model.emission == "poisson" else np.log(mean / (1.0 - np.minimum(mean, 0.999)))
        axes = {
            "bias": ("post",),
            "signal": ("post", "channel", "basis"),
            "trial_time": ("post", "time"),
            "condition_time": ("post", "condition", "time"),
            "drift": ("post", "time"),
            "population": ("post", "basis"),
            "history": ("post", "basis"),
            "coupling": ("post", "pre", "basis"),
        }
        doc = {
            "bias": "drive without spikes and covariates; drive is the log of the expected count (poisson) or the log-odds (bernoulli)",
            "signal": "weight of a filtered signal channel, per standard deviation unless standardise_signals is off",
            "trial_time": "height of a raised-cosine bump over trial time",
            "condition_time": "the same, in one condition",
            "drift": "height of a raised-cosine bump over the recording",
            "population": "total effect of one standard deviation of the summed count of the other neurons",
            "history": "total log gain after an own spike, spread over lags by the basis",
            "coupling": "total log gain after a spike of the presynaptic neuron, spread over lags by the basis; 0 on the diagonal",
        }
        source = {"bias": _TRUCCOLO, "history": _TRUCCOLO, "coupling": _PILLOW, "signal": _PILLOW}
        symbol = {"bias": "b", "history": "h", "coupling": "w", "signal": "k"}
        specs = {}
        for name in self.terms:
            shape = self.shape(name)
            is_signed = name == "coupling" and self.signs is not None
            specs[name] = ParamSpec(
                shape,
                "1",
                init=bias if name == "bias" else 0.0,
                axes=axes[name],
                symbol=symbol.get(name, ""),
                source=source.get(name, ""),
                doc=doc[name],
                **({"constraint": sign(self.signs.astype(int)[None, :, None])} if is_signed else {}),
            )
        fixed = {
            "dt_ms": ((1,), "ms", self.dt_ms, "bin width that bias and filters belong to"),
            "signal_offset": ((self.n_signal_channels,), "1", 0.0, "mean of each signal channel, taken off before filtering"),
            "signal_scale": ((self.n_signal_channels,), "1", 1.0, "standard deviation of each signal channel, divided by before filtering"),
            "population_scale": ((1,), "1", 1.0, "standard deviation of the summed count of all neurons in a bin"),
            "trial_range_s": ((2,), "s", np.array([0.0, 1.0]), "trial times of the first and the last bump"),
            "drift_range_s": ((2,), "s", np.array([0.0, 1.0]), "recording times of the first and the last bump"),
            "drive_ceiling": ((self.n_neurons,), "1", _HIGHEST_DRIVE, "value at which drives are cut, a quantile of those in training"),
            "condition_code": ((self.n_conditions,), "1", 0.0, "CRC-32 of each condition's name, in the order of condition_time"),
        }
        for name in self.fixed_names:
            shape, unit, init, text = fixed[name]
            specs[name] = ParamSpec(shape, unit, init=init, trainable=False, doc=text)
        return specs

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """Return the names of the parameters that are set from the data and not fitted."""
        needs = {
            "signal": ("signal_offset", "signal_scale"),
            "population": ("population_scale",),
            "trial_time": ("trial_range_s",),
            "condition_time": ("trial_range_s", "condition_code"),
            "drift": ("drift_range_s",),
        }
        names = [name for term in self.terms for name in needs.get(term, ())]
        return tuple(dict.fromkeys(["dt_ms", *names, *(["drive_ceiling"] if self.model.ceiling else [])]))


def layout_from_shapes(model: CoupledGLM, shapes: Mapping[str, tuple[int, ...]], channels: Mapping[str, int], dt_ms: float) -> Layout:
    """Return the layout that fitted parameters of these shapes have; `channels` of each signal, by name."""
    return _layout_from_shapes(model, tuple(shapes.items()), tuple(channels.items()), dt_ms)


@lru_cache(maxsize=32)
def _layout_from_shapes(model: CoupledGLM, shapes: tuple, channels: tuple, dt_ms: float) -> Layout:
    shape = dict(shapes)
    n_conditions = shape["condition_time"][1] if "condition_time" in shape else 0
    data = DataInfo(shape["bias"][0], 1, dt_ms, np.ones(1, dtype=np.int64), signals=dict(channels), n_conditions=n_conditions)
    model = model.resolved(data)
    changes = {
        "condition_time": "condition_time" in shape,
        "trial_time": "trial_time" in shape,
        "n_time_bumps": shape.get("condition_time", shape.get("trial_time", (model.n_time_bumps,)))[-1],
        "drift_bumps": shape["drift"][1] if "drift" in shape else 0,
        "n_signal": shape["signal"][2] if "signal" in shape else model.n_signal,
        "signals": tuple(name for name, _ in channels),
        "dale": False,
    }
    for term in ("history", "coupling", "population"):
        changes[f"n_{term}"] = shape[term][-1] if term in shape else 0
    for ridge in ("ridge_signal", "ridge_time", "ridge_drift", "ridge_population", "ridge_history", "ridge_coupling", "sparsity_coupling"):
        changes[ridge] = 0.0
    return make_layout(replace(model, **changes), data)


def check_finite(params: ParamArrays) -> None:
    """Raise InvalidInputError if a parameter of a free run is NaN or infinite: a drive of NaN never reaches a spike, which looks calm."""
    bad = [name for name, value in params.items() if name != "drive_ceiling" and not np.isfinite(value).all()]
    if bad:
        raise InvalidInputError(
            f"parameters {', '.join(bad)} of the coupled GLM hold NaN or infinite values, with which it cannot run freely. "
            "For absolute refractoriness give a log gain such as -30 at the first lags, not -inf."
        )


def condition_codes(names: Sequence[str]) -> np.ndarray:
    """Return a number per condition name by which fitted weights are found again, (n_conditions,) float64."""
    return np.array([float(zlib.crc32(name.encode())) for name in names])


def make_layout(model: CoupledGLM, data: DataInfo) -> Layout:
    """Return the layout of a model without open settings for data of this shape.

    Raises
    ------
    InvalidInputError
        With every setting that does not fit the data.
    """
    problems = Problems("coupled-glm")
    names = tuple(sorted(data.signals)) if model.signals == "all" else tuple(model.signals)
    for name in names:
        if name not in data.signals:
            problems.add(
                f"signals names {name!r}{did_you_mean(name, data.signals)} The recording has: {', '.join(data.signals) or 'none'}."
            )
    if model.condition_time and not data.n_conditions:
        problems.add("condition_time is on, but the trials carry no conditions. Attach conditions, or use trial_time.")
    signs = None
    try:
        signs = dale_signs(model.dale, data.populations, data.n_neurons)
    except InvalidInputError as error:
        problems.add_error(error)
    for name in ("ridge_signal", "ridge_time", "ridge_drift", "ridge_population", "ridge_history", "ridge_coupling", "sparsity_coupling"):
        value = np.asarray(getattr(model, name), dtype=np.float64)
        if value.ndim > 1 or (value.ndim == 1 and value.size != data.n_neurons):
            problems.add(f"{name} has shape {value.shape}; give one number or one per neuron ({data.n_neurons},).")
    problems.raise_if_any()
    channels = tuple(int(data.signals[name]) for name in names)
    n_conditions = int(data.n_conditions) if model.condition_time else 0
    layout = Layout(model, data.n_neurons, data.dt_ms, names, channels, n_conditions, signs)
    if model.basis == "exponential":
        bases = [basis for basis in (layout.history, layout.coupling, layout.population) if basis is not None]
        if any(not np.array_equal(basis.decay, bases[0].decay) for basis in bases[1:]):
            raise InvalidInputError(
                "coupled-glm: exponential filters share their time constants between history, coupling and population. "
                "Give them the same window and the same number of functions, or another basis."
            )
    return layout


def dale_signs(dale: bool | Sequence[int], populations: Sequence[str], n_neurons: int) -> np.ndarray | None:
    """Return +1, -1 or 0 (free) per presynaptic neuron, or None without Dale's law.

    `dale=True` reads the population labels: excitatory, exc, E, pyramidal, RS against inhibitory, inh, I, interneuron, FS; others are free.
    """
    if isinstance(dale, bool | np.bool_):
        if not dale:
            return None
        first = [label.lower().replace("-", " ").replace("_", " ").split(" ")[0] if label else "" for label in populations]
        signs = np.array([1 if label in _EXCITATORY else -1 if label in _INHIBITORY else 0 for label in first])
        if len(signs) != n_neurons or not signs.any():
            raise InvalidInputError(
                "dale is on, but no population label says which neurons are excitatory or inhibitory. Label them by "
                "recording.attach(neuron_columns={'population': ['excitatory', 'inhibitory', ...]}), or give dale a sign (+1, -1, 0) per "
                'neuron, as in --set "dale=[1, -1, ...]".'
            )
        return signs
    signs = np.asarray(dale)
    if signs.shape != (n_neurons,) or not np.isin(signs, (-1, 0, 1)).all():
        raise InvalidInputError(f"dale must be True, False or one sign (+1, -1, 0) per neuron ({n_neurons},); got shape {signs.shape}.")
    return signs.astype(int)
