"""Tables of everything registered, by kind and name: qualified names, suggestions, and targets imported when first used."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fitspike.config_layers import merge, standing_layers
from fitspike.errors import AmbiguousNameError, FitspikeError, InvalidInputError, PluginError, UnknownNameError, did_you_mean
from fitspike.plugin.kinds import KINDS, Kind, kind_of
from fitspike.plugin.settings import settings_of, wrong_kinds

if TYPE_CHECKING:
    from fitspike.plugin.lifecycle import Lifecycle
    from fitspike.plugin.manager import PluginManager, PluginRecord

BUILT_IN = "fitspike"
"""Name of the plugin that holds the built-ins."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered target. `target` is an object, or "module:attribute", imported by `load()`.

    `details` holds what kernels and commands register beside their target: op, backend, supports, help.
    """

    kind: str
    name: str
    plugin: str
    distribution: str
    version: str
    target: Any
    aliases: tuple[str, ...] = ()
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def qualified_name(self) -> str:
        """Return "plugin:name", which is what run folders store."""
        return f"{self.plugin}:{self.name}"

    @property
    def all_aliases(self) -> tuple[str, ...]:
        """Return the aliases, bare and qualified."""
        return (*self.aliases, *(f"{self.plugin}:{alias}" for alias in self.aliases))

    @property
    def origin(self) -> str:
        """Return who registered this, for error messages."""
        return f"plugin {self.plugin!r} ({self.distribution} {self.version})"

    def load(self) -> Any:
        """Return the target, imported if it was given as "module:attribute".

        Raises
        ------
        PluginError
            If the import fails or the target lacks members of its protocol; the text names plugin, distribution and version.
        """
        target = self.target
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            with self.guard(f"importing {target}"):
                target = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        if self.kind in KINDS:
            if missing := missing_members(target, KINDS[self.kind]):
                raise PluginError(
                    f"{self.qualified_name!r} of {self.origin} is no {KINDS[self.kind].label}: it lacks {', '.join(missing)}. "
                    f"See docs/plugins/hooks.md, or run `fitspike plugins check {self.plugin}`."
                )
        return target

    def create(self, settings: Mapping[str, Any] | None = None) -> Any:
        """Return an instance: a class is called with the settings as keywords, an object gets them replaced.

        Raises
        ------
        InvalidInputError
            For settings that the target does not have, or values of another kind than its annotations say, all of them in one message.
        """
        target, settings = self.load(), dict(settings or {})
        known = settings_of(target)
        if known is not None and (unknown := [name for name in settings if name not in known]):
            hints = " ".join(
                f"{KINDS[self.kind].label} {self.name!r} has no setting {name!r}{did_you_mean(name, known)}" for name in unknown
            )
            raise InvalidInputError(f"{hints} Its settings: {', '.join(sorted(known)) or 'none'}.")
        if wrong := wrong_kinds(target, settings):
            raise InvalidInputError(f"{KINDS[self.kind].label} {self.name!r}: {' '.join(wrong)}")
        with self.guard(f"making {self.qualified_name!r} with settings {settings}"):
            if isinstance(target, type):
                return target(**settings)
            return dataclasses.replace(target, **settings) if settings else target

    @contextlib.contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Turn an exception of a third party's code into a PluginError that names it; errors of fitspike pass as they are."""
        try:
            yield
        except FitspikeError:
            raise
        except (Exception, SystemExit) as error:
            if self.plugin == BUILT_IN:
                raise
            raise PluginError(f"{self.origin} failed while {doing}: {type(error).__name__}: {error}") from error


def missing_members(target: Any, kind: Kind) -> list[str]:
    """Return which members of its kind a class or object lacks."""
    return [member for member in kind.members if not _has_member(target, member)]


def _has_member(target: Any, member: str) -> bool:
    if not isinstance(target, type):
        return hasattr(target, member)
    if member == "__call__":  # every class is callable; what counts is whether its instances are
        return any(member in base.__dict__ for base in target.__mro__)
    return hasattr(target, member) or member in (settings_of(target) or ())


class Registry:
    """Everything that built-ins and plugins registered. Tables are filled on first use."""

    def __init__(self, manager: PluginManager) -> None:
        self.manager = manager
        self._tables: dict[str, list[Entry]] = {}

    def entries(self, kind: str) -> list[Entry]:
        """Return all entries of a kind, built-ins first, then by plugin."""
        table = kind if kind in KINDS or kind in ("kernels", "commands") else kind_of(kind).table
        if table in self._tables:
            return self._tables[table]
        found = self.manager.collect(table)
        if self.manager.is_complete:
            self._tables[table] = found
        return found

    def names(self, kind: str) -> list[str]:
        """Return the sorted names that can be used for a kind; names that two plugins share appear qualified."""
        by_name: dict[str, list[Entry]] = {}
        for entry in self.entries(kind):
            by_name.setdefault(entry.name, []).append(entry)
        usable = set()
        for name, entries in by_name.items():
            has_builtin = any(entry.plugin == BUILT_IN for entry in entries)
            if has_builtin or len(entries) == 1:
                usable.add(name)
            usable.update(entry.qualified_name for entry in entries if len(entries) > 1 and entry.plugin != BUILT_IN)
        return sorted(usable)

    def entry(self, kind: str, name: str) -> Entry:
        """Return the entry of a bare name or alias, or of either behind "plugin:". A built-in's bare name always means the built-in.

        Raises
        ------
        AmbiguousNameError
            If several plugins, none of them the built-ins, share a bare name or alias; the text lists the qualified names.
        UnknownNameError
            If there is none; the text suggests a near name, lists the known ones and says which plugins failed to load.
        """
        found = [entry for entry in self.entries(kind) if name in (entry.name, entry.qualified_name, *entry.all_aliases)]
        builtin = [entry for entry in found if entry.plugin == BUILT_IN]
        if builtin or len(found) == 1:
            return (builtin or found)[0]
        label = kind_of(kind).label if kind not in ("kernels", "commands") else kind.removesuffix("s")
        if found:
            choices = ", ".join(entry.qualified_name for entry in found)
            raise AmbiguousNameError(f"{label} {name!r} is registered by {len(found)} plugins. Say which: {choices}.")
        names = self.names(kind)
        listed = f" Known: {', '.join(names)}." if names else " None is registered."
        raise UnknownNameError(f"no {label} {name!r}{did_you_mean(name, names)}{listed}{self._failed_plugins()}")

    def get(self, kind: str, name: str) -> Any:
        """Return the target of a name: a class or an object. See `entry` for the errors."""
        return self.entry(kind, name).load()

    def create(self, kind: str, name: str, settings: Mapping[str, Any] | None = None) -> Any:
        """Return an instance of a name with the given settings. See `Entry.create`."""
        return self.entry(kind, name).create(settings)

    def records(self) -> list[PluginRecord]:
        """Return what is known of every plugin after all tables have been filled."""
        for table in (*KINDS, "kernels", "commands"):
            self.entries(table)
        return self.manager.records()

    def lifecycle(self) -> Lifecycle:
        """Return the listeners for one run."""
        return self.manager.lifecycle()

    def _failed_plugins(self) -> str:
        failed = [record.name for record in self.manager.records() if record.problems]
        if not failed:
            return ""
        listed = ", ".join(repr(name) for name in failed)
        return f" {'Plugins' if len(failed) > 1 else 'Plugin'} {listed} failed to load (see `fitspike plugins list`)."


def get_registry() -> Registry:
    """Return the registry of this process, with the plugins that `FITSPIKE_PLUGINS` and the configuration allow."""
    registry = _registry_of_this_process()
    # Nobody asks for kernels by name here: they go to the table of the kernels, which knows no plugins, before anything is computed.
    registry.entries("kernels")
    return registry


@functools.cache
def _registry_of_this_process() -> Registry:
    from fitspike.plugin.manager import PluginManager

    merged, _ = merge(standing_layers())
    disabled = merged.get("plugins", {}).get("disable", ())
    return Registry(PluginManager(disabled=[disabled] if isinstance(disabled, str) else disabled))


def reset_registry() -> None:
    """Forget the registry, so that the next use discovers plugins again."""
    _registry_of_this_process.cache_clear()
