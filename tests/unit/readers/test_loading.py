"""`fitspike.load`: what it takes, what it refuses, how it says so."""

from __future__ import annotations

import numpy as np
import pytest

from fitspike import Recording, load
from fitspike.errors import NoSpikeTrainsError, ReadError, UnknownNameError
from fitspike.plugin import registry as registry_module


def trains(recording):
    return {str(i): recording.train_s(str(i)).tolist() for i in recording.neurons.ids}


def test_arrays_in_a_dict_or_a_tuple():
    expected = {"2": [0.5], "5": [0.25, 1.0]}
    assert trains(load({"times_s": [1.0, 0.5, 0.25], "neuron_ids": [5, 2, 5]})) == expected
    assert trains(load(([1.0, 0.5, 0.25], [5, 2, 5]))) == expected
    assert load({"times_s": [1.0], "neuron_ids": [1], "stop_s": 3.0}).duration_s == 3.0
    for attempt in (lambda: load({"times_s": [1.0], "neuron_ids": [1], "stop": 3.0}), lambda: load(([1.0], [1]), stop=3.0)):
        with pytest.raises(ReadError, match="no option 'stop'; did you mean 'stop_s'"):
            attempt()


def test_a_recording_is_returned_as_it_is(small_recording):
    assert load(small_recording) is small_recording


@pytest.mark.parametrize("source", [{"times": [1.0]}, 3, [np.zeros(2)], None])
def test_other_objects_are_refused_with_what_is_taken(source):
    with pytest.raises(ReadError, match="cannot make a recording of a .*Give a path"):
        load(source)


def test_pynapple_groups_with_their_time_support_and_metadata():
    nap = pytest.importorskip("pynapple")
    support = nap.IntervalSet([0, 3], [2, 5])
    group = nap.TsGroup({3: nap.Ts(np.array([0.1, 2.0, 3.5])), 7: nap.Ts(np.array([4.0]))}, time_support=support)
    group.set_info(region=["CA1", "CA3"])
    recording = load(group)
    assert trains(recording) == {"3": [0.1, 2.0, 3.5], "7": [4.0]}
    assert recording.bin(1).counts().tolist() == [[2, 0], [1, 1]]
    assert recording.neurons.column("region").tolist() == ["CA1", "CA3"]
    assert any("1 intervals of the time support end at a spike" in note for note in recording.source.notes)
    with pytest.raises(ReadError, match="pynapple IntervalSet"):
        load(support)


def test_a_missing_file_says_so_and_knows_datasets():
    with pytest.raises(ReadError, match="no such file or folder: nowhere.nwb"):
        load("nowhere.nwb")
    with pytest.raises(ReadError, match="use `fitspike datasets get`"):
        load("v1-gratings/session-6")


def test_a_file_without_permission_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "locked.nwb"
    path.write_bytes(b"anything")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(ReadError, match="^no permission to read .*locked.nwb. Change its permissions"):
        load(path)


def test_an_unknown_format_is_suggested(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1\n")
    with pytest.raises(UnknownNameError, match="no reader 'tabel'; did you mean 'table'"):
        load(path, format="tabel")


class Broken:
    name = "broken"
    extensions = (".odd",)

    def can_read(self, path):
        return path.suffix == ".odd" or "no .odd file"

    def read(self, path):
        raise ZeroDivisionError("one over nothing")


class Hollow(Broken):
    name = "hollow"

    def read(self, path):
        return Recording.from_trains([], ids=[])


class Wrong(Broken):
    name = "wrong"

    def read(self, path):
        return {"spikes": []}


class Good(Broken):
    name = "good"

    def read(self, path, *, scale=1.0):
        return Recording.from_trains([[scale]])


@pytest.fixture
def readers(monkeypatch):
    """Return a function that registers readers of a plugin called "lab"."""
    registry_module.reset_registry()
    registry = registry_module.get_registry()
    registry.entries("readers")

    def add(*targets):
        for target in targets:
            entry = registry_module.Entry("readers", target.name, "lab", "lab-plugin", "0.3", target)
            monkeypatch.setitem(registry._tables, "readers", [*registry._tables["readers"], entry])

    yield add
    registry_module.reset_registry()


def test_readers_of_plugins_are_tried_after_the_built_ins(tmp_path, readers):
    readers(Broken, Good)
    path = tmp_path / "a.odd"
    path.write_bytes(bytes(10))
    assert trains(load(path)) == {"0": [1.0]}
    assert trains(load(path, scale=2.0)) == {"0": [2.0]}


def test_what_plugins_do_wrong_is_reported_with_their_names(tmp_path, readers):
    readers(Broken, Hollow, Wrong)
    path = tmp_path / "a.odd"
    path.write_bytes(bytes(10))
    with pytest.raises(NoSpikeTrainsError) as caught:
        load(path)
    text = str(caught.value)
    assert "'lab' (lab-plugin 0.3) failed: ZeroDivisionError: one over nothing" in text
    assert "hollow: no spike trains found" in text
    assert "returned a dict, not a Recording" in text
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)


def test_an_option_that_no_reader_takes_is_the_error(tmp_path, readers):
    readers(Good)
    path = tmp_path / "a.odd"
    path.write_bytes(bytes(10))
    with pytest.raises(ReadError, match="reader 'good' has no option 'scael'; did you mean 'scale'"):
        load(path, scael=2.0)
