"""The checks of a hardware target: limits that are true, errors that list all of them, runs that can be repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fitspike.errors import FitspikeError, HardwareLimitError
from fitspike.hardware.base import HardwareConstraints, HardwareRun
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import initial_params, to_tensors
from fitspike.plugin.conformance.report import Mismatch, NotChecked, Outcome, Report, expect, instance_of
from fitspike.plugin.conformance.toys import SEED
from fitspike.plugin.kinds import KINDS
from fitspike.recording.info import DataInfo
from fitspike.recording.recording import Recording
from fitspike.rng import Stream
from fitspike.types import Params

_N_TRIALS, _N_BINS = 2, 50


def check_hardware_target(target: Any, model: Any = None, params: Params | None = None) -> Outcome:
    """Check a hardware target, given as a class or an object, and return what passed.

    A small spiking network is compiled and run; give `model` and `params` where the target runs only models of its own. A target whose
    device is absent may raise a FitspikeError in `run`, which is reported as not checked.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    report = Report(f"hardware target {getattr(target, 'name', target)!r}")
    target = instance_of(report, target, KINDS["hardware_targets"])
    if target is None:
        return report.outcome()
    limits = report.check("constraints", _check_constraints, target, needs=("members",))
    if limits is None:
        return report.outcome()
    if model is None:
        model, params = _network(_size(limits), limits)
    target = _for_network(target, _size(limits), limits.dt_ms or 1.0)
    program = report.check("compilation of a model within the limits", target.compile, model, params, needs=("constraints",))
    if limits.n_neurons is not None:
        report.check("refusal of a model beyond the limits", _check_refusal, target, limits, needs=("constraints",))
    needs = ("compilation of a model within the limits",)
    report.check("run", _check_run, target, program, needs=needs)
    report.check("equal runs", _check_repeat, target, program, needs=(*needs, "run"))
    return report.outcome()


def _size(limits: HardwareConstraints) -> int:
    return min(3, limits.n_neurons or 3, limits.fan_in or 3)


def _for_network(target: Any, n_neurons: int, dt_ms: float) -> Any:
    """Return the target set to the size and time step of a network, where it has such settings."""
    given = {"n_neurons": n_neurons, "dt_ms": dt_ms}
    settings = getattr(target, "__dataclass_fields__", {})
    return replace(target, **{name: value for name, value in given.items() if name in settings}) if settings else target


def _network(n_neurons: int, limits: HardwareConstraints) -> tuple[SpikingNetwork, Params]:
    dt_ms = limits.dt_ms or 1.0
    model = SpikingNetwork(coupling_ms=10.0 * dt_ms)
    data = DataInfo(n_neurons=n_neurons, n_trials=_N_TRIALS, dt_ms=dt_ms, bins_per_trial=np.full(_N_TRIALS, _N_BINS))
    values = initial_params(model.param_specs(data), Stream(SEED, "conformance/hardware"))
    if limits.weight_range is not None:
        values["coupling"] = np.clip(values["coupling"], *limits.weight_range)
    return model, to_tensors(values, dtype=torch.float64)


def _check_constraints(target: Any) -> HardwareConstraints:
    limits = target.constraints()
    expect(isinstance(limits, HardwareConstraints), f"constraints() returns {type(limits).__name__}; expected HardwareConstraints.")
    for name in ("n_neurons", "fan_in", "weight_bits", "dt_ms"):
        value = getattr(limits, name)
        expect(value is None or value > 0, f"the limit {name} is {value!r}; expected a positive number, or None for no limit.")
    if limits.weight_range is not None:
        low, high = limits.weight_range
        expect(low < high, f"weight_range is {limits.weight_range}; expected (low, high) with low < high.")
    return limits


def _check_refusal(target: Any, limits: HardwareConstraints) -> None:
    too_many = limits.n_neurons + 1
    model, params = _network(too_many, limits)
    try:
        _for_network(target, too_many, limits.dt_ms or 1.0).compile(model, params)
    except HardwareLimitError as error:
        expect(str(limits.n_neurons) in str(error), f"the error does not say the limit of {limits.n_neurons} neurons: {error}")
        return
    raise Mismatch(f"constraints() say {limits.n_neurons} neurons, but a network of {too_many} compiles. Raise HardwareLimitError.")


def _run(target: Any, program: Any, name: str = "run") -> HardwareRun:
    try:
        return target.run(program, {}, _N_TRIALS, _N_BINS, Stream(SEED, f"conformance/{name}"))
    except FitspikeError as error:
        raise NotChecked(str(error)) from error


def _check_run(target: Any, program: Any) -> None:
    outcome = _run(target, program)
    expect(isinstance(outcome, HardwareRun), f"run returns {type(outcome).__name__}; expected HardwareRun.")
    expect(outcome.target == target.name, f"the run says it was made on {outcome.target!r}; expected {target.name!r}.")
    expect(isinstance(outcome.spikes, Recording), f"spikes are {type(outcome.spikes).__name__}; expected Recording.")
    expect(outcome.spikes.n_trials == _N_TRIALS, f"the run has {outcome.spikes.n_trials} trials; expected {_N_TRIALS}.")
    expect(outcome.wall_s >= 0, f"wall_s is {outcome.wall_s}.")
    for name, values in outcome.observables.items():
        expect(
            np.shape(values)[:2] == (_N_TRIALS, _N_BINS), f"observable {name!r} has shape {np.shape(values)}; expected trials, bins first."
        )


def _check_repeat(target: Any, program: Any) -> None:
    if not getattr(target, "is_deterministic", True):
        raise NotChecked("is_deterministic is False")
    first, second = (_run(target, program).spikes for _ in range(2))
    same = np.array_equal(first.spike_times_ns, second.spike_times_ns) and np.array_equal(first.spike_neuron, second.spike_neuron)
    expect(
        same, "two runs with the same stream have different spikes. A mock draws from its stream; a device sets is_deterministic = False."
    )
