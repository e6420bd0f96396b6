"""What a parameter is (shape, unit, constraint, source) and the one place where constrained and raw values are mapped to each other.

Models, files and figures see constrained values; optimisers and learning rules see raw (unconstrained) ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import InvalidInputError, Problems
from fitspike.rng import Stream
from fitspike.types import ParamArrays, Params
from fitspike.units import check_parameter_unit

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Constraint:
    """A map from raw to constrained values and back. `kind` is one of real, positive, interval, sign, simplex.

    real: identity. positive: softplus. interval: low + (high - low) sigmoid. sign: sign * softplus, `signs` (+1, -1, or 0 for free)
    broadcasting against the value (one sign per presynaptic column: shape (n_pre,) or (n_pre, 1) before a lag axis). simplex: softmax
    over the last axis.
    """

    kind: str = "real"
    low: float = 0.0
    high: float = 1.0
    signs: tuple | None = None

    def constrain(self, raw: torch.Tensor) -> torch.Tensor:
        """Return the constrained value of a raw tensor of any shape."""
        import torch

        match self.kind:
            case "real":
                return raw
            case "positive":
                return torch.nn.functional.softplus(raw)
            case "interval":
                return self.low + (self.high - self.low) * torch.sigmoid(raw)
            case "sign":
                signs = torch.as_tensor(self.signs, dtype=raw.dtype, device=raw.device)
                return torch.where(signs == 0, raw, signs * torch.nn.functional.softplus(raw))
            case "simplex":
                return torch.softmax(raw, dim=-1)
        raise InvalidInputError(f"unknown constraint {self.kind!r}. Known: real, positive, interval, sign, simplex.")

    def unconstrain(self, value: torch.Tensor) -> torch.Tensor:
        """Return the raw tensor whose constrained value is `value`; values on a boundary are moved 1e-7 inside."""
        import torch

        def inverse_softplus(x: torch.Tensor) -> torch.Tensor:
            x = x.clamp_min(1e-7)
            return x + torch.log(-torch.expm1(-x))

        match self.kind:
            case "real":
                return value
            case "positive":
                return inverse_softplus(value)
            case "interval":
                fraction = ((value - self.low) / (self.high - self.low)).clamp(1e-7, 1 - 1e-7)
                return torch.logit(fraction)
            case "sign":
                signs = torch.as_tensor(self.signs, dtype=value.dtype, device=value.device)
                return torch.where(signs == 0, value, inverse_softplus(signs * value))
            case "simplex":
                return torch.log(value.clamp_min(1e-12))
        raise InvalidInputError(f"unknown constraint {self.kind!r}. Known: real, positive, interval, sign, simplex.")

    def violations(self, value: np.ndarray) -> str | None:
        """Return what is wrong with a constrained value, or None."""
        value = np.asarray(value)
        if not np.isfinite(value).all():
            return f"{np.count_nonzero(~np.isfinite(value))} entries are not finite"
        if self.kind == "positive" and (value <= 0).any():
            return f"{np.count_nonzero(value <= 0)} entries are not positive"
        if self.kind == "interval" and ((value < self.low) | (value > self.high)).any():
            return f"entries outside [{self.low}, {self.high}]"
        if self.kind == "sign" and (np.asarray(self.signs) * value < 0).any():
            return "entries of the wrong sign"
        if self.kind == "simplex" and (np.abs(value.sum(-1) - 1) > 1e-6).any():
            return "rows that do not sum to 1"
        return None


real = Constraint("real")
"""Any number."""
positive = Constraint("positive")
"""Above 0."""
simplex = Constraint("simplex")
"""Not negative, and of sum 1 over the last axis."""


def interval(low: float, high: float) -> Constraint:
    """Return the constraint low < value < high."""
    if not low < high:
        raise InvalidInputError(f"interval({low}, {high}) is empty. Give low < high.")
    return Constraint("interval", low=low, high=high)


def sign(signs: Any) -> Constraint:
    """Return the constraint that entries have the given signs (+1, -1, or 0 for free), broadcast against the value."""
    array = np.asarray(signs)
    if not np.isin(array, (-1, 0, 1)).all():
        raise InvalidInputError("signs must be +1, -1 or 0 (free).")
    return Constraint("sign", signs=tuple(map(_as_tuple, array.tolist())) if array.ndim else (int(array),))


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class ParamSpec:
    """Shape, unit, initial value and constraint of one parameter.

    `init` is a constrained value: a number, an array of `shape`, or a function of a random Stream that returns one. `axes` names the
    axes, for example ("post", "pre", "lag").
    """

    shape: tuple[int, ...]
    unit: str
    init: float | np.ndarray | Callable[[Stream], Any] = 0.0
    constraint: Constraint = real
    trainable: bool = True
    axes: tuple[str, ...] = ()
    symbol: str = ""
    source: str = ""
    doc: str = ""

    def __post_init__(self) -> None:
        check_parameter_unit(self.unit)
        if self.axes and len(self.axes) != len(self.shape):
            raise InvalidInputError(f"axes {self.axes} do not name the {len(self.shape)} axes of shape {self.shape}.")

    def initial(self, stream: Stream) -> np.ndarray:
        """Return the initial constrained value as float64, drawn from `stream` if it is random."""
        value = self.init(stream) if callable(self.init) else self.init
        return np.broadcast_to(np.asarray(value, dtype=np.float64), self.shape).copy()


def initial_params(specs: Mapping[str, ParamSpec], stream: Stream, given: ParamArrays | None = None) -> dict[str, np.ndarray]:
    """Return initial constrained values of all parameters; `given` values replace the specs' own.

    Raises
    ------
    InvalidInputError
        With every problem of `given`: unknown names, wrong shapes, values outside their constraint.
    """
    problems = Problems("initial parameters")
    given = dict(given or {})
    values = {}
    for name, spec in specs.items():
        value = np.asarray(given.pop(name), dtype=np.float64) if name in given else spec.initial(stream.child(name))
        if value.shape != tuple(spec.shape):
            problems.add(f"{name} has shape {value.shape}; expected {tuple(spec.shape)}.")
        elif (wrong := spec.constraint.violations(value)) is not None:
            problems.add(f"{name}: {wrong} (constraint {spec.constraint.kind}).")
        values[name] = value
    for name in given:
        problems.add(f"{name!r} is no parameter of this model. Known: {', '.join(specs)}.")
    problems.raise_if_any()
    return values


def to_raw(specs: Mapping[str, ParamSpec], values: ParamArrays, dtype: Any = None, device: Any = "cpu") -> dict[str, torch.Tensor]:
    """Return raw tensors (float32 by default) of constrained arrays, leaf tensors that require gradients where trainable."""
    import torch

    raw = {}
    for name, spec in specs.items():
        value = torch.as_tensor(np.asarray(values[name]), dtype=torch.float64)
        tensor = spec.constraint.unconstrain(value).to(dtype or torch.float32).to(device).contiguous().detach().clone()
        raw[name] = tensor.requires_grad_(spec.trainable)
    return raw


def constrain(specs: Mapping[str, ParamSpec], raw: Mapping[str, torch.Tensor]) -> Params:
    """Return the constrained tensors of raw ones, differentiable."""
    return {name: spec.constraint.constrain(raw[name]) for name, spec in specs.items()}


def to_arrays(params: Params) -> dict[str, np.ndarray]:
    """Return constrained tensors as float64 arrays, detached."""
    return {name: value.detach().cpu().numpy().astype(np.float64) for name, value in params.items()}


def to_tensors(arrays: ParamArrays, dtype: Any = None, device: Any = "cpu") -> Params:
    """Return constrained arrays as tensors (float64 by default)."""
    import torch

    return {name: torch.as_tensor(np.asarray(value), dtype=dtype or torch.float64, device=device) for name, value in arrays.items()}
