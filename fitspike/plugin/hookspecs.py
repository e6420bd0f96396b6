"""The hooks of fitspike. A plugin implements any of them, marked with `@hookimpl`; it may leave out arguments it does not need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from fitspike.plugin.lifecycle import RunInfo

PROJECT = "fitspike"
"""Name of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Decorator that marks a function of a plugin as an implementation of the hook of the same name."""

Register = Callable[..., None]
"""register(target, *, name=None, aliases=()): `target` is an object, a class, or the string "module:attribute" (then `name` is needed)."""


@hookspec
def fitspike_register_neuron_models(register: Register) -> None:
    """Register neuron models: how input and past spikes become drive."""


@hookspec
def fitspike_register_models(register: Register) -> None:
    """Register models of whole recordings."""


@hookspec
def fitspike_register_statistics(register: Register) -> None:
    """Register summary statistics of spikes."""


@hookspec
def fitspike_register_losses(register: Register) -> None:
    """Register losses: what a fit makes small."""


@hookspec
def fitspike_register_learning_rules(register: Register) -> None:
    """Register learning rules: in which direction each parameter moves."""


@hookspec
def fitspike_register_update_transforms(register: Register) -> None:
    """Register update transforms: what becomes of the optimiser's step."""


@hookspec
def fitspike_register_hardware_targets(register: Register) -> None:
    """Register hardware targets."""


@hookspec
def fitspike_register_datasets(register: Register) -> None:
    """Register datasets, synthetic or recorded."""


@hookspec
def fitspike_register_readers(register: Register) -> None:
    """Register readers of file formats."""


@hookspec
def fitspike_register_kernels(register: Register) -> None:
    """Register backends of kernels: register(op, backend, target, *, supports=None, priority=0).

    `supports(**facts)` gets facts such as n_neurons=100, device="cpu", and returns None if the backend can run that call, else why not.
    """


@hookspec
def fitspike_register_commands(register: Register) -> None:
    """Register commands of the command line: register(name, target, help), `target` a click command or "module:attribute"."""


@hookspec
def fitspike_fit_start(run: RunInfo) -> None:
    """Be told that a fit is about to take its first step. `run` is read-only."""


@hookspec
def fitspike_fit_step(run: RunInfo, step: int, metrics: Mapping[str, float]) -> None:
    """Be told of a log point, which is not each step. `metrics` are plain floats."""


@hookspec
def fitspike_fit_end(run: RunInfo, result: Any) -> None:
    """Be told that a fit has been saved. `result` is the FitResult, or the exception that ended the fit."""


LIFECYCLE_HOOKS = ("fitspike_fit_start", "fitspike_fit_step", "fitspike_fit_end")
