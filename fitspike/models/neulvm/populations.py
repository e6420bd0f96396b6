"""The hidden populations: their constants, which of them are fitted, and the map between a fit's vector and the constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fitspike.kernels.mesoscopic import Constants
from fitspike.types import ParamArrays

PRESETS = ("connectivity", "shared", "full")

# Physical ranges a fit stays in: membrane time constant, s; rest minus threshold, escape-noise units; coupling up to four times the
# largest of the reference network.
TAU_RANGE_S = (0.005, 0.05)
REST_ABOVE_THRESHOLD = (-5.0, 20.0)
COUPLING_MAX = 80.0


@dataclass(frozen=True, eq=False)
class FreeSet:
    """Which constants a fit may move. The vector is [log outgoing weights | log tau | rest | threshold], the last three by preset.

    connectivity: the weights alone. shared: one tau, rest and threshold for all populations. full: one per population.
    pattern [post, pre] (n_populations, n_populations): what an outgoing weight of 1 does to each target, sign included.
    """

    pattern: np.ndarray
    preset: str = "connectivity"

    @property
    def n_populations(self) -> int:
        """Return the number of populations."""
        return len(self.pattern)

    @property
    def n_constants(self) -> int:
        """Return how many values of tau, of rest and of threshold are free."""
        return {"connectivity": 0, "shared": 1, "full": self.n_populations}[self.preset]

    def vector(self, constants: Constants) -> np.ndarray:
        """Return the vector of given constants; an outgoing weight is the mean over its targets."""
        weights = self._outgoing(constants.coupling)
        if not self.n_constants:
            return np.log(weights)
        parts = [np.log(constants.tau_s), constants.rest, constants.threshold]
        if self.preset == "shared":
            parts = [np.mean(part, keepdims=True) for part in parts]
        return np.concatenate([np.log(weights), *parts])

    def _outgoing(self, coupling: np.ndarray) -> np.ndarray:
        used = self.pattern != 0
        ratio = np.divide(coupling, self.pattern, out=np.zeros_like(self.pattern), where=used)
        n_targets = used.sum(axis=0)
        # The weight of a population that reaches none has no effect; 1 keeps its logarithm finite.
        return np.where(n_targets > 0, np.maximum(ratio.sum(axis=0) / np.maximum(n_targets, 1), 1e-3), 1.0)

    def constants(self, vector: np.ndarray, base: Constants) -> Constants:
        """Return `base` with the free values replaced."""
        n, m = self.n_populations, self.n_constants
        changes: dict[str, np.ndarray] = {"coupling": self.pattern * np.exp(vector[:n])[None, :]}
        if m:
            tau, rest, threshold = vector[n : n + m], vector[n + m : n + 2 * m], vector[n + 2 * m :]
            changes |= {
                "tau_s": np.broadcast_to(np.exp(tau), (n,)),
                "rest": np.broadcast_to(rest, (n,)),
                "threshold": np.broadcast_to(threshold, (n,)),
            }
        return replace(base, **changes)

    def chain(self, vector: np.ndarray, gradient: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the gradient in the vector from gradients in coupling, tau_s, rest and threshold."""
        n, m = self.n_populations, self.n_constants
        parts = [(gradient["coupling"] * self.pattern).sum(axis=0) * np.exp(vector[:n])]
        if m:
            tau = np.exp(vector[n : n + m])
            parts.append(self._pool(gradient["tau_s"]) * tau)
            parts += [self._pool(gradient["rest"]), self._pool(gradient["threshold"])]
        return np.concatenate(parts)

    def _pool(self, values: np.ndarray) -> np.ndarray:
        return values.sum(keepdims=True) if self.preset == "shared" else values

    def scale(self) -> np.ndarray:
        """Return how far values of the vector are moved to measure gradients: about their standard errors in 10 s of nine neurons."""
        n, m = self.n_populations, self.n_constants
        return np.concatenate([np.full(n + m, 0.012), np.full(2 * m, 0.05)])

    def wide(self) -> np.ndarray:
        """Return the standard deviations of random starts."""
        n, m = self.n_populations, self.n_constants
        return np.concatenate([np.full(n, 0.5), np.full(m, 0.3), np.full(m, 1.0), np.full(m, 0.3)])

    def labels(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return what each value of the vector is, in words."""
        which = {0: (), 1: (" of all",), self.n_populations: tuple(f" of {name}" for name in names)}[self.n_constants]
        constants = [f"{what}{one}" for what in ("log tau_m", "rest", "threshold") for one in which]
        return (*(f"log weight of {name}" for name in names), *constants)

    def bounds(self, base: Constants) -> list[tuple[float, float]]:
        """Return the physical range of each entry of the vector."""
        m = self.n_constants
        low, high = REST_ABOVE_THRESHOLD
        threshold = float(np.mean(base.threshold))
        return (
            [(np.log(1e-2), np.log(COUPLING_MAX))] * self.n_populations
            + [(np.log(TAU_RANGE_S[0]), np.log(TAU_RANGE_S[1]))] * m
            + [(threshold + low, threshold + high)] * m
            + [(threshold - 3.0, threshold + 3.0)] * m
        )


def as_params(constants: Constants) -> dict[str, np.ndarray]:
    """Return the constants as a model's parameters, times in ms, coupling [post, pre]."""
    return {
        "coupling": constants.coupling.copy(),
        "tau_m_ms": constants.tau_s * 1e3,
        "rest": constants.rest.copy(),
        "threshold": constants.threshold.copy(),
        "tau_syn_ms": constants.tau_syn_s * 1e3,
        "n_neurons": constants.n_neurons.copy(),
        "t_ref_ms": np.array([constants.t_ref_s * 1e3]),
        "delay_ms": np.array([constants.delay_bins * constants.dt_s * 1e3]),
    }


def as_constants(params: ParamArrays, dt_ms: float, n_ages: int = 0) -> Constants:
    """Return the constants that parameters stand for, on bins of `dt_ms`."""
    value = {name: np.asarray(v, dtype=np.float64) for name, v in params.items()}
    return Constants(
        tau_s=value["tau_m_ms"] / 1e3,
        rest=value["rest"],
        threshold=value["threshold"],
        coupling=value["coupling"],
        tau_syn_s=value["tau_syn_ms"] / 1e3,
        n_neurons=value["n_neurons"],
        dt_s=dt_ms / 1e3,
        t_ref_s=float(value["t_ref_ms"][0]) / 1e3,
        delay_bins=round(float(value["delay_ms"][0]) / dt_ms),
        n_ages=n_ages,
    )
