"""`fitspike inspect` and the options that choose a part of a recording, from the command line to the numbers."""

import json

import numpy as np
import pytest

from fitspike.cli.main import run
from fitspike.cli.options import data_settings
from fitspike.config import parse_config
from fitspike.datasets.selection import load_data
from fitspike.recording.recording import Recording

KEYS = {
    "n_neurons",
    "n_spikes",
    "n_trials",
    "duration_s",
    "checks",
    "signals",
    "events",
    "source",
    "unit_columns",
    "conditions",
    "dense_gb",
}


@pytest.fixture
def path(small_recording, tmp_path):
    return str(small_recording.save(tmp_path / "small"))


@pytest.fixture
def inspect(capsys):
    """Return a function that runs `inspect --json` and returns what it printed, or the exit status and message of an error."""

    def call(*arguments):
        status = run(["inspect", *map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return json.loads(out) if status == 0 else (status, err)

    return call


def test_json_holds_the_facts(inspect, path, small_recording):
    summary = inspect(path)
    assert KEYS <= set(summary)
    assert (summary["n_neurons"], summary["n_trials"], summary["duration_s"]) == (5, 1, 20.0)
    assert summary["n_spikes"] == len(small_recording.spike_times_ns)
    assert summary["signals"]["stimulus"]["channels"] == ["x", "y"] and summary["events"] == {"cue": 10}
    assert summary["populations"] == {"E": 2, "I": 3}
    assert {check["name"] for check in summary["checks"]} >= {"silent_neurons", "dense_size"}
    assert summary["dense_gb"] == pytest.approx(20_000 * 5 * 4 / 1e9)
    assert summary["neurons"]["n_spikes"] == [len(small_recording.train_s(i)) for i in range(5)]


def test_text_says_the_same(capsys, path):
    assert run(["inspect", path, "--per-neuron"]) == 0
    out = capsys.readouterr().out
    for part in (
        "neurons ",
        "no spike inside trials: 1 neuron (4)",
        "stimulus: 2 channels at 100 Hz",
        "cue (10)",
        "0.0004 GB",
        "contamination",
        "mua",
    ):
        assert part in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--units", "contamination < 0.05"], {"n_neurons": 3}),
        (["--units", "quality == good", "--units", "contamination < 0.05"], {"n_neurons": 2}),
        (["--neurons", "0,2", "--neurons", "4"], {"n_neurons": 3}),
        (["--start", "5", "--stop", "7.5"], {"duration_s": 2.5}),
        (["--align", "cue", "--window", "-0.5,1"], {"n_trials": 10, "duration_s": 15.0}),
        (["--align", "cue", "--window", "-0.5,1", "--trials", "0:4,9"], {"n_trials": 5}),
        (["--align", "cue", "--window", "-0.5,1", "--start", "4"], {"n_trials": 8}),
        (["--signals", "none"], {"signals": {}}),
    ],
)
def test_selection(inspect, path, options, expected):
    summary = inspect(path, *options)
    assert {key: summary[key] for key in expected} == expected


def test_attachments(inspect, path, tmp_path):
    (tmp_path / "lever.csv").write_text("time_s,a\n" + "".join(f"{i / 10},{i}\n" for i in range(201)))
    (tmp_path / "licks.csv").write_text("time,name\n1,left\n2,right\n3,left\n")
    (tmp_path / "labels.csv").write_text("\n".join("ABABABABAB"))
    np.save(tmp_path / "pupil.npy", np.zeros((400, 2)))
    summary = inspect(
        path,
        *("--attach-signals", tmp_path / "lever.csv", "--attach-signals", f"{tmp_path / 'pupil.npy'},rate=20,name=eye"),
        *("--attach-events", tmp_path / "licks.csv", "--align", "cue", "--window", "0,1"),
        *("--attach-conditions", tmp_path / "labels.csv", "--condition", "A"),
    )
    assert set(summary["signals"]) == {"stimulus", "lever", "eye"} and summary["signals"]["eye"]["stop_s"] == 20.0
    assert summary["events"] == {"cue": 10, "left": 2, "right": 1}
    assert summary["conditions"] == {"A": 5} and summary["n_trials"] == 5
    one = inspect(path, "--attach-conditions", write_labels(tmp_path, "run"))
    assert one["conditions"] == {"run": 1}


def write_labels(folder, *labels):
    (folder / "one.csv").write_text("\n".join(labels))
    return folder / "one.csv"


def test_several_files_are_joined_as_trials(inspect, path, tmp_path, small_recording):
    other = small_recording.save(tmp_path / "other")
    summary = inspect(path, other)
    assert summary["n_trials"] == 2 and summary["n_spikes"] == 2 * len(small_recording.spike_times_ns)


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--units", "contaminaton < 1"], 1, "did you mean 'contamination'"),
        (["--units", "contamination < 0"], 1, "no neuron is left"),
        (["--align", "cue"], 1, "align needs both"),
        (["--window", "1"], 2, "two numbers separated by a comma"),
        (["--reader-option", "x"], 2, "is not KEY=VALUE"),
        (["--reader-option", "mmapp=true"], 1, "did you mean 'mmap'"),
        (["--trials", "a"], 1, "Write rows from 0"),
        (["--attach-signals", "nowhere.csv"], 1, "no such file to attach signals from: nowhere.csv"),
        (["--format", "nativ"], 1, "did you mean 'native'"),
    ],
)
def test_mistakes_are_one_message_without_traceback(inspect, path, options, status, text):
    found, message = inspect(path, *options)
    assert found == status and text in message and "Traceback" not in message


def test_options_of_an_attached_file_are_checked(inspect, path, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(400))
    assert "did you mean 'rate'" in inspect(path, "--attach-signals", f"{tmp_path / 'x.npy'},rat=20")[1]
    assert "rate=fast is no number" in inspect(path, "--attach-signals", f"{tmp_path / 'x.npy'},rate=fast")[1]


def test_the_options_are_the_data_keys_of_a_configuration(path, small_recording):
    settings = data_settings(
        (path,), units=("contamination < 0.05",), start=2.0, window=(-0.5, 1.0), align="cue", trials="0:3", reader_option=(("mmap", False),)
    )
    config = parse_config({"data": settings}).data
    given = {name: value for name, value in config.model_dump().items() if name != "path"}
    again = load_data(config.path, **given)
    assert again.n_neurons == 3 and again.n_trials == 3
    expected = small_recording.select(where="contamination < 0.05", start_s=2.0).align("cue", (-0.5, 1.0)).select(trials=[0, 1, 2])
    assert again.fingerprint() == expected.fingerprint()


def test_reader_options_are_json_or_text_and_may_be_nested():
    options = (("dt_ms", 10), ("axes", "time,neuron"), ("signals.pos", "xy[0]"), ("signals.v", "v"))
    assert data_settings(("f",), reader_option=options, time_unit="ms", sampling_rate=30000.0)["reader"] == {
        "dt_ms": 10,
        "axes": "time,neuron",
        "signals": {"pos": "xy[0]", "v": "v"},
        "unit": "ms",
        "sampling_rate_hz": 30000.0,
    }
    assert data_settings(("f",)) == {"path": ("f",)}


def test_counts_from_a_file_with_labels_per_trial(tmp_path, inspect):
    recording = Recording.from_counts(np.random.default_rng(0).poisson(1.0, (6, 20, 3)), dt_ms=10)
    (tmp_path / "table.csv").write_text("trial,condition,contrast\n" + "".join(f"{k},{'ab'[k % 2]},{k / 10}\n" for k in range(6)))
    summary = inspect(recording.save(tmp_path / "counts"), "--attach-conditions", tmp_path / "table.csv", "--condition", "b")
    assert summary["native_bin_ms"] == 10.0 and summary["n_trials"] == 3 and summary["trial_columns"] == ["contrast"]
