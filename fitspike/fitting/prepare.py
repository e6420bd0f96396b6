"""Everything before compute: the recording, its checks, its parts, its bins, the objects named, and every problem in one message."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from fitspike.config import ConfigError
from fitspike.datasets.selection import load_data
from fitspike.errors import FitspikeError, InvalidInputError, Problems, counted
from fitspike.fitting.machine import check_backend, check_device
from fitspike.fitting.request import Request
from fitspike.fitting.resolve import Components, blaming_plugins, check_rule, resolve, with_emission
from fitspike.learning.base import HasPlanCheck, TrainingPlan
from fitspike.learning.optimisers import make_optimiser
from fitspike.losses.base import HasCheck
from fitspike.losses.total import all_specs
from fitspike.neurons.emissions import spikes_by_drive_alone
from fitspike.params import ParamSpec, initial_params
from fitspike.recording.binned import BinnedSpikes
from fitspike.recording.checks import DataReport
from fitspike.recording.recording import Recording
from fitspike.recording.split import Split, SplitSettings, parse_split, split
from fitspike.results.components import ComponentRef, reference_to
from fitspike.results.result import FitResult, is_binary
from fitspike.results.run_dir import RunFolder
from fitspike.results.training_data import TrainingData
from fitspike.rng import Stream
from fitspike.types import ParamArrays
from fitspike.units import bin_width_ns


@dataclass(frozen=True, eq=False)
class Prepared:
    """A fit ready to compute. test is None where nothing is held out. held_out_neurons (n_neurons,) bool or None.

    notes: what is unusual about the data, for the run record.
    """

    recording: Recording
    train: BinnedSpikes
    test: BinnedSpikes | None
    held_out_neurons: np.ndarray | None
    components: Components
    data: TrainingData
    specs: Mapping[str, ParamSpec]
    init: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Data:
    recording: Recording
    parts: Split
    train: BinnedSpikes
    test: BinnedSpikes | None
    notes: tuple[str, ...]


def prepare(request: Request) -> Prepared:
    """Return everything a fit needs.

    Raises
    ------
    FitspikeError
        With every problem of data, names, settings and their combination; nothing has been computed by then.
    """
    problems = _Collector("cannot fit")
    components, data = _resolve_and_read(request, problems)
    problems.raise_if_any()
    assert components is not None and data is not None, "otherwise there were problems"
    rule_fits = check_rule(components, problems)
    notes = (*data.notes, *_refractory_notes(components.model, data.train))
    described = TrainingData.of(data.train, split=data.parts.description, notes=notes, one_per_bin=request.config.one_per_bin)
    specs = problems.attempt(all_specs, components.model, components.losses, data.train.info())
    init: Any = {}
    given = problems.attempt(_given_params, request, described, components.model)
    if specs is not None:
        init = problems.attempt(_initial, components, specs, request.config.seed, given)
        if components.rule is not None and rule_fits:
            problems.attempt(components.rule.bind, components.model, specs, components.losses, data.train.info(), Stream(0, "check"))
    for loss, _ in components.losses.values():
        if isinstance(loss, HasCheck):
            problems.attempt(loss.check, data.train, components.model)
    if specs is not None and components.rule is not None and _has_optimiser(request, problems):
        _check_transforms(components, specs, request, problems)
    problems.raise_if_any()
    test = None if data.test is None else described.renumber(data.test)
    return Prepared(data.recording, data.train, test, data.parts.held_out_neurons, components, described, specs, init, notes)


def _initial(components: Components, specs: Mapping[str, ParamSpec], seed: int, given: ParamArrays | None) -> ParamArrays:
    """Return the initial parameters; networks find some of them by driving their neurons."""
    with blaming_plugins(components, "finding where its parameters start"):
        return initial_params(specs, Stream(seed, "init"), given)


def _refractory_notes(model: Any, train: BinnedSpikes) -> tuple[str, ...]:
    """Return a note where recorded spikes follow one another sooner than the model's neurons can."""
    refractory_ms = getattr(getattr(model, "neuron", None), "refractory_ms", 0.0)
    n_blocked = round(refractory_ms / train.dt_ms)
    if n_blocked == 0 or spikes_by_drive_alone(model):  # which has no likelihood
        return ()
    order = np.lexsort((train.event_bin, train.event_neuron))
    at, neuron = train.event_bin[order], train.event_neuron[order]
    trial = np.searchsorted(train.trial_offset, at, side="right")
    interval = np.diff(at)
    too_short = interval[(np.diff(neuron) == 0) & (np.diff(trial) == 0) & (interval <= n_blocked)]
    if not too_short.size:
        return ()
    return (
        f"{too_short.size} of {train.n_spikes} training spikes come while neuron model {model.neuron.name!r} is refractory "
        f"(refractory_ms={refractory_ms:g}), where it gives them no probability: each takes about 30 nats off the log-likelihood. Set "
        f"neuron.refractory_ms to at most {(int(too_short.min()) - 1) * train.dt_ms:g}.",
    )


def _given_params(request: Request, data: TrainingData, model: Any) -> ParamArrays | None:
    """Return the parameters to start from: those given, or those of the run that the configuration names, of the same neurons and model."""
    if request.config.init is None:
        return request.init
    run = FitResult.load(request.config.init)
    if run.data.neuron_ids != data.neuron_ids:
        raise InvalidInputError(
            f"init={request.config.init}: that run has {counted(run.data.n_neurons, 'neuron')} ({_some(run.data.neuron_ids)}), this fit "
            f"{data.n_neurons} ({_some(data.neuron_ids)}). Choose the same neurons in the same order, with --neurons or --units."
        )
    theirs, ours = _in_words(run.model), _in_words(reference_to(model, "models"))
    if theirs != ours:
        raise InvalidInputError(
            f"init={request.config.init}: that run fitted {theirs}, this fit has {ours}. Fit the same model, or give the "
            "parameters that both have: fit(init={name: array})."
        )
    return run.params


def _in_words(model: ComponentRef) -> str:
    """Return which model a reference stands for, and with which neurons."""
    neuron = model.settings.get("neuron")
    return f"model {model.name!r}" + (f" with neurons {neuron.name!r}" if isinstance(neuron, ComponentRef) else "")


def _some(ids: tuple[str, ...]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def _has_optimiser(request: Request, problems: _Collector) -> bool:
    """Return whether the optimiser exists and takes its options; otherwise that is added to `problems`."""
    how = request.config.optimiser
    return problems.attempt(make_optimiser, how.name, [torch.zeros(1, requires_grad=True)], how.learning_rate, how.options) is not None


def _check_transforms(components: Components, specs: Mapping[str, ParamSpec], request: Request, problems: _Collector) -> None:
    """Add to `problems` what update transforms have to say about the training."""
    plan = TrainingPlan(specs, components.losses, request.config.optimiser.name.lower())
    for transform in components.transforms:
        if isinstance(transform, HasPlanCheck):
            problems.attempt(transform.check, plan)


def raise_with_others(error: ConfigError, request: Request) -> NoReturn:
    """Raise the problems of a configuration together with those of names and data that can be found without its wrong entries."""
    problems = _Collector("cannot fit")
    for text in error.texts:
        problems.add(text)
    with suppress(FitspikeError):  # what depends on a wrong entry may fail in other ways; the entry itself is named
        _resolve_and_read(request, problems)
    if len(problems.texts) == len(error.texts):
        raise error
    problems.raise_if_any()
    raise error


def _check_model_device(components: Components, device: str, problems: Problems) -> None:
    """Note it as a problem if the model, or the solver that fits it, does not run on a device."""
    kinds = ("cpu",) if components.uses_solver else getattr(components.model, "devices", None)
    if device != "auto" and kinds is not None and device.partition(":")[0] not in kinds:
        known = " or ".join(repr(kind) for kind in kinds)
        problems.add(f"device={device!r}: model {components.model.name!r} is fitted on {known} alone. Use that, or 'auto'.")


def _resolve_and_read(request: Request, problems: Problems) -> tuple[Components | None, _Data | None]:
    """Return the objects and the data of a request; what is wrong with them is added to `problems`."""
    if request.out is not None and not request.resume:
        problems.attempt(RunFolder.check_free, request.out)
    problems.attempt(check_device, request.config.device)
    problems.attempt(check_backend, request.config.backend)
    components = resolve(request, problems)
    if components is not None:
        _check_model_device(components, request.config.device, problems)
    how = problems.attempt(parse_split, request.config.split)
    width = 0 if request.config.dt_ms is None else problems.attempt(bin_width_ns, request.config.dt_ms)
    checked = problems.attempt(_read_checked, request, problems)
    data = None
    if checked is not None and how is not None and width is not None:
        data = problems.attempt(_cut_and_bin, request, checked, how, problems)
    if components is not None and data is not None:
        components = problems.attempt(_fix_emission, components, request, data.train)
    return components, data


class _Collector(Problems):
    """Problems that can run a step and note its error instead of raising it; a single error is raised as it was."""

    def __init__(self, heading: str) -> None:
        super().__init__(heading)
        self.errors: list[FitspikeError] = []

    def add_error(self, error: FitspikeError) -> None:
        """Note an error."""
        super().add_error(error)
        self.errors.append(error)

    def attempt(self, function: Any, *arguments: Any) -> Any:
        """Return what the function returns, or None and a problem more if it raises an error of ours."""
        try:
            return function(*arguments)
        except FitspikeError as error:
            self.add_error(error)
            return None

    def raise_if_any(self, error: type[FitspikeError] = InvalidInputError) -> None:
        """Raise what was noted: a single error as it was raised, several in one."""
        if len(self.texts) == len(self.errors) == 1:
            raise self.errors[0]
        super().raise_if_any(error)


def read_recording(request: Request) -> Recording:
    """Return the recording of a request: the object that was given, or what `[data]` describes, selection included."""
    section = request.config.data.model_dump(exclude_none=True)
    given = request.objects.get("recording")
    if given is None and not section["path"]:
        raise InvalidInputError("no recording was given. Name a file: `fitspike fit FILE`, or path in [data] of the configuration.")
    return load_data(**section if given is None else {**section, "path": given})


def _read_checked(request: Request, problems: Problems) -> tuple[Recording, DataReport] | None:
    """Return recording and data report; findings that forbid a fit are added to `problems`."""
    recording = read_recording(request)
    report = recording.checks()
    for finding in report.problems:
        problems.add(f"{finding.text} See `fitspike inspect`.")
    return None if report.problems else (recording, report)


def _cut_and_bin(request: Request, checked: tuple[Recording, DataReport], how: SplitSettings, problems: Problems) -> _Data:
    """Return recording, parts and bins; findings that forbid a fit are added to `problems`."""
    config = request.config
    recording, report = checked
    notes = [finding.text for finding in report.findings if finding.level == "warning"]
    parts = split(recording, how, dt_ms=config.dt_ms)
    train = parts.train.bin(config.dt_ms)
    test = None if parts.test is None else parts.test.bin(config.dt_ms)
    if config.one_per_bin:
        merged = train.n_spikes - train.one_per_bin().n_spikes
        if merged:
            notes.append(
                f"{merged} of {train.n_spikes} training spikes share a bin of {train.dt_ms:g} ms with another one of their neuron and are "
                "not counted (one_per_bin)."
            )
        train, test = train.one_per_bin(), None if test is None else test.one_per_bin()
    counts = train.counts(scored_only=True).sum(axis=0)
    if not counts.any():
        problems.add("the training part holds no spike. Choose another split or time range.")
    silent = np.flatnonzero(counts == 0)
    if silent.size:
        notes.append(f"{silent.size} of {train.n_neurons} neurons are silent in the training part ({_names(train, silent)}).")
    if test is None:
        notes.append("Nothing was held out (split 'none'), so that there is no held-out score.")
    elif not test.counts(scored_only=True).any():
        notes.append("The test part holds no spike; bits per spike are undefined. Choose another split.")
    return _Data(recording, parts, train, test, tuple(notes))


def _names(binned: BinnedSpikes, index: np.ndarray, most: int = 10) -> str:
    ids = [str(binned.neurons.ids[i]) for i in index[:most]]
    return ", ".join(ids) + (", ..." if index.size > most else "")


def _fix_emission(components: Components, request: Request, train: BinnedSpikes) -> Components:
    """Return the components with the model's emission fixed to one that can hold the counts.

    Raises
    ------
    InvalidInputError
        If the model allows one spike per bin and some bins hold more.
    """
    n_multi = train.multi_spike_bins()
    model = with_emission(components.model, request.config.emission, has_multi_spike_bins=n_multi > 0)
    if n_multi and is_binary(model):
        largest = int(train.event_count.max())
        advice = "emission='poisson'" if "poisson" in model.emissions else "another model"
        raise InvalidInputError(
            f"{n_multi} bins of {train.dt_ms:g} ms hold several spikes of one neuron (up to {largest}), and this emission "
            f"({getattr(model, 'emission', model.emissions[0])}) would lose them. Use {advice}, a smaller dt_ms, or "
            "one_per_bin=true to count them as one."
        )
    return Components(model, components.losses, components.rule, components.transforms)
