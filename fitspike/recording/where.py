"""Choice of neurons by comparisons with their columns, such as "contamination < 0.05 and quality == good". No code is evaluated."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.recording.tables import NeuronTable

_OPERATORS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
_COMPARISON = re.compile(r"^\s*([\w.\- ]+?)\s*(<=|>=|==|!=|=|<|>)\s*(.+?)\s*$")


def neuron_mask(neurons: NeuronTable, comparisons: Sequence[str]) -> np.ndarray:
    """Return which neurons meet every comparison, (n_neurons,) bool.

    Raises
    ------
    InvalidInputError
        If a text is no comparison, or compares a text column with < or a number column with a word.
    UnknownNameError
        If there is no such column.
    """
    mask = np.ones(len(neurons), dtype=bool)
    for text in comparisons:
        for part in re.split(r"\s+and\s+", text):
            mask &= _one(neurons, part)
    return mask


def _one(neurons: NeuronTable, text: str) -> np.ndarray:
    match = _COMPARISON.match(text)
    if match is None:
        raise InvalidInputError(
            f'{text!r} is no comparison. Write COLUMN OPERATOR VALUE, such as "contamination < 0.05" or "quality == good".'
        )
    name, symbol, value = match.group(1), match.group(2).replace("===", "=="), match.group(3).strip("'\"")
    symbol = "==" if symbol == "=" else symbol
    column = neurons.column(name)
    if column.ndim != 1:
        raise InvalidInputError(f"column {name!r} has {column.shape[1:]} values per neuron and cannot be compared.")
    if column.dtype.kind == "b":
        if value.lower() not in ("true", "false", "0", "1"):
            raise InvalidInputError(f"column {name!r} holds true or false; {value!r} is neither.")
        return _OPERATORS[symbol](column, value.lower() in ("true", "1"))
    if column.dtype.kind in "iuf":
        try:
            number = float(value)
        except ValueError as error:
            raise InvalidInputError(f"column {name!r} holds numbers; {value!r} is none.") from error
        return _OPERATORS[symbol](column, number)
    if symbol not in ("==", "!="):
        raise InvalidInputError(f"column {name!r} holds text; compare it with == or !=, not {symbol}.")
    return _OPERATORS[symbol](column.astype(str), value)
