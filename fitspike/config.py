"""The settings of a run: every key with its type, default and meaning; all problems of a configuration reported at once."""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fitspike.errors import InvalidInputError, Problems, did_you_mean

FORMAT_VERSION = 1
"""Version of the layout of run.toml."""


class Section(BaseModel):
    """A table of the configuration; keys it does not have are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(BaseModel):
    """Something registered, by name, with its settings as further keys of the same table."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description='Registered name, or "plugin:name".')

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings without the name."""
        return dict(self.model_extra or {})


class LossTerm(BaseModel):
    """A loss of the weighted sum that a fit makes small; further keys of the table are the loss's own settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    weight: float = Field(1.0, allow_inf_nan=False, description="Weight of this loss in the sum.")

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings without the weight."""
        return dict(self.model_extra or {})


def _as_component(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_losses(value: Any) -> Any:
    if isinstance(value, str):
        value = {value: 1.0}
    if isinstance(value, Mapping):
        return {name: {"weight": term} if isinstance(term, int | float) else term for name, term in value.items()}
    return value


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | int | float | Mapping) else value


def _as_transforms(value: Any) -> Any:
    if isinstance(value, Mapping) and "name" not in value:
        raise ValueError('transforms is a list of tables and is set whole, such as transforms=[{name = "NAME", SETTING = 0.1}]')
    return _as_tuple(value)


ComponentField = Annotated[Component, BeforeValidator(_as_component)]
TextList = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class DataConfig(Section):
    """`[data]`: which file, and which part of it."""

    path: TextList = Field((), description="File, folder, or several files of the same neurons, joined as trials.")
    format: str | None = Field(None, description="Reader to use; default: the first that can read the file.")
    reader: dict[str, Any] = Field(default_factory=dict, description="Options of the reader, such as the columns of a table.")
    attach: dict[str, Any] = Field(default_factory=dict, description="Signals, events and labels attached from other files.")
    align: str | None = Field(None, description="Name of the events around which trials are cut.")
    window_s: tuple[float, float] | None = Field(None, description="Start and stop of those trials relative to the event, s.")
    neurons: TextList = Field((), description="Ids of the neurons to keep; default: all.")
    where: TextList = Field((), description='Conditions on neuron columns, such as "contamination < 0.05".')
    trials: str | None = Field(None, description='Trials to keep, such as "0:20" or "0,3,5".')
    conditions: TextList = Field((), description="Trial conditions to keep.")
    start_s: float | None = Field(None, description="Start of the time range to keep, s.")
    stop_s: float | None = Field(None, description="End of the time range to keep, s.")
    signals: TextList | None = Field(None, description="Names of the signals to keep; an empty list keeps none. Default: all.")


class BatchConfig(Section):
    """`[batch]`: what one gradient step sees. Models with a solver of their own do not use it."""

    n_bins: int | None = Field(None, ge=1, description="Bins per chunk; default: whole trials, at most 1000 bins.")
    n_trials: int = Field(8, ge=1, description="Trials per chunk.")
    n_free_trials: int | None = Field(
        None, ge=1, description="Freely simulated trials per step, for losses on simulated activity; default: as many as n_trials."
    )
    carry: bool = Field(True, description="Hand the state on between the chunks of a trial instead of starting afresh.")


class OptimiserConfig(Section):
    """`[optimiser]`: how directions become steps. Models with a solver of their own do not use it."""

    name: str = Field("adam", description="Optimiser of torch.optim: adam, adamw, sgd, rmsprop, ...")
    learning_rate: float = Field(0.01, gt=0, description="Step size.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further options of the optimiser, such as momentum.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="How the learning rate changes over the steps.")
    final_fraction: float = Field(0.05, ge=0, le=1, description="Fraction of the learning rate at which the cosine ends.")
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of a direction; longer ones are shortened.")
    precision: Literal["float32", "float64"] = Field("float32", description="Precision of parameters and states.")


class StopConfig(Section):
    """`[stop]`: when a fit ends, and how often it stores its state."""

    max_steps: int | None = Field(None, ge=1, description="Most steps (solver iterations); default: the model's or the trainer's own.")
    max_minutes: float | None = Field(None, gt=0, description="Wall-clock limit, minutes.")
    patience: int = Field(
        20, ge=0, description="Log points without improvement after which gradient training has reached its plateau; 0: never."
    )
    min_improvement: float = Field(1e-5, ge=0, description="Relative improvement of the loss that counts.")
    validation_fraction: float = Field(
        0.0, ge=0, le=0.5, description="Part of the training data that gradient training sets aside to find the plateau."
    )
    log_every: int = Field(10, ge=1, description="Gradient steps per log point.")
    checkpoint_s: float = Field(60.0, ge=0, description="Least time between two checkpoints, s.")


class ScoreConfig(Section):
    """`[score]`: held-out scores."""

    n_bootstrap: int = Field(1000, ge=2, description="Bootstrap samples over blocks of the held-out data.")
    block_s: float | None = Field(None, gt=0, description="Length of a time block, s; default: trials, or a fortieth of the data.")
    psth_window_ms: float = Field(20.0, gt=0, description="Window of the PSTH correlation, ms.")
    n_neuron_groups: int = Field(4, ge=2, description="Groups of neurons hidden in turn for co-smoothing.")
    n_samples: int = Field(8, ge=1, description="Sampled histories of hidden neurons per bin.")
    co_smoothing_bins: int = Field(5000, ge=0, description="Bins of held-out data used for co-smoothing; 0 leaves it out.")


class SimulationConfig(Section):
    """`[simulation]`: the free simulation of the fitted model that is laid beside the data."""

    max_seconds: float | None = Field(
        None, ge=0, description="Simulated time, summed over trials; 0 leaves the comparison out. Default: 120 s per ms of bin width."
    )


class PluginsConfig(Section):
    """`[plugins]`: which plugins are loaded."""

    disable: TextList = Field((), description="Names of plugins not to load.")


class RunConfig(Section):
    """All settings of a run, as run.toml holds them."""

    format_version: Literal[1] = Field(1, description="Version of this layout.")
    data: DataConfig = DataConfig()
    model: ComponentField = Field(Component(name="coupled-glm"), description="Model, with its settings as further keys of the table.")
    neuron: ComponentField | None = Field(None, description="Neuron model with its settings, for models made of neurons.")
    loss: Annotated[dict[str, LossTerm], BeforeValidator(_as_losses)] = Field(
        default_factory=lambda: {"nll": LossTerm()}, description="Losses by name with their weights."
    )
    rule: ComponentField = Field(
        Component(name="auto"), description='Learning rule with its settings; "auto": the model\'s own solver, else bptt.'
    )
    transforms: Annotated[tuple[ComponentField, ...], BeforeValidator(_as_transforms)] = Field(
        (), description="Update transforms, in the order in which they act."
    )
    init: str | None = Field(None, description="Folder of a run whose fitted parameters the fit starts from; default: the model's own.")
    dt_ms: float | None = Field(None, gt=0, description="Bin width, ms; default: the recording's native bins, else 1 ms.")
    one_per_bin: bool = Field(False, description="Count several spikes of a neuron in a bin as one, for emissions that know no more.")
    emission: str = Field(
        "auto", description='"bernoulli", "hazard", "poisson", "threshold", or "auto": Poisson where bins hold several spikes.'
    )
    split: str = Field("auto", description='What is held out, such as "time:0.2", "trial:every=5,offset=4" or "none".')
    selection: bool = Field(
        True, description="Choose model settings left at auto on blocked folds of the training data; false: take their defaults."
    )
    batch: BatchConfig = BatchConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    stop: StopConfig = StopConfig()
    score: ScoreConfig = ScoreConfig()
    simulation: SimulationConfig = SimulationConfig()
    report: bool = Field(True, description="Draw figures and report.html at the end.")
    plugins: PluginsConfig = PluginsConfig()
    seed: int = Field(0, ge=0, description="Seed of every random stream.")
    device: str = Field("auto", description='"cpu", "cuda", or "auto".')
    backend: str = Field("auto", description='Kernel backend: "auto", "numba", "reference", ...')
    threads: int | None = Field(None, ge=1, description="Threads of numba, BLAS and torch; default: the cores given to the process.")

    def to_dict(self) -> dict[str, Any]:
        """Return nested values as TOML reads them: lists for tuples, no entry that is None, no empty table."""
        return _as_toml(self.model_dump(mode="python", exclude_none=True))


def _as_toml(value: Any) -> Any:
    """Return a value with tuples as lists and without empty tables."""
    if isinstance(value, dict):
        inner = {key: _as_toml(item) for key, item in value.items()}
        return {key: item for key, item in inner.items() if item != {}}
    return [_as_toml(item) for item in value] if isinstance(value, list | tuple) else value


class ConfigError(InvalidInputError):
    """Keys that are unknown or values that are wrong: `texts`, one for each. `rest` is the configuration without them."""

    def __init__(self, message: str, texts: Sequence[str], rest: RunConfig) -> None:
        super().__init__(message)
        self.texts, self.rest = tuple(texts), rest


def parse_config(values: Mapping[str, Any], origin: str = "configuration") -> RunConfig:
    """Return a checked configuration.

    Raises
    ------
    ConfigError
        With every unknown key (and what it may have meant) and every wrong value.
    """
    version = values.get("format_version", FORMAT_VERSION)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InvalidInputError(
            f"{origin} has format version {version}; this fitspike reads up to {FORMAT_VERSION}. Use the fitspike that wrote it."
        )
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        problems = Problems(origin)
        for one in error.errors():
            problems.add(_in_words(one))
        try:
            problems.raise_if_any()
        except InvalidInputError as told:
            raise ConfigError(str(told), problems.texts, _without(values, error)) from error
        raise


def _without(values: Mapping[str, Any], error: ValidationError) -> RunConfig:
    """Return the configuration without the sections' wrong entries, or without the whole sections where that is not enough."""
    for depth in (None, 1):
        kept = copy.deepcopy(dict(values))
        for one in error.errors():
            path = list(one["loc"])[:depth]
            place: Any = kept
            for part in path[:-1]:
                place = place.get(part, {}) if isinstance(place, dict) else {}
            if isinstance(place, dict):
                place.pop(path[-1], None)
        try:
            return RunConfig.model_validate(kept)
        except ValidationError:
            continue
    return RunConfig()


def _in_words(error: Mapping[str, Any]) -> str:
    """Return one validation error as a sentence."""
    path = [str(part) for part in error["loc"]]
    dotted = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = known_keys(path[:-1])
        where = ".".join(path[:-1])
        listed = f" Known{f' in [{where}]' if where else ''}: {', '.join(known)}."
        return f"unknown key {dotted!r}{did_you_mean(path[-1], known) or '.'}{listed}"
    text = str(error["msg"]).removeprefix("Value error, ")
    given = "" if error["type"] == "missing" else f" = {error['input']!r}"
    return f"{dotted}{given}: {text[:1].lower()}{text[1:]}."


def section_at(path: list[str]) -> type[BaseModel] | None:
    """Return the section class at a path of keys, or None if there is no such section."""
    section: type[BaseModel] = RunConfig
    for key in path:
        field = section.model_fields.get(key)
        inner = None if field is None else _section_class(field.annotation)
        if inner is None:
            return None
        section = inner
    return section


def _section_class(annotation: Any) -> type[BaseModel] | None:
    """Return the section class in a type such as `StopConfig` or `Component | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) in (typing.Union, Annotated):
        return next((found for part in typing.get_args(annotation) if (found := _section_class(part)) is not None), None)
    return None


def known_keys(path: list[str]) -> tuple[str, ...]:
    """Return the keys of the section at a path."""
    section = section_at(path)
    return () if section is None else tuple(section.model_fields)


def explain(key: str) -> str:
    """Return what a key means, its type and its default.

    Raises
    ------
    InvalidInputError
        If there is no such key; the text suggests one.
    """
    path = key.split(".")
    section = section_at(path[:-1])
    field = None if section is None else section.model_fields.get(path[-1])
    if field is None:
        known = all_keys()
        raise InvalidInputError(f"no configuration key {key!r}{did_you_mean(key, known) or '.'} See `fitspike config show`.")
    inner = _section_class(field.annotation)
    text = field.description or (inner.__doc__ or "").strip() if inner else field.description or ""
    if inner is not None and issubclass(inner, Section):
        return text
    default = field.get_default(call_default_factory=True)
    return text if "default:" in text.lower() else f"{text} Default: {_show(default)}."


def _show(value: Any) -> str:
    if isinstance(value, Component):
        return repr(value.name)
    if isinstance(value, Mapping) and value and all(isinstance(term, LossTerm) for term in value.values()):
        return ", ".join(f"{name}={term.weight:g}" for name, term in value.items())
    return "none" if value is None or value == () else repr(value)


def all_keys() -> tuple[str, ...]:
    """Return every key, dotted, in the order of run.toml; sections are listed by their keys."""
    keys = []
    for name, field in RunConfig.model_fields.items():
        inner = _section_class(field.annotation)
        if inner is not None and issubclass(inner, Section):
            keys += [f"{name}.{key}" for key in inner.model_fields]
        else:
            keys.append(name)
    return tuple(keys)
