"""The native format gives back what was saved, refuses what it cannot read, and never overwrites silently."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from fitspike.errors import ReadError, RecordingError
from fitspike.recording.npz_io import FORMAT_VERSION, NativeReader, load_recording
from fitspike.recording.recording import Recording, RecordingSource, Signal


@pytest.fixture
def full_recording(trial_recording):
    """Return a recording that has something everywhere, with awkward names."""
    source = RecordingSource("file é.nwb", "ab12", "nwb", "2.8", ("one note", "another: 'quoted'"))
    signal = Signal(np.random.default_rng(0).standard_normal((20_000, 2)).astype(np.float32), 1234.5, -17, "µm", ("x", "y"))
    return replace(trial_recording, source=source).attach(
        signals={"pos/ition ü": signal, "whole": Signal(np.arange(5), 1.0)},
        events={"cue": [3.0, 1.0], "none": []},
        neuron_columns={"depth [µm]": [1.5, np.nan, -3.0], "is fs": [True, False, True], "waveform": np.arange(12.0).reshape(3, 4)},
        trial_columns={"choice": ["l", "r", "?"] * 4},
    )


def assert_same(one, other):
    """Compare every field by value and type."""
    for item in fields(one):
        a, b = getattr(one, item.name), getattr(other, item.name)
        if isinstance(a, np.ndarray):
            assert a.dtype.kind == b.dtype.kind and a.shape == b.shape, item.name
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), item.name
        elif isinstance(a, dict):
            assert list(a) == list(b), item.name
            for name in a:
                if isinstance(a[name], Signal):
                    assert_same(a[name], b[name])
                else:
                    assert np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f"), name
        elif hasattr(a, "__dataclass_fields__"):
            assert_same(a, b)
        else:
            assert a == b, item.name


@pytest.mark.parametrize("name", ["x.fitspike", "x.fitspike.npz"])
@pytest.mark.parametrize("mmap", [True, False])
def test_everything_comes_back(full_recording, tmp_path, name, mmap):
    path = full_recording.save(tmp_path / name)
    assert path.name == name
    back = load_recording(path, mmap=mmap)
    assert_same(full_recording, back)
    assert back.fingerprint() == full_recording.fingerprint()
    assert isinstance(back.signals["pos/ition ü"].values, np.memmap) == (mmap and not name.endswith(".npz"))


def test_counts_come_back(tmp_path):
    recording = Recording.from_counts(np.random.default_rng(0).poisson(1.0, (2, 30, 4)), dt_ms=2.5)
    back = load_recording(recording.save(tmp_path / "counts"))
    assert_same(recording, back)
    assert back.bin().dt_ms == 2.5


def test_a_split_recording_keeps_warm_up_and_offset(small_recording, tmp_path):
    part = small_recording.select(start_s=3).with_trials(small_recording.select(start_s=3).trials)
    table = replace(part.trials, warmup_ns=np.array([10**9]))
    back = load_recording(part.with_trials(table).save(tmp_path / "part"))
    assert back.trials.warmup_ns.tolist() == [10**9] and back.trials.offset_ns.tolist() == [3 * 10**9]


def test_an_existing_recording_is_overwritten_only_when_asked(small_recording, trial_recording, tmp_path):
    for name in ("x", "x.npz"):
        path = small_recording.save(tmp_path / name)
        with pytest.raises(RecordingError, match="overwrite=True"):
            trial_recording.save(path)
        assert load_recording(path).n_neurons == 5
        trial_recording.save(path, overwrite=True)
        assert load_recording(path).n_neurons == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.fitspike", "x.fitspike.npz"]  # nothing temporary is left


def test_a_failed_save_leaves_the_old_recording_and_nothing_else(small_recording, tmp_path, monkeypatch):
    path = small_recording.save(tmp_path / "x")

    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        small_recording.save(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x.fitspike"]
    assert load_recording(path).fingerprint() == small_recording.fingerprint()


def test_a_loaded_recording_may_be_saved_onto_itself(small_recording, tmp_path):
    path = small_recording.save(tmp_path / "x")
    load_recording(path).save(path, overwrite=True)
    assert load_recording(path).fingerprint() == small_recording.fingerprint()


def test_a_newer_format_is_refused_with_both_versions(small_recording, tmp_path):
    path = small_recording.save(tmp_path / "x")
    description = json.loads((path / "recording.json").read_text())
    (path / "recording.json").write_text(json.dumps(description | {"format_version": FORMAT_VERSION + 1, "fitspike_version": "9.9"}))
    with pytest.raises(ReadError, match=rf"format version {FORMAT_VERSION + 1}, written by fitspike 9.9.*up to {FORMAT_VERSION}. Update"):
        load_recording(path)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: (path / "spike_times_ns.npy").unlink(), "spike_times_ns.npy is missing"),
        (lambda path: (path / "spike_times_ns.npy").write_bytes((path / "spike_times_ns.npy").read_bytes()[:500]), "is damaged"),
        (lambda path: np.save(path / "spike_neuron.npy", np.zeros(3, np.uint16)), "is damaged"),
        (lambda path: (path / "recording.json").write_text("{"), "is damaged"),
        (lambda path: (path / "recording.json").write_text("{}"), "its format is None"),
        (lambda path: (path / "recording.json").unlink(), "holds no recording.json"),
    ],
)
def test_damage_is_a_read_error_that_names_the_file(small_recording, tmp_path, damage, text):
    path = small_recording.save(tmp_path / "x")
    damage(path)
    with pytest.raises(ReadError, match=text) as caught:
        load_recording(path)
    assert str(path) in str(caught.value)


def test_a_cut_off_file_and_a_foreign_file_are_refused(small_recording, tmp_path):
    path = small_recording.save(tmp_path / "x.npz")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ReadError):
        load_recording(path)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    assert "no array 'recording'" in NativeReader().can_read(tmp_path / "other.npz")
    with pytest.raises(ReadError, match="no such recording"):
        load_recording(tmp_path / "nowhere")


def test_the_fingerprint_follows_the_contents_alone(small_recording, tmp_path):
    first = small_recording.fingerprint()
    wide = replace(small_recording, spike_neuron=small_recording.spike_neuron.astype(np.uint32), source=RecordingSource("elsewhere"))
    assert wide.fingerprint() == first
    changed = [
        small_recording.attach(events={"cue": [1.0]}),
        small_recording.attach(neuron_columns={"quality": ["good"] * 5}),
        small_recording.select(start_s=1),
        small_recording.select(signals=[]),
        small_recording.attach(conditions=["x"]),
    ]
    assert len({first, *(other.fingerprint() for other in changed)}) == 6


def test_the_reader_gives_a_recording_without_source_its_file(small_recording, tmp_path):
    path = small_recording.save(tmp_path / "x")
    assert NativeReader().read(path).source.path == str(path)
