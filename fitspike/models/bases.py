"""Basis functions of lag and of time: raised cosines on a logarithmic or a linear axis, boxes, exponentials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitspike.errors import InvalidInputError, UnknownNameError, did_you_mean

BASES = ("raised-cosine", "raised-cosine-linear", "boxes", "exponential")

# Bumps this nearly dependent would leave the weights undetermined; below it their overlap is that of an ordinary raised-cosine basis.
_MAX_CONDITION = 50.0


@dataclass(frozen=True, eq=False)
class LagBasis:
    """A basis of causal filters. `values` (n_basis, n_lags) at lags 1 .. n_lags bins, each row of sum 1.

    An exponential basis goes on past any window, so that it has `decay` (n_basis,) per bin instead: (1 - decay) decay^(lag - 1).
    """

    values: np.ndarray | None
    decay: np.ndarray | None = None

    @property
    def n_basis(self) -> int:
        """Return the number of basis functions."""
        return len(self.decay) if self.decay is not None else len(self.values)

    @property
    def n_lags(self) -> int:
        """Return the number of lags; 0 for exponentials, which have no last one."""
        return 0 if self.values is None else self.values.shape[1]

    def at_lags(self, n_lags: int) -> np.ndarray:
        """Return the basis at lags 1 .. n_lags, (n_basis, n_lags), zero past the window."""
        if self.decay is not None:
            return (1.0 - self.decay[:, None]) * self.decay[:, None] ** np.arange(n_lags)
        padded = np.zeros((self.n_basis, n_lags))
        width = min(n_lags, self.n_lags)
        padded[:, :width] = self.values[:, :width]
        return padded


def lag_basis(kind: str, n_basis: int, window_ms: float, dt_ms: float) -> LagBasis:
    """Return `n_basis` causal filters that reach back `window_ms`.

    Parameters
    ----------
    kind : "raised-cosine" (logarithmic lag axis), "raised-cosine-linear", "boxes" or "exponential"
        The slowest exponential has a time constant of a third of the window, each further one is four times faster.

    Raises
    ------
    InvalidInputError
        If the window has fewer bins than there are functions.
    """
    if kind not in BASES:
        raise UnknownNameError(f"no basis {kind!r}{did_you_mean(kind, BASES)} Known: {', '.join(BASES)}.")
    n_lags = max(1, round(window_ms / dt_ms))
    if kind == "exponential":
        tau_ms = window_ms / 3.0 * 0.25 ** np.arange(n_basis)[::-1]
        return LagBasis(None, np.exp(-dt_ms / tau_ms))
    if n_basis > n_lags:
        raise InvalidInputError(
            f"{n_basis} basis functions in a window of {n_lags} bins ({window_ms:g} ms of {dt_ms:g} ms bins). "
            f"Use at most {n_lags}, a longer window or finer bins."
        )
    if kind == "boxes":
        values = boxes(n_basis, n_lags)
    elif kind == "raised-cosine":
        values = raised_cosine_log(n_basis, n_lags)
    else:
        values = raised_cosine_linear(n_basis, np.linspace(0.0, 1.0, n_lags)) if n_lags > 1 else np.ones((1, 1))
    return LagBasis(values / values.sum(axis=1, keepdims=True))


def raised_cosine_log(n_basis: int, n_lags: int) -> np.ndarray:
    """Return raised cosines on the axis log(lag + offset), (n_basis, n_lags), peaks 1.

    b_j = (1 + cos(clip(pi (x - c_j) / (2 d), -pi, pi))) / 2 with x = log(lag + offset) and centres c_j spaced d apart, as in Pillow et
    al. 2008 (Nature 454:995, supplement). The first function peaks at lag 1, the last has come down to 0 one bin past the window. The
    offset is the smallest of 1, 2, 4, ... bins for which the functions are well told apart on whole bins.
    """
    lags = np.arange(1, n_lags + 1)
    offset = 1.0
    while True:
        axis = np.log(lags + offset)
        end = np.log(n_lags + 1 + offset)
        spacing = (end - axis[0]) / (n_basis + 1)
        centres = axis[0] + spacing * np.arange(n_basis)
        values = _cosine_bumps(axis[None, :] - centres[:, None], spacing)
        if offset > 64 * n_lags or np.linalg.cond(values / values.sum(axis=1, keepdims=True)) < _MAX_CONDITION:
            return values
        offset *= 2.0


def raised_cosine_linear(n_basis: int, position: np.ndarray) -> np.ndarray:
    """Return raised cosines over positions in [0, 1], (n_basis, n_positions), that sum to 1 everywhere inside.

    The first function peaks at 0 and the last at 1; positions outside are moved to the nearer end. One function is constant.
    """
    position = np.clip(np.asarray(position, dtype=np.float64), 0.0, 1.0)
    if n_basis == 1:
        return np.ones((1, position.size))
    # Neighbours overlap by half of a bump, so two bumps of half-width `spacing` sum to 1.
    spacing = 1.0 / (n_basis - 1)
    return _cosine_bumps(position[None, :] - spacing * np.arange(n_basis)[:, None], spacing / 2.0)


def boxes(n_basis: int, n_lags: int) -> np.ndarray:
    """Return indicator functions of consecutive stretches of lags, (n_basis, n_lags)."""
    edges = np.linspace(0, n_lags, n_basis + 1).round().astype(np.int64)
    lags = np.arange(n_lags)
    return ((lags >= edges[:-1, None]) & (lags < edges[1:, None])).astype(np.float64)


def _cosine_bumps(distance: np.ndarray, spacing: float) -> np.ndarray:
    """Return cosine bumps of half-width 2 * spacing."""
    return 0.5 + 0.5 * np.cos(np.clip(np.pi * distance / (2.0 * spacing), -np.pi, np.pi))
