"""The checks of datasets and readers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fitspike.datasets.base import DataCard, GroundTruth
from fitspike.errors import FitspikeError, MissingDataError
from fitspike.plugin.conformance.report import Mismatch, NotChecked, Outcome, Report, expect, instance_of
from fitspike.plugin.kinds import KINDS
from fitspike.recording.recording import Recording


def check_dataset(dataset: Any, cache: Path | None = None) -> Outcome:
    """Check a dataset, given as a class or an object, and return what passed.

    Recorded data are loaded only if the `cache` folder is given, since that may download them.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    report = Report(f"dataset {getattr(dataset, 'name', dataset)!r}")
    dataset = instance_of(report, dataset, KINDS["datasets"])
    if dataset is None:
        return report.outcome()
    card = report.check("card", _check_card, dataset, needs=("members",))
    if card is None:
        return report.outcome()
    with tempfile.TemporaryDirectory() as empty:
        folder = Path(empty) if card.is_synthetic and cache is None else cache
        recording = report.check("recording", _check_load, dataset, card, folder, needs=("card",))
        report.check("seeds", _check_seeds, dataset, card, folder, recording, needs=("recording",))
        report.check("truth", _check_truth, dataset, card, recording, needs=("recording",))
    return report.outcome()


def _check_card(dataset: Any) -> DataCard:
    card = dataset.describe()
    expect(isinstance(card, DataCard), f"describe() returns {type(card).__name__}; expected DataCard.")
    expect(card.name == dataset.name, f"the card is called {card.name!r}, the dataset {dataset.name!r}.")
    for name in ("summary", "licence", "citation"):
        expect(bool(getattr(card, name).strip()), f"the card's {name} is empty. Say it, in words if there is none.")
    return card


def _loaded(dataset: Any, card: DataCard, cache: Path | None, seed: int) -> Recording:
    if not card.is_synthetic and cache is None:
        raise NotChecked("recorded data are loaded only from a cache folder that is given")
    try:
        return dataset.load(cache, item=card.items[0] if card.items else None, seed=seed)
    except MissingDataError as error:
        if card.is_synthetic:
            raise Mismatch(f"the card says that the data are synthetic, but they are missing: {error}") from error
        raise NotChecked(str(error).splitlines()[0]) from error


def _check_load(dataset: Any, card: DataCard, cache: Path | None) -> Recording:
    recording = _loaded(dataset, card, cache, seed=0)
    expect(isinstance(recording, Recording), f"load returns {type(recording).__name__}; expected Recording.")
    expect(recording.n_neurons > 0, "the recording has no neuron.")
    expect(recording.n_spikes > 0, "the recording has no spike.")
    expect(recording.duration_s > 0, "the recording's trials have no duration.")
    return recording


def _is_same(one: Recording, other: Recording) -> bool:
    return np.array_equal(one.spike_times_ns, other.spike_times_ns) and np.array_equal(one.spike_neuron, other.spike_neuron)


def _check_seeds(dataset: Any, card: DataCard, cache: Path | None, recording: Recording) -> None:
    expect(_is_same(recording, _loaded(dataset, card, cache, seed=0)), "two loads with seed 0 have different spikes.")
    if card.is_synthetic:
        other = _loaded(dataset, card, cache, seed=1)
        expect(not _is_same(recording, other), "seeds 0 and 1 have the same spikes. Draw numbers from fitspike.plugin.Stream(seed, name).")


def _check_truth(dataset: Any, card: DataCard, recording: Recording) -> None:
    truth = dataset.truth(seed=0)
    if truth is None:
        raise NotChecked("there is none" if not card.is_synthetic else "truth() is None although the data are synthetic")
    expect(isinstance(truth, GroundTruth), f"truth() returns {type(truth).__name__}; expected GroundTruth or None.")
    for name in ("weight", "delay_ms"):
        matrix = getattr(truth, name)
        if matrix is not None:
            n = recording.n_neurons
            shape = np.shape(matrix)
            expect(len(shape) == 2 and min(shape) >= n, f"truth.{name} has shape {shape}; expected [post, pre] of {n} neurons or more.")


def check_reader(reader: Any, example: Path | None = None, n_spikes: int | None = None) -> Outcome:
    """Check a reader, given as a class or an object, and return what passed.

    Without an `example` file only its refusals are checked: of a foreign text, of an empty file, of random bytes. `n_spikes` is how
    many spikes the example holds.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    report = Report(f"reader {getattr(reader, 'name', reader)!r}")
    reader = instance_of(report, reader, KINDS["readers"])
    if reader is None:
        return report.outcome()
    report.check("extensions", _check_extensions, reader, needs=("members",))
    with tempfile.TemporaryDirectory() as folder:
        report.check("refusal of other files", _check_foreign, reader, Path(folder), needs=("members", "extensions"))
        report.check("errors of broken files", _check_broken, reader, Path(folder), needs=("members", "extensions"))
    report.check("reading an example", _check_example, reader, example, n_spikes, needs=("members",))
    return report.outcome()


def _check_extensions(reader: Any) -> None:
    is_tuple = isinstance(reader.extensions, tuple | list | frozenset)
    expect(is_tuple, f"extensions is {reader.extensions!r}; expected a tuple such as ('.spk',).")
    wrong = [one for one in reader.extensions if not (isinstance(one, str) and (one == "" or one.startswith(".")))]
    expect(not wrong, f"extensions {wrong} do not begin with a dot.")


def _check_foreign(reader: Any, folder: Path) -> None:
    foreign = folder / "notes.of-no-known-format"
    foreign.write_text("these are no spikes", encoding="utf-8")
    answer = reader.can_read(foreign)
    expect(answer is True or isinstance(answer, str), f"can_read returns {answer!r}; expected True, or why not as a text.")
    if answer is True:
        _expect_refusal(reader, foreign, "a text that holds no spikes")


def _check_broken(reader: Any, folder: Path) -> None:
    extension = next((one for one in reader.extensions if one), "")
    noise = np.random.Generator(np.random.Philox(20)).bytes(512)
    for name, content in (("empty", b""), ("random bytes", noise)):
        path = folder / f"{name.replace(' ', '-')}{extension}"
        path.write_bytes(content)
        if reader.can_read(path) is True:
            _expect_refusal(reader, path, f"a file that is {name}")


def _expect_refusal(reader: Any, path: Path, what: str) -> None:
    """Read a file that holds no recording; only an error of ours, with a text, will do."""
    try:
        recording = reader.read(path)
    except FitspikeError as error:
        expect(bool(str(error).strip()), f"reading {what} raises an error without a text.")
    except Exception as error:
        raise Mismatch(f"reading {what} raises {type(error).__name__}: {error}; expected a ReadError that says why.") from error
    else:
        raise Mismatch(f"{what} is read as a recording of {recording.n_neurons} neurons; expected a ReadError.")


def _check_example(reader: Any, example: Path | None, n_spikes: int | None) -> None:
    if example is None:
        raise NotChecked("no example file is given")
    answer = reader.can_read(example)
    expect(answer is True, f"can_read({example.name}) returns {answer!r}; expected True.")
    recording = reader.read(example)
    expect(isinstance(recording, Recording), f"read returns {type(recording).__name__}; expected Recording.")
    expect(recording.n_neurons > 0, "the recording has no neuron.")
    expect(
        n_spikes is None or recording.n_spikes == n_spikes, f"the recording has {recording.n_spikes} spikes; the example holds {n_spikes}."
    )
    expect(_is_same(recording, reader.read(example)), "reading the example twice gives different spikes.")
    expect(bool(recording.source.reader), "recording.source.reader is empty; a result must say what read its data.")
