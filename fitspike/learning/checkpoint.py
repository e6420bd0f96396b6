"""What changes from step to step of a training run, and the same as flat numpy arrays from which the run goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fitspike.errors import RunFolderError
from fitspike.learning.base import BoundRule, RawParams
from fitspike.learning.nest import fill, leaves
from fitspike.learning.optimisers import load_optimiser, optimiser_arrays
from fitspike.learning.stopping import Watch
from fitspike.types import Carry, State


@dataclass
class Training:
    """The changing part of a training run.

    step : steps taken. epoch, position : of the last chunk used; position -1 before the first. carry : what that chunk handed on.
    sums, n_summed : every metric summed since the last log point, and over how many steps each. best_raw : parameters of the best
    validation loss, or None.
    """

    raw: RawParams
    optimiser: torch.optim.Optimizer
    transform_states: list[State]
    step: int = 0
    epoch: int = 0
    position: int = -1
    carry: Carry = None
    sums: dict[str, float] = field(default_factory=dict)
    n_summed: dict[str, int] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    best_raw: RawParams | None = None

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add a step's metrics to the sums."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.n_summed[name] = self.n_summed.get(name, 0) + 1

    def take_means(self) -> dict[str, float]:
        """Return the mean of every metric since the last log point, and start summing anew."""
        means = {name: value / self.n_summed[name] for name, value in self.sums.items()}
        self.sums, self.n_summed = {}, {}
        return means


def copy_raw(raw: RawParams) -> RawParams:
    """Return raw parameters that later steps do not change."""
    return {name: value.detach().clone() for name, value in raw.items()}


def to_arrays(training: Training, trained: Sequence[str], bound: BoundRule) -> dict[str, np.ndarray]:
    """Return the whole state as arrays by path; `trained` names the optimiser's tensors in order."""
    arrays = {
        "counter/step": np.array(training.step),
        "counter/epoch": np.array(training.epoch),
        "counter/position": np.array(training.position),
    }
    arrays |= {f"sum/{name}": np.array([value, training.n_summed[name]]) for name, value in training.sums.items()}
    arrays |= {f"watch/{name}": value for name, value in training.watch.arrays().items()}
    arrays |= {f"raw/{name}": _array(value) for name, value in training.raw.items()}
    arrays |= {f"best/{name}": _array(value) for name, value in (training.best_raw or {}).items()}
    arrays |= {f"optimiser/{path}": value for path, value in optimiser_arrays(training.optimiser, list(trained)).items()}
    arrays |= {f"carry/{i}": _array(value) for i, value in enumerate(leaves(training.carry))}
    for i, state in enumerate(training.transform_states):
        arrays |= {f"transform/{i}/{j}": _array(value) for j, value in enumerate(leaves(state))}
    arrays |= {f"rule/{name}": _array(torch.as_tensor(value)) for name, value in bound.state_dict().items()}
    return arrays


def restore(
    training: Training,
    trained: Sequence[str],
    bound: BoundRule,
    arrays: Mapping[str, np.ndarray],
    carry_template: Callable[[Training], Carry],
) -> None:
    """Put the state that `to_arrays` gave into a freshly started run.

    `carry_template(training)` returns a carry of the right structure; it is asked for once counters and parameters are restored.

    Raises
    ------
    RunFolderError
        If the arrays do not fit this model, optimiser or rule.
    """
    try:
        _restore(training, trained, bound, arrays, carry_template)
    except (KeyError, ValueError, RuntimeError, StopIteration) as error:
        raise RunFolderError(
            f"the checkpoint does not fit this fit ({type(error).__name__}: {error}). "
            "Resume with the settings it was made with, or start anew."
        ) from error


def _restore(
    training: Training,
    trained: Sequence[str],
    bound: BoundRule,
    arrays: Mapping[str, np.ndarray],
    carry_template: Callable[[Training], Carry],
) -> None:
    training.step, training.epoch = int(arrays["counter/step"]), int(arrays["counter/epoch"])
    training.position = int(arrays["counter/position"])
    training.sums = {name: float(value[0]) for name, value in _under(arrays, "sum").items()}
    training.n_summed = {name: int(value[1]) for name, value in _under(arrays, "sum").items()}
    training.watch.restore(_under(arrays, "watch"))
    with torch.no_grad():
        for name, tensor in training.raw.items():
            tensor.copy_(torch.as_tensor(np.array(arrays[f"raw/{name}"])))
    if best := _under(arrays, "best"):
        training.best_raw = {name: torch.as_tensor(np.array(best[name])).to(value.dtype) for name, value in training.raw.items()}
    load_optimiser(training.optimiser, list(trained), _under(arrays, "optimiser"))
    training.transform_states = [_filled(state, _under(arrays, f"transform/{i}")) for i, state in enumerate(training.transform_states)]
    if carry := _under(arrays, "carry"):
        training.carry = _filled(carry_template(training), carry)
    if rule := _under(arrays, "rule"):
        loader: Any = bound
        loader.load_state_dict(rule)


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose path starts with prefix/, by the rest of it."""
    return {path.removeprefix(f"{prefix}/"): value for path, value in arrays.items() if path.startswith(f"{prefix}/")}


def _filled(template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    like = leaves(template)
    if len(like) != len(arrays):
        raise ValueError(f"{len(arrays)} arrays for a nest of {len(like)}")
    tensors = [torch.as_tensor(np.array(arrays[str(i)])).to(one.device) for i, one in enumerate(like)]
    return fill(template, iter(tensors))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
