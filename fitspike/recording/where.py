"""Choice of neurons by comparisons with their columns, such as "contamination < 0.05 and quality == good". No code is evaluated."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

import numpy as np

from fitspike.errors import InvalidInputError
from fitspike.recording.tables import NeuronTable

_OPERATORS = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_COMPARISON = re.compile(
    r"""\s*(?P<column>[^<>=!]+?)\s*(?P<operator><=|>=|==|!=|=|<|>)\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^<>=!"']+?))\s*(?:\band\b|$)""",
    re.IGNORECASE,
)


def neuron_mask(neurons: NeuronTable, comparisons: Sequence[str]) -> np.ndarray:
    """Return which neurons meet every comparison, (n_neurons,) bool.

    A comparison is COLUMN OPERATOR VALUE, several may be joined by "and"; a value that holds "and" stands in quotes. NaN meets only `!=`.

    Raises
    ------
    InvalidInputError
        If a text is no comparison, or compares text with < or a number with a word.
    UnknownNameError
        If there is no such column.
    """
    mask = np.ones(len(neurons), dtype=bool)
    for text in comparisons:
        for column, symbol, value in _parsed(text):
            mask &= _meets(column, neurons.column(column), symbol, value)
    return mask


def _parsed(text: str) -> list[tuple[str, str, str]]:
    """Return the (column, operator, value) of each comparison in a text."""
    found, at = [], 0
    while at < len(text) or not found:
        match = _COMPARISON.match(text, at)
        if match is None:
            raise InvalidInputError(
                f'{text!r} is no comparison. Write COLUMN OPERATOR VALUE, such as "contamination < 0.05" or "quality == good"; '
                'join several by "and".'
            )
        value = next(match[kind] for kind in ("double", "single", "bare") if match[kind] is not None)
        found.append((match["column"], match["operator"], value))
        at = match.end()
    if text.rstrip().lower().endswith(" and"):
        raise InvalidInputError(f'{text!r} ends with "and". Add a comparison or leave the "and" out.')
    return found


def _meets(name: str, column: np.ndarray, symbol: str, value: str) -> np.ndarray:
    compare = _OPERATORS[symbol]
    if column.ndim != 1:
        raise InvalidInputError(f"column {name!r} has {column.shape[1:]} values per neuron and cannot be compared.")
    if column.dtype.kind == "b":
        if value.lower() not in _TRUTH:
            raise InvalidInputError(f"column {name!r} holds true or false; {value!r} is neither.")
        return compare(column, _TRUTH[value.lower()])
    if column.dtype.kind in "iuf":
        try:
            number = float(value)
        except ValueError as error:
            raise InvalidInputError(f"column {name!r} holds numbers; {value!r} is none.") from error
        return compare(column, number)
    if compare not in (operator.eq, operator.ne):
        raise InvalidInputError(f"column {name!r} holds text; compare it with == or !=, not {symbol}.")
    return compare(column.astype(str), value)
