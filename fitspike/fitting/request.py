"""What a fit is asked to do: the checked configuration, and the objects that were given in place of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fitspike.config import RunConfig, Section
from fitspike.datasets.selection import absolute_paths
from fitspike.errors import InvalidInputError
from fitspike.models.base import HasUnits
from fitspike.plugin.registry import get_registry
from fitspike.recording.recording import Recording
from fitspike.recording.split import SplitSettings
from fitspike.results.components import reference_to
from fitspike.types import ParamArrays

NETWORK = "spiking-network"
"""The model that a neuron model is put into when no model is named."""

Callback = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class Request:
    """A fit to be done.

    `objects` holds the objects given by the caller in place of registered names: "recording", "model", "neuron", "rule", and the tuples
    "loss/NAME" and "transforms". `note_run_again` says what a run from run.toml would lack.
    """

    config: RunConfig
    objects: Mapping[str, Any] = field(default_factory=dict)
    init: ParamArrays | None = None
    out: Path | None = None
    resume: bool = False
    progress: Any = "auto"
    callbacks: tuple[Callback, ...] = ()
    command: str | None = None

    def __post_init__(self) -> None:
        # a run is scored, resumed and repeated from other folders than the one it was started in
        data = self.config.data
        path, attach = absolute_paths(data.path, data.attach)
        changed: dict[str, Any] = {"data": data.model_copy(update={"path": path, "attach": attach})}
        if self.config.init is not None:
            changed["init"] = str(Path(self.config.init).expanduser().resolve())
        config = self.config.model_copy(update=changed)
        object.__setattr__(self, "config", config)

    @property
    def not_in_config(self) -> tuple[str, ...]:
        """Return what a run from run.toml alone would lack."""
        given = [name for name, value in self.objects.items() if not _is_registered(name, value)]
        return tuple(given + (["init"] if self.init is not None else []))


_KINDS = {"model": "models", "neuron": "neuron_models", "rule": "learning_rules", "transforms": "update_transforms"}


def _is_registered(name: str, value: Any) -> bool:
    if name == "recording":
        return False
    kind = "losses" if name.startswith("loss/") else _KINDS[name]
    items = value if isinstance(value, tuple) else (value,)
    return all(bool(reference_to(item, kind).distribution) for item in items)


def as_settings(
    recording: Any,
    model: Any,
    *,
    settings: Mapping[str, Any] | None,
    neuron: Any,
    loss: Any,
    rule: Any,
    transforms: Any,
    select: Mapping[str, Any] | None,
    split: Any,
    sections: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration that arguments of `fit` stand for, unchecked, and the objects among them (see `Request`).

    `sections` are tables of the configuration (batch, stop, ...) or single keys; None leaves the default.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be settings.
    """
    objects: dict[str, Any] = {}
    values: dict[str, Any] = {"data": _data_section(recording, select, objects)}
    values["model"] = _component("model", default_model(neuron is not None, rule) if model is None else model, objects, settings)
    if neuron is not None:
        values["neuron"] = _component("neuron", neuron, objects)
    values["loss"] = _losses(loss, objects)
    values["rule"] = _component("rule", rule, objects)
    values["transforms"] = _transforms(transforms, objects)
    if split is not None:
        values["split"] = split.as_text() if isinstance(split, SplitSettings) else split
    for name, value in sections.items():
        if value is not None:
            values[name] = value.model_dump(exclude_unset=True) if isinstance(value, Section) else value
    return values, objects


def _data_section(recording: Any, select: Mapping[str, Any] | None, objects: dict[str, Any]) -> dict[str, Any]:
    """Return the `[data]` table; what is no path is kept as an object."""
    is_path = isinstance(recording, str | Path)
    are_paths = isinstance(recording, list | tuple) and recording and all(isinstance(one, str | Path) for one in recording)
    chosen = {name: _plain_choice(name, value) for name, value in (select or {}).items()}
    if is_path or are_paths:
        paths = [recording] if is_path else recording
        return {"path": [str(one) for one in paths], **chosen}
    objects["recording"] = recording
    source = recording.source.path if isinstance(recording, Recording) else ""
    return {"path": [source] if source else [], **chosen}


def _plain_choice(name: str, value: Any) -> Any:
    """Return a choice of neurons, trials or conditions as `[data]` holds it: ids and labels as texts, trials as "0,3,5"."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable) or name == "window_s":
        return value
    items = list(value)
    if items and all(isinstance(item, bool) for item in items):
        items = [row for row, keep in enumerate(items) if keep]
    return ",".join(map(str, items)) if name == "trials" else [str(item) for item in items]


def default_model(has_neuron: bool, rule: Any = "auto") -> str:
    """Return the name of the model that is fitted where none is named.

    It is the one made of neurons if a neuron model is given, or a learning rule (a name, table or object) that asks for what only that
    model has.
    """
    return NETWORK if has_neuron or _asks_for_units(rule) else "coupled-glm"


def _asks_for_units(rule: Any) -> bool:
    """Return whether a learning rule serves models that let it drive their units; False for one that is not known."""
    name = rule.get("name") if isinstance(rule, Mapping) else rule
    if isinstance(name, str):
        if name == "auto" or name not in get_registry().names("learning_rules"):
            return False
        rule = get_registry().get("learning_rules", name)
    return HasUnits in getattr(rule, "requires", ())


def _component(role: str, given: Any, objects: dict[str, Any], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the table of a component given as a name, a table with "name", or an object."""
    if isinstance(given, str):
        return {"name": given, **(settings or {})}
    if isinstance(given, Mapping):
        return {**given, **(settings or {})}
    if settings:
        raise InvalidInputError(
            f"settings {', '.join(settings)} were given beside a {role} object. Set them on the object, or give its name."
        )
    if given is None or isinstance(given, type | int | float):
        raise InvalidInputError(f"{role}={given!r}: expected a registered name, a table with its name and settings, or an object.")
    objects[role] = given
    return _table_of(given, role)


def _table_of(thing: Any, role: str) -> dict[str, Any]:
    """Return the table that stands for an object in run.toml: its registered name and its settings as far as TOML can hold them."""
    reference = reference_to(thing, "losses" if role.startswith("loss/") else _KINDS[role])
    plain = {name: value for name, value in reference.settings.items() if isinstance(value, str | int | float | bool | tuple)}
    return {"name": reference.qualified_name, **plain}


def _losses(loss: Any, objects: dict[str, Any]) -> dict[str, Any]:
    """Return the `[loss]` table of a name, an object, or a mapping name -> weight, table, object or (object, weight)."""
    if isinstance(loss, str):
        return {loss: {"weight": 1.0}}
    if not isinstance(loss, Mapping):
        loss = {getattr(loss, "name", "loss"): loss}
    table = {}
    for name, term in loss.items():
        if isinstance(term, int | float):
            table[name] = {"weight": float(term)}
        elif isinstance(term, Mapping):
            table[name] = dict(term)
        else:
            thing, weight = term if isinstance(term, tuple) else (term, 1.0)
            objects[f"loss/{name}"] = thing
            table[name] = {"weight": float(weight)}
    return table


def _transforms(transforms: Any, objects: dict[str, Any]) -> list[Any]:
    """Return the list of update transforms, one alone being a list of one; if any is an object, all are kept as objects or tables."""
    if isinstance(transforms, str | Mapping) or not isinstance(transforms, Iterable):
        transforms = [transforms]
    if any(not isinstance(one, str | Mapping) for one in transforms):
        objects["transforms"] = tuple(transforms)
    return [one if isinstance(one, str | Mapping) else _table_of(one, "transforms") for one in transforms]
