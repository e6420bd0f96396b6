"""References to registered objects and their settings, as run folders store them, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fitspike.errors import InvalidInputError, PluginError, UnknownNameError
from fitspike.plugin.kinds import KINDS
from fitspike.plugin.registry import Entry, get_registry

_MARK = "registered"
"""Key that tells a stored reference from a mapping of settings."""


@dataclass(frozen=True)
class ComponentRef:
    """A registered object by kind and qualified name, with the settings that make it and the distribution that holds it.

    `distribution` is empty for an object that nothing registered: it can be used as long as it lives, not made again from a file.
    """

    kind: str
    qualified_name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    distribution: str = ""
    version: str = ""

    @property
    def name(self) -> str:
        """Return the name without the plugin."""
        return self.qualified_name.rpartition(":")[2]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            _MARK: self.kind,
            "qualified_name": self.qualified_name,
            "settings": {name: _encode(value) for name, value in self.settings.items()},
            "distribution": self.distribution,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ComponentRef:
        """Return a reference from plain values; lists of settings become tuples again."""
        settings = {name: _decode(value) for name, value in values["settings"].items()}
        return cls(values[_MARK], values["qualified_name"], settings, values["distribution"], values["version"])

    def build(self) -> Any:
        """Return the object, made by the plugin that registers it.

        Raises
        ------
        PluginError
            If that plugin is not installed; the text names it and its version.
        """
        if not self.distribution:
            raise PluginError(
                f"{self.qualified_name!r} was an object that no plugin registers, so that it cannot be made again from the run folder. "
                "Pass it: FitResult.load(folder, model=...), or register it (see docs/plugins/write-one.md)."
            )
        try:
            entry = get_registry().entry(self.kind, self.qualified_name)
        except UnknownNameError as error:
            raise PluginError(
                f"this run used {KINDS[self.kind].label} {self.qualified_name!r} of {self.distribution} {self.version}, which is "
                f"{self._why_missing()} Parameters, scores and figures can be read without it."
            ) from error
        return entry.create({name: _built(value) for name, value in self.settings.items()})

    def _why_missing(self) -> str:
        """Return in words why no plugin here registers this."""
        record = next((one for one in get_registry().records() if one.distribution == self.distribution), None)
        if record is None:
            return f"not installed here. Install it: pip install '{self.distribution}=={self.version}'."
        if record.is_disabled:
            return "installed but disabled. Enable it: see FITSPIKE_PLUGINS and [plugins] disable in `fitspike config show`."
        if record.problems:
            return f"installed but failed to load: {record.error.rstrip('.')}."
        return f"not in the installed version {record.version}. Install that of the run: pip install '{self.distribution}=={self.version}'."


def reference_to(thing: Any, kind: str) -> ComponentRef:
    """Return the reference of an object: the entry that registers its class, and its settings.

    An object of a class that nothing registers gets a reference without distribution.
    """
    settings = {name: _setting(value) for name, value in settings_of_object(thing).items()}
    for entry in get_registry().entries(kind):
        if _makes(entry, thing):
            return ComponentRef(kind, entry.qualified_name, settings, entry.distribution, entry.version)
    return ComponentRef(kind, f"{type(thing).__module__}:{type(thing).__qualname__}", settings)


def settings_of_object(thing: Any) -> dict[str, Any]:
    """Return the settings of a frozen dataclass by name; other objects have none."""
    if not dataclasses.is_dataclass(thing):
        return {}
    return {entry.name: getattr(thing, entry.name) for entry in dataclasses.fields(thing) if entry.init}


def _makes(entry: Entry, thing: Any) -> bool:
    """Return whether an entry's target is the class of `thing`, or an object of that class, without importing other targets."""
    kind = type(thing)
    if isinstance(entry.target, str):
        module, _, attribute = entry.target.partition(":")
        if attribute == kind.__qualname__ and module == kind.__module__:
            return True
        if module != kind.__module__:
            return False
    try:
        target = entry.load()
    except PluginError:
        return False  # incomplete or not to be imported: nothing can have been made of it
    return target is kind or type(target) is kind


_KINDS_OF_SETTINGS = ("neuron_models", "models", "learning_rules")


def _setting(value: Any) -> Any:
    """Return a setting with objects in it replaced by references."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type | ComponentRef):
        references = (reference_to(value, kind) for kind in _KINDS_OF_SETTINGS)
        found = next((one for one in references if one.distribution), None)
        return found if found is not None else ComponentRef("", f"{type(value).__module__}:{type(value).__qualname__}")
    if isinstance(value, list | tuple):
        return tuple(_setting(item) for item in value)
    if isinstance(value, np.ndarray):
        return _decode(value.tolist())
    return value


def _built(value: Any) -> Any:
    """Return a setting with references replaced by the objects they stand for."""
    if isinstance(value, tuple):
        return tuple(_built(item) for item in value)
    return value.build() if isinstance(value, ComponentRef) else value


def _encode(value: Any) -> Any:
    if isinstance(value, ComponentRef):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _encode(value.tolist())
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InvalidInputError(f"a setting of type {type(value).__name__} cannot be stored. Use text, numbers, tuples or registered objects.")


def _decode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ComponentRef.from_json(value) if _MARK in value else {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return value
