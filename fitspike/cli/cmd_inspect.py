"""`fitspike inspect`: what a recording holds, and what is unusual in it."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import click
import numpy as np

from fitspike.cli.options import load_selected, recording_argument, recording_options
from fitspike.recording.checks import DataReport
from fitspike.recording.recording import Recording
from fitspike.units import NS_PER_MS, NS_PER_S

_WIDTH = 120


@click.command()
@recording_argument
@recording_options
@click.option("--per-neuron", is_flag=True, help="List every neuron with its numbers and columns.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(recordings: tuple[str, ...], per_neuron: bool, as_json: bool, **options: Any) -> None:
    """Show what a recording holds: neurons, trials, rates, signals, checks, memory if dense. Nothing is changed."""
    recording = load_selected(recordings, **options)
    report = recording.checks()
    summary = summarise(recording, report)
    if as_json:
        click.echo(json.dumps(summary, allow_nan=False))
        return
    for line in _lines(summary):
        click.echo(line)
    if per_neuron:
        click.echo("\n" + _neuron_table(recording, report))


def summarise(recording: Recording, report: DataReport) -> dict[str, Any]:
    """Return what `inspect` shows as plain values."""
    numbers = report.as_dict()
    rates = report.rate_hz[np.isfinite(report.rate_hz)]
    spread = np.percentile(rates, [0, 50, 100]).tolist() if rates.size else None
    lengths = (recording.trials.duration_ns / NS_PER_S).tolist()
    low, high = recording.extent_ns
    return {
        "n_neurons": recording.n_neurons,
        "n_spikes": recording.n_spikes,
        "n_trials": recording.n_trials,
        "duration_s": recording.duration_s,
        "start_s": low / NS_PER_S,
        "stop_s": high / NS_PER_S,
        "trial_duration_s": [min(lengths), max(lengths)] if lengths else None,
        "native_bin_ms": None if recording.bin_width_ns is None else recording.bin_width_ns / NS_PER_MS,
        "rate_hz": None if spread is None else dict(zip(("min", "median", "max"), spread, strict=True)),
        "conditions": _counted(recording.trials.conditions),
        "populations": _counted(recording.neurons.populations),
        "unit_columns": list(recording.neurons.columns),
        "trial_columns": list(recording.trials.columns),
        "signals": {
            name: {
                "n_channels": signal.n_channels,
                "sampling_rate_hz": signal.sampling_rate_hz,
                "start_s": signal.start_ns / NS_PER_S,
                "stop_s": signal.stop_ns / NS_PER_S,
                "unit": signal.unit,
                "channels": list(signal.channels),
            }
            for name, signal in recording.signals.items()
        },
        "events": {name: int(times.size) for name, times in recording.events.items()},
        "source": {
            "path": recording.source.path,
            "sha256": recording.source.sha256,
            "reader": recording.source.reader,
            "reader_version": recording.source.reader_version,
        },
        "notes": list(recording.source.notes),
        "checks": numbers["findings"],
        "multi_spike_bins": report.multi_spike_bins,
        "bin_ms": report.bin_ms,
        "dense_gb": report.dense_gb,
        "neurons": numbers["neurons"],
    }


def _counted(labels: np.ndarray) -> dict[str, int]:
    """Return how often each label occurs, without the empty one."""
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _lines(summary: dict[str, Any]) -> list[str]:
    """Return the summary as aligned lines of text."""
    rows: list[tuple[str, str]] = [("file", f"{summary['source']['path'] or 'none'} (reader {summary['source']['reader']})")]
    rows.append(("neurons", f"{summary['n_neurons']}{_named(summary['populations'], ' in populations ')}"))
    rows.append(("spikes", str(summary["n_spikes"])))
    if summary["rate_hz"] is not None:
        rows.append(("rates", "{min:.3g} to {max:.3g} Hz, median {median:.3g} Hz".format(**summary["rate_hz"])))
    if summary["trial_duration_s"] is not None:
        shortest, longest = summary["trial_duration_s"]
        each = f"{shortest:g} s each" if longest - shortest < 1e-6 else f"{shortest:g} to {longest:g} s"
        rows.append(("trials", f"{summary['n_trials']}{f' of {each}' if summary['n_trials'] > 1 else ''}"))
    rows.append(("duration", f"{summary['duration_s']:.6g} s in trials, times from {summary['start_s']:.6g} to {summary['stop_s']:.6g} s"))
    if summary["native_bin_ms"] is not None:
        rows.append(("counts in", f"{summary['native_bin_ms']:g} ms bins"))
    if summary["conditions"]:
        rows.append(("conditions", _named(summary["conditions"])))
    for key, title in (("unit_columns", "unit columns"), ("trial_columns", "trial columns")):
        if summary[key]:
            rows.append((title, ", ".join(summary[key])))
    for name, about in summary["signals"].items():
        span = f"{about['start_s']:.6g} to {about['stop_s']:.6g} s"
        rows.append(
            ("signal", f"{name}: {about['n_channels']} channels at {about['sampling_rate_hz']:g} Hz, {span} {about['unit']}".rstrip())
        )
    if summary["events"]:
        rows.append(("events", _named(summary["events"])))
    rows += [("note", note) for note in summary["notes"]]
    rows += [(finding["level"], finding["text"]) for finding in summary["checks"]]
    indent = max(len(key) for key, _ in rows) + 2
    return [line for key, text in rows for line in _wrapped(key, text, indent)]


def _wrapped(key: str, text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=key.ljust(indent), subsequent_indent=" " * indent, break_long_words=False) or [key]


def _named(counts: dict[str, int], before: str = "", most: int = 12) -> str:
    """Return "a (3), b (2), ..." or an empty text."""
    parts = [f"{name} ({number})" for name, number in list(counts.items())[:most]]
    return f"{before}{', '.join(parts)}{f' and {len(counts) - most} more' if len(counts) > most else ''}" if parts else ""


def _neuron_table(recording: Recording, report: DataReport) -> str:
    """Return one line per neuron: id, population, numbers, columns of one value each."""
    columns: dict[str, list[str]] = {
        "id": recording.neurons.ids.tolist(),
        "population": recording.neurons.populations.tolist(),
        "spikes": [str(number) for number in report.n_spikes],
        "rate_hz": [f"{rate:.3f}" for rate in report.rate_hz],
        "isi<1ms_%": [f"{share:.2f}" for share in report.isi_below_1ms_percent],
        "isi<2ms_%": [f"{share:.2f}" for share in report.isi_below_2ms_percent],
    }
    columns |= {name: [_short(value) for value in values] for name, values in recording.neurons.columns.items() if values.ndim == 1}
    widths = {name: max(len(name), *map(len, cells)) if cells else len(name) for name, cells in columns.items()}
    rows = [[name.ljust(widths[name]) for name in columns]]
    rows += [[cell.ljust(width) for cell, width in zip(row, widths.values(), strict=True)] for row in zip(*columns.values(), strict=True)]
    return "\n".join("  ".join(row).rstrip() for row in rows)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
