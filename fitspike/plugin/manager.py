"""Finding plugins and keeping a broken one from harming anything but itself.

pluggy matches hooks and arguments. Its own loader is not used: there one failing import stops the loading of all plugins, and one raising
hook keeps the other plugins from being called.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import pluggy

from fitspike.errors import InvalidInputError, PluginError, did_you_mean
from fitspike.kernels import dispatch
from fitspike.plugin import hookspecs
from fitspike.plugin.lifecycle import Lifecycle, Listener
from fitspike.plugin.registry import BUILT_IN, Entry
from fitspike.plugin.version import API_VERSION, api_problem

logger = logging.getLogger("fitspike.plugin")

Supports = str | Callable[..., str | None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_HOOK_PREFIXES = ("fitspike_register_", "fitspike_fit_")
HOOK_NAMES = tuple(name for name in vars(hookspecs) if name.startswith("fitspike_"))


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a plugin, or one hook of it, is not used."""

    text: str
    traceback: str = ""


@dataclasses.dataclass
class PluginRecord:
    """What became of one plugin. `hooks` are those it implements and that are used; `problems` grow as tables are filled."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    is_disabled: bool = False
    is_registered: bool = False
    problems: list[Problem] = dataclasses.field(default_factory=list)

    @property
    def status(self) -> str:
        """Return "loaded", "partly loaded" (some hooks are left out), "failed" or "disabled"."""
        if self.is_disabled:
            return "disabled"
        if not self.is_registered:
            return "failed"
        return "partly loaded" if self.problems else "loaded"

    @property
    def error(self) -> str:
        """Return all problems in one line, or an empty string."""
        return "; ".join(problem.text for problem in self.problems)


@dataclasses.dataclass(frozen=True)
class KernelSupport:
    """What a plugin's kernel says of a call; one that raises when asked, or cannot be imported, cannot run it."""

    entry: Entry

    def __call__(self, **facts: Any) -> str | None:
        """Return None if the kernel can run a call with these facts, else why not."""
        try:
            reason = dispatch.Implementation(target=self.entry.target, **self.entry.details).reason_against(**facts)
        except Exception as error:  # noqa: BLE001 - the reason why not is all that is asked
            return f"{self.entry.origin} failed when asked: {_describe(error)}"
        if reason is None:
            try:
                self.entry.load()
            except PluginError as error:
                return str(error)
        return reason


@dataclasses.dataclass(frozen=True)
class Switch:
    """Which plugins to load: `only` these (None: all), never those in `without`. Built-ins are always loaded."""

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()

    def allows(self, plugin: str, distribution: str) -> bool:
        """Return whether a plugin is to be loaded, told by its own name or its distribution's."""
        names = {plugin, distribution}
        return not names & self.without and (self.only is None or bool(names & self.only))


def parse_switch(text: str) -> Switch:
    """Return what `FITSPIKE_PLUGINS` says: "" (all), "none", "only:a,b" or "-a,-b".

    Raises
    ------
    InvalidInputError
        For anything else.
    """
    text = text.strip()
    if text in ("", "all"):
        return Switch()
    if text == "none":
        return Switch(only=frozenset())
    if text.startswith("only:"):
        return Switch(only=frozenset(name.strip() for name in text.removeprefix("only:").split(",") if name.strip()))
    names = [name.strip() for name in text.split(",") if name.strip()]
    if all(name.startswith("-") and len(name) > 1 for name in names):
        return Switch(without=frozenset(name[1:] for name in names))
    raise InvalidInputError(f"FITSPIKE_PLUGINS={text!r} is not understood. Use none, only:NAME,NAME or -NAME,-NAME.")


class PluginManager:
    """Discovers plugins, calls each registration hook of each plugin alone, and keeps a record of every one.

    Parameters
    ----------
    switch : which plugins to load; default: what `FITSPIKE_PLUGINS` says
    disabled : names from the configuration's `[plugins] disable`
    """

    def __init__(self, switch: Switch | None = None, disabled: Collection[str] = ()) -> None:
        self._switch = parse_switch(os.environ.get("FITSPIKE_PLUGINS", "")) if switch is None else switch
        self._disabled = frozenset(disabled)
        self._trace_on = os.environ.get("FITSPIKE_PLUGIN_TRACE", "") not in ("", "0")
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._records: dict[str, PluginRecord] = {}
        self._is_discovered = False
        self.is_complete = False
        """Whether discovery is over; a plugin that uses fitspike while it is imported asks before that."""

    def records(self) -> list[PluginRecord]:
        """Return a record per plugin, the built-ins first."""
        self._discover()
        return list(self._records.values())

    def collect(self, table: str) -> list[Entry]:
        """Return the entries of one table. A plugin whose hook raises adds nothing to that table, and its record says why."""
        self._discover()
        entries: list[Entry] = []
        for implementation in self._implementations(f"fitspike_register_{table}"):
            record = self._records[implementation.plugin_name]
            staged: list[Entry] = []
            try:
                with _stdout_to_stderr():
                    returned = implementation.function(
                        **_by_name(implementation.argnames, {"register": _registrar(table, record, staged)}),
                    )
                if returned is not None:
                    raise PluginError(f"it returned {returned!r}; a registration hook calls register(...) and returns nothing.")
                if table == "kernels":
                    staged = [dataclasses.replace(entry, details={**entry.details, "supports": KernelSupport(entry)}) for entry in staged]
                    _add_to_dispatch(staged)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit included
                self._note(record, f"fitspike_register_{table} failed: {_describe(error)}", error)
                continue
            self._trace(f"{record.name}: {len(staged)} in {table}")
            entries += staged
        return entries

    def lifecycle(self) -> Lifecycle:
        """Return the lifecycle listeners of all plugins, for one run."""
        self._discover()
        return Lifecycle(
            {
                hook: [
                    Listener(implementation.plugin_name, _taking(implementation.function, implementation.argnames))
                    for implementation in self._implementations(hook)
                ]
                for hook in hookspecs.LIFECYCLE_HOOKS
            }
        )

    def _implementations(self, hook: str) -> list[Any]:
        """Return a hook's implementations in order of registration (pluggy lists the last registered last)."""
        return getattr(self._pluggy.hook, hook).get_hookimpls()

    def _discover(self) -> None:
        if self._is_discovered:
            return
        self._is_discovered = True
        from fitspike import __version__
        from fitspike.plugin import defaults

        builtin = self._records[BUILT_IN] = PluginRecord(BUILT_IN, "fitspike", __version__)
        self._register(builtin, defaults)
        found = [(point, distribution, version) for distribution, version, points in self._installed() for point in points]
        for point, distribution, version in sorted(found, key=lambda one: one[0].name):
            self._load(point, distribution, version)
        self.is_complete = True

    def _installed(self) -> Iterator[tuple[str, str, list[EntryPoint]]]:
        """Yield name, version and entry points of each distribution that has any in our group, the first of a name on the path.

        `importlib.metadata.entry_points` would do it in one call, and raise for everyone when one distribution's files are damaged.
        """
        seen = set()
        for distribution in distributions():
            place = getattr(distribution, "_path", None)
            label = str(getattr(place, "name", "unknown"))
            try:
                text = distribution.read_text("entry_points.txt") or ""
                if f"[{hookspecs.PROJECT}]" not in text:
                    continue
                name, version = _named(distribution, label)
                points = list(distribution.entry_points.select(group=hookspecs.PROJECT))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the files of one distribution concerns that one alone
                record = self._records[label] = PluginRecord(label, label, "unknown")
                self._note(record, f"its installation cannot be read: {_describe(error)}. Install it again.", error)
                continue
            if name not in seen:
                seen.add(name)
                yield name, version, points

    def _load(self, point: EntryPoint, distribution: str, version: str) -> None:
        record = PluginRecord(point.name, distribution, version)
        if point.name in self._records:
            taken = self._records[point.name]
            record.name = f"{point.name}@{distribution}"
            self._records[record.name] = record
            self._note(record, f"the plugin name {point.name!r} is taken by {taken.distribution} {taken.version}. Uninstall one of them.")
            return
        self._records[point.name] = record
        if not self._switch.allows(point.name, distribution) or {point.name, distribution} & self._disabled:
            record.is_disabled = True
            self._trace(f"{point.name}: disabled")
            return
        self._trace(f"{point.name}: importing {point.value}")
        try:
            with _stdout_to_stderr():
                module = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit included
            self._note(record, f"importing {point.value} failed: {_describe(error)}", error)
            return
        if (problem := api_problem(getattr(module, "FITSPIKE_API", API_VERSION))) is not None:
            self._note(record, problem)
            return
        try:
            self._register(record, module)
        except Exception as error:  # noqa: BLE001 - looking at the attributes of an object can raise anything
            self._note(record, f"looking for hooks in {point.value} failed: {_describe(error)}", error)

    def _register(self, record: PluginRecord, module: Any) -> None:
        """Hand a module's hooks to pluggy; leave nothing behind if that fails."""
        hooks, problems, wrappers, has_optional = [], [], [], False
        for attribute in dir(module):
            options = self._pluggy.parse_hookimpl_opts(module, attribute)
            if options is None:
                if attribute.startswith(_HOOK_PREFIXES) and callable(getattr(module, attribute)):
                    problems.append(f"{attribute} is not marked as a hook. Put @hookimpl before it.")
                continue
            hook = options.get("specname") or attribute
            has_optional = has_optional or bool(options.get("optionalhook"))
            if hook not in HOOK_NAMES and not options.get("optionalhook"):
                problems.append(f"this fitspike knows no hook {hook!r}{did_you_mean(hook, HOOK_NAMES)}")
            elif options.get("wrapper") or options.get("hookwrapper"):
                wrappers.append(f"{hook} is a hook wrapper; fitspike calls each implementation alone. Use a plain @hookimpl.")
            elif hook in HOOK_NAMES:
                hooks.append(hook)
        if not (hooks or problems or wrappers or has_optional):
            self._note(record, "it implements no hook. The entry point must name the module that holds them.")
            return
        if wrappers:
            self._note(record, " ".join(wrappers))
            return
        try:
            self._pluggy.register(module, name=record.name)
        except (pluggy.PluginValidationError, ValueError, TypeError) as error:
            # pluggy before 1.7 leaves the name occupied and some hooks in place.
            if self._pluggy.has_plugin(record.name):
                self._pluggy.unregister(name=record.name)
            self._note(record, _validation_text(error), error)
            return
        record.is_registered = True
        record.hooks = tuple(hooks)
        for problem in problems:
            self._note(record, problem)
        self._trace(f"{record.name}: registered {', '.join(hooks) or 'no hook'}")

    def _note(self, record: PluginRecord, text: str, error: BaseException | None = None) -> None:
        if text in (problem.text for problem in record.problems):
            return  # a table is filled again if a plugin asked for it before all were loaded
        lines = "" if error is None else "".join(traceback.format_exception(error))
        record.problems.append(Problem(text, lines))
        logger.warning("plugin %r (%s %s): %s", record.name, record.distribution, record.version, text)
        self._trace(lines)

    def _trace(self, text: str) -> None:
        if self._trace_on and text:
            print(f"fitspike plugins: {text}", file=sys.stderr)


def _named(distribution: Distribution, label: str) -> tuple[str, str]:
    """Return name and version, or the folder's name and "unknown" where the metadata do not say."""
    try:
        metadata = distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
    except Exception:  # noqa: BLE001 - metadata that are absent raise errors of many types, by version of Python
        name, version = None, None
    return name or label, version or "unknown"


def _registrar(table: str, record: PluginRecord, staged: list[Entry]) -> Callable[..., None]:
    """Return the `register` function for one plugin and table; it puts checked entries into `staged`."""

    def stage(target: Any, name: str, aliases: tuple[str, ...] = (), **details: Any) -> None:
        for one in (name, *aliases):
            if not isinstance(one, str) or not _NAME.fullmatch(one):
                raise PluginError(f"{one!r} is no name to register. Use letters, digits, '-', '_' and '.'.")
            if any(one in (entry.name, *entry.aliases) for entry in staged) and table != "kernels":
                raise PluginError(f"it registers {one!r} twice.")
        if isinstance(target, str) and not _TARGET.fullmatch(target):
            raise PluginError(f"target {target!r} of {name!r} is not of the form 'module:attribute'.")
        staged.append(Entry(table, name, record.name, record.distribution, record.version, target, tuple(aliases), details))

    def register_kernel(op: str, backend: str, target: Any, *, supports: Supports | None = None, priority: int = 0) -> None:
        stage(target, f"{op}.{backend}", op=op, backend=backend, supports=supports, priority=priority)

    def register_command(name: str, target: Any, help: str) -> None:
        stage(target, name, help=help)

    def register(target: Any, *, name: str | None = None, aliases: tuple[str, ...] = ()) -> None:
        chosen = name if name is not None else getattr(target, "name", None)
        if not isinstance(chosen, str):
            raise PluginError(f"register({target!r}) needs name=..., since the target does not carry a name of its own.")
        stage(target, chosen, aliases)

    return {"kernels": register_kernel, "commands": register_command}.get(table, register)


def _add_to_dispatch(entries: list[Entry]) -> None:
    """Let kernels choose among the registered backends too; a backend name that is taken is refused before any is added."""
    for entry in entries:
        taken = {one.backend for one in dispatch.implementations(entry.details["op"]) if one.target != entry.target}
        if entry.details["backend"] in taken:
            raise PluginError(f"kernel {entry.details['op']!r} already has a backend {entry.details['backend']!r}.")
    for entry in entries:
        dispatch.register_kernel(target=entry.target, **entry.details)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keep what a plugin prints away from standard output, which carries results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _by_name(names: tuple[str, ...], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in names}


def _taking(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    """Return a function that takes every argument of a hook and passes on those the implementation wants."""

    def call(**arguments: Any) -> Any:
        with _stdout_to_stderr():
            return function(**_by_name(names, arguments))

    return call


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _validation_text(error: Exception) -> str:
    """Return pluggy's complaint in one line."""
    return " ".join(str(error).split())
