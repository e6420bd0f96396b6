"""Settings of what is registered: which there are, and whether the values given are of their kind."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}
"""Kinds that are checked, in words; settings of other kinds are left to the target."""


def settings_of(target: Any) -> frozenset[str] | None:
    """Return the names of a target's settings, or None if it is no dataclass and they cannot be known."""
    if not dataclasses.is_dataclass(target):
        return None
    return frozenset(field.name for field in dataclasses.fields(target) if field.init)


def wrong_kinds(target: Any, settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting of a dataclass whose value is not of the plain kind that its annotation says."""
    if not dataclasses.is_dataclass(target):
        return []  # annotations of another class say what its attributes are, not what it takes
    try:
        hints = typing.get_type_hints(target if isinstance(target, type) else type(target))
    except (AttributeError, NameError, SyntaxError, TypeError):  # names that only a type checker imports: nothing can be said
        return []
    found = []
    for name, value in settings.items():
        hint = hints.get(name, Any)
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
        if all(kind in _KINDS for kind in kinds) and not any(_is_of(value, kind) for kind in kinds):
            found.append(f"{name}={value!r}: expected {' or '.join(_KINDS[kind] for kind in kinds if kind is not type(None))}.")
    return found


def _is_of(value: Any, kind: type) -> bool:
    """Return whether a value is of a kind; a whole number is a number too, and true or false is none."""
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
    if kind is bool or is_bool:
        return kind is bool and is_bool
    if kind is int:
        return isinstance(value, Integral)
    if kind is float:
        return isinstance(value, Real)
    return isinstance(value, kind)
