"""Options that several commands share: which recording, and which part of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fitspike.recording.recording import Recording

Command = TypeVar("Command", bound=Callable[..., Any])


class Pair(click.ParamType):
    """Two numbers separated by a comma, such as -0.2,0.8."""

    name = "A,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Return the two numbers; a usage error otherwise."""
        if isinstance(value, tuple):
            return value
        try:
            first, second = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers separated by a comma, such as -0.2,0.8.", param, ctx)
        return first, second


class KeyValue(click.ParamType):
    """KEY=VALUE; the value is read as JSON where it is JSON (numbers, true, lists), else as text. KEY.SUB=VALUE fills a table."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Return key and value; a usage error without "="."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} is not KEY=VALUE.", param, ctx)
        try:
            return key.strip(), json.loads(text)
        except json.JSONDecodeError:
            return key.strip(), text


recording_argument = click.argument("recordings", metavar="REC...", nargs=-1, required=True)
"""One file or folder, or several files of the same neurons, which are joined as trials."""

_RECORDING_OPTIONS = (
    click.option("--format", "format", metavar="READER", help="Reader to use. Default: the first that can read the file."),
    click.option("--time-unit", type=click.Choice(["s", "ms", "us", "ns", "min"]), help="Unit of the times, where a file does not say it."),
    click.option("--sampling-rate", type=float, metavar="HZ", help="Sampling rate, where times are sampling points."),
    click.option("--reader-option", "reader_option", type=KeyValue(), multiple=True, help="Option of the reader. Repeatable."),
    click.option("--units", multiple=True, metavar="WHERE", help='Units to keep, such as "contamination < 0.05". Repeatable.'),
    click.option("--neurons", multiple=True, metavar="IDS", help="Ids of the neurons to keep, separated by commas. Repeatable."),
    click.option("--start", type=float, metavar="S", help="Start of the time range to keep, s."),
    click.option("--stop", type=float, metavar="S", help="End of the time range to keep, s."),
    click.option("--trials", metavar="ROWS", help="Trials to keep, such as 0:20 or 0,3,5."),
    click.option("--condition", "conditions", multiple=True, metavar="LABEL", help="Trial condition to keep. Repeatable."),
    click.option("--align", metavar="EVENT", help="Cut one trial around each of these events; needs --window."),
    click.option("--window", type=Pair(), metavar="A,B", help="Start and stop of those trials relative to the event, s: -0.2,0.8."),
    click.option("--signals", "signals", multiple=True, metavar="NAME", help='Signals to keep, or "none". Repeatable. Default: all.'),
    click.option("--attach-signals", multiple=True, metavar="FILE", help="Signals from .csv, .npy (FILE,rate=HZ) or .npz. Repeatable."),
    click.option("--attach-events", multiple=True, metavar="FILE", help="Events from .csv, .npy or .npz. Repeatable."),
    click.option("--attach-conditions", metavar="FILE", help="One label per trial from .csv, .npy or .npz."),
)


def recording_options(command: Command) -> Command:
    """Add the options that choose a part of a recording; the command hands their values to `load_selected` or `data_settings`."""
    for option in reversed(_RECORDING_OPTIONS):
        command = option(command)
    return command


def data_settings(
    recordings: tuple[str, ...],
    *,
    format: str | None = None,
    time_unit: str | None = None,
    sampling_rate: float | None = None,
    reader_option: tuple[tuple[str, Any], ...] = (),
    units: tuple[str, ...] = (),
    neurons: tuple[str, ...] = (),
    start: float | None = None,
    stop: float | None = None,
    trials: str | None = None,
    conditions: tuple[str, ...] = (),
    align: str | None = None,
    window: tuple[float, float] | None = None,
    signals: tuple[str, ...] = (),
    attach_signals: tuple[str, ...] = (),
    attach_events: tuple[str, ...] = (),
    attach_conditions: str | None = None,
) -> dict[str, Any]:
    """Return what the options say as the keys of `[data]` of a configuration, only those that were given."""
    reader: dict[str, Any] = {}
    for key, value in reader_option:
        table, _, sub = key.partition(".")
        if sub:
            reader.setdefault(table, {})[sub] = value
        else:
            reader[key] = value
    if time_unit is not None:
        reader["unit"] = time_unit
    if sampling_rate is not None:
        reader["sampling_rate_hz"] = sampling_rate
    attach = {"signals": attach_signals, "events": attach_events, "conditions": attach_conditions}
    settings: dict[str, Any] = {
        "path": recordings,
        "format": format,
        "reader": reader,
        "attach": {kind: files for kind, files in attach.items() if files},
        "align": align,
        "window_s": window,
        "neurons": tuple(name for part in neurons for name in part.split(",")),
        "where": units,
        "trials": trials,
        "conditions": conditions,
        "start_s": start,
        "stop_s": stop,
        "signals": () if signals == ("none",) else signals or None,
    }
    return {key: value for key, value in settings.items() if value or value == 0 or (key == "signals" and value is not None)}


def load_selected(recordings: tuple[str, ...], **options: Any) -> Recording:
    """Return the recording that the arguments and options of a command describe."""
    from fitspike.datasets.selection import load_data

    return load_data(**data_settings(recordings, **options))
