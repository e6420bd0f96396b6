"""Text files as columns or as ragged lines of numbers: encoding, separator, header and units found, nothing dropped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording.reading import UTF16_MARKS

COMMENT_MARKS = ("#", "%")
LARGE_BYTES = 5_000_000
"""Files above this size are read by numpy's own parser where they hold nothing but numbers."""
_NUMBER_WITH_UNIT = re.compile(r"^([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(s|ms|us|ns)$")
_NO_FLOAT = re.compile(r"could not convert string (?P<text>.*) to float64 at row (?P<row>\d+), column (?P<column>\d+)")
_UNIT_SUFFIX = re.compile(r"(?:^|[_\s(\[])(s|ms|us|ns|sec|secs|seconds|msec|milliseconds|usec|microseconds)[)\]]?$", re.IGNORECASE)
_UNIT_WORDS = {"sec": "s", "secs": "s", "seconds": "s", "msec": "ms", "milliseconds": "ms", "usec": "us", "microseconds": "us"}


@dataclass(frozen=True)
class TextLines:
    """The lines of a file that are no comments, split into fields. `separator` is None for blanks; blank lines are []."""

    path: Path
    fields: list[list[str]]
    line_number: list[int]
    separator: str | None

    @property
    def filled(self) -> list[list[str]]:
        """Return the lines that are not blank."""
        return [fields for fields in self.fields if fields]


def unit_in_name(name: str) -> str | None:
    """Return the time unit that a column's name ends with: "time_s" and "Time (ms)" do, "Time" does not."""
    match = _UNIT_SUFFIX.search(name.strip())
    return None if match is None else _UNIT_WORDS.get(match[1].lower(), match[1].lower())


def id_range(text: str) -> np.ndarray:
    """Return the whole numbers of "1..100", both ends included."""
    match = re.fullmatch(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*", text)
    if match is None or int(match[2]) < int(match[1]):
        raise ReadError(f"{text!r} is no range of neuron ids. Write the first and the last, such as '1..100'.")
    return np.arange(int(match[1]), int(match[2]) + 1)


def natural_key(name: str) -> list[int | str]:
    """Return a sorting key that puts "cell2" before "cell10"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def read_lines(path: Path, *, encoding: str = "utf-8-sig", separator: str | None = None) -> TextLines:
    """Return the lines of a text file, split into fields.

    Raises
    ------
    ReadError
        If the file is not text in this encoding; the message names the byte and the likely encodings.
    """
    raw = path.read_bytes()
    is_wide = encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    if raw.startswith(UTF16_MARKS) and not is_wide:
        raise ReadError(f"{path} is text in UTF-16. Say encoding='utf-16', or save it as UTF-8.")
    if b"\0" in raw[: 1 << 16] and not is_wide:
        raise ReadError(f"{path} is not text: it holds NUL bytes. Say what it is with format=.")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ReadError(
            f"{path} is not text in {encoding.removesuffix('-sig')}: byte {raw[error.start]:#04x} in line {line}. "
            "Save it as UTF-8, or say its encoding, such as encoding='latin-1'."
        ) from error
    except LookupError as error:
        raise ReadError(f"no text encoding {encoding!r}. Known are 'utf-8', 'latin-1', 'utf-16' and others of Python.") from error
    kept = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if not line.lstrip().startswith(COMMENT_MARKS)]
    if separator is None:
        separator = _separator([line for _, line in kept if line.strip()][:50])
    fields = [_split(line, separator) for _, line in kept]
    return TextLines(path, fields, [i for i, _ in kept], separator)


def _separator(lines: list[str]) -> str | None:
    """Return tab or semicolon if any line holds it, comma if most do, else None for blanks."""
    for mark, share in (("\t", 0.0), (";", 0.0), (",", 0.5)):
        if lines and sum(mark in line.strip() for line in lines) > share * len(lines):
            return mark
    return None


def _split(line: str, separator: str | None) -> list[str]:
    if not line.strip():
        return []
    if separator is None:
        return line.split()
    return [field.strip().strip('"') for field in line.strip("\r\n").rstrip(separator if separator == "\t" else "").split(separator)]


def as_columns(lines: TextLines) -> dict[str, np.ndarray] | str:
    """Return name -> column if every line has equally many fields, else the reason why the file is no table.

    Names are those of the header, or "0", "1", ... where the first line holds numbers. A column is float64 if all its entries are
    numbers, else text.
    """
    rows = lines.filled
    if not rows:
        return "it holds no line that is not blank or a comment"
    n_fields = len(rows[0])
    odd = next((i for i, row in enumerate(rows) if len(row) != n_fields), None)
    if odd is not None:
        number = [n for n, fields in zip(lines.line_number, lines.fields, strict=True) if fields][odd]
        return f"line {number} has {len(rows[odd])} fields, the first has {n_fields}"
    has_header = not any(is_number(field) for field in rows[0])
    names = rows.pop(0) if has_header and len(rows) > 1 else [str(i) for i in range(n_fields)]
    if len(set(names)) != len(names):
        return f"the header repeats a name: {', '.join(names)}"
    columns = {}
    for i, name in enumerate(names):
        texts = [row[i] for row in rows]
        columns[name] = _column(texts)
    return columns


def large_columns(path: Path, *, encoding: str, separator: str | None, times: str | None = None) -> dict[str, np.ndarray] | None:
    """Return the columns of a large file that holds numbers only (and perhaps a header), or None where it has to be read line by line.

    Six times faster than `as_columns` and without a list of texts; the result is the same.

    Raises
    ------
    ReadError
        If the column `times` begins with numbers and goes on with something else, which reading line by line would only say later.
    """
    if path.stat().st_size < LARGE_BYTES:
        return None
    try:
        with path.open(encoding=encoding) as file:
            head = [next(file) for _ in range(50)]
        separator = _separator([line for line in head if line.strip()]) if separator is None else separator
        first = _split(head[0], separator)
        has_header = not any(is_number(field) for field in first)
        table = np.loadtxt(path, delimiter=separator, skiprows=int(has_header), comments=None, encoding=encoding, ndmin=2)
    except ValueError as error:
        if times is not None and (match := _NO_FLOAT.search(str(error))) and int(match["row"]) >= len(head):
            names = first if has_header else [str(i) for i in range(len(first))]
            column = int(match["column"]) - 1
            if column < len(names) and names[column] == times:
                where = f"{match['text']} in row {match['row']}, counted from 0"
                raise ReadError(f"{path}: {times!r} holds {where}; expected numbers.") from error
        return None
    except (StopIteration, LookupError):
        return None
    names = first if has_header else [str(i) for i in range(table.shape[1])]
    if len(names) != table.shape[1] or len(set(names)) != len(names):
        return None
    return {name: table[:, i] for i, name in enumerate(names)}


def _column(texts: list[str]) -> np.ndarray:
    try:
        return np.array(texts, dtype=np.float64)
    except ValueError:
        return np.array(texts)


def as_trains(lines: TextLines, *, empty_lines: str = "skip") -> tuple[list[np.ndarray], str | None, int]:
    """Return one train per line, the unit that the numbers carry if they do ("1.22 s"), and how many blank lines were skipped.

    Parameters
    ----------
    empty_lines : "skip" or "train"
        Whether a blank line separates, or is a neuron without spikes.

    Raises
    ------
    ReadError
        If a field is no number; the message names line and field.
    """
    if empty_lines not in ("skip", "train"):
        raise ReadError(f"empty_lines={empty_lines!r}; expected 'skip' (blank lines separate) or 'train' (a silent neuron).")
    trains, units, n_blank = [], set(), 0
    for number, fields in zip(lines.line_number, lines.fields, strict=True):
        if not fields:
            n_blank += 1
            if empty_lines == "train":
                trains.append(np.zeros(0))
            continue
        try:
            trains.append(np.array([field for field in fields if field], dtype=np.float64))
        except ValueError:
            values = []
            for field in (field for field in fields if field):
                match = _NUMBER_WITH_UNIT.match(field)
                if match is None:
                    raise NoSpikeTrainsError(
                        f"no spike trains found in {lines.path}: {field[:40]!r} in line {number} is no number."
                    ) from None
                values.append(float(match[1]))
                units.add(match[2])
            trains.append(np.array(values))
    if len(units) > 1:
        raise ReadError(f"{lines.path} mixes the time units {', '.join(sorted(units))}. Convert it to one unit.")
    return trains, units.pop() if units else None, n_blank if empty_lines == "skip" else 0


def is_number(field: str) -> bool:
    """Return whether a field is a number, perhaps with a time unit."""
    try:
        float(field)
    except ValueError:
        return _NUMBER_WITH_UNIT.match(field) is not None
    return True
