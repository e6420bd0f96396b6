"""Write nested plain values as TOML text; reading is `tomllib`'s."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fitspike.errors import InvalidInputError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


def to_toml(values: Mapping[str, Any]) -> str:
    """Return TOML text whose parse equals `values`, with None entries left out and tuples as arrays.

    Floats are written with `repr`, so that they read back bit for bit.

    Raises
    ------
    InvalidInputError
        For a value that TOML cannot hold.
    """
    lines: list[str] = []
    _write_table(lines, (), values)
    return "\n".join(lines).strip() + "\n"


def _write_table(lines: list[str], path: tuple[str, ...], table: Mapping[str, Any]) -> None:
    """Write a table's plain entries, then its sub-tables and arrays of tables."""
    plain, nested = {}, {}
    for key, value in table.items():
        if value is None:
            continue
        (nested if isinstance(value, Mapping) or _is_table_array(value) else plain)[str(key)] = value
    if path and (plain or not nested):
        lines += ["", f"[{_dotted(path)}]"]
    lines += [f"{_key(key)} = {_value(value, (*path, key))}" for key, value in plain.items()]
    for key, value in nested.items():
        if isinstance(value, Mapping):
            _write_table(lines, (*path, key), value)
        else:
            for item in value:
                lines += ["", f"[[{_dotted((*path, key))}]]"]
                lines += [f"{_key(str(k))} = {_value(v, (*path, key, str(k)))}" for k, v in item.items() if v is not None]


def _is_table_array(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(item, Mapping) for item in value)


def _value(value: Any, path: tuple[str, ...]) -> str:
    """Return one TOML value."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            return repr(float(value)) if math.isfinite(value) else {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{ " + ", ".join(f"{_key(str(k))} = {_value(v, (*path, str(k)))}" for k, v in value.items() if v is not None) + " }"
        case Sequence():
            return "[" + ", ".join(_value(item, path) for item in value) + "]"
    if hasattr(value, "tolist"):
        return _value(value.tolist(), path)
    raise InvalidInputError(f"setting {_dotted(path)} = {value!r} cannot be written to a TOML file. Use text, numbers, lists or tables.")


def _key(key: str) -> str:
    return key if _BARE_KEY.match(key) else json.dumps(key, ensure_ascii=False)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(map(_key, path))
