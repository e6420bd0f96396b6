"""`fitspike datasets` end to end, with generated data only."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fitspike
from fitspike.cli.main import run
from fitspike.datasets.truth import load_truth

pytest.importorskip("fitspike_datasets")


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Return a function that runs `fitspike ARGUMENTS` and returns (status, stdout, stderr)."""
    monkeypatch.setenv("FITSPIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FITSPIKE_DATA", raising=False)

    def call(*arguments):
        status = run(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_list_names_generated_and_recorded_sets(cli):
    status, out, _ = cli("datasets", "list", "--json")
    listed = {entry["name"]: entry for entry in json.loads(out)["datasets"]}
    assert status == 0
    assert listed["coupled-glm-network"]["is_synthetic"]
    assert "session-6" in listed["v1-gratings"]["items"]
    status, out, _ = cli("datasets", "list")
    assert status == 0
    assert "v1-gratings" in out


def test_card_shows_licence_and_the_line_that_fits(cli):
    status, out, _ = cli("datasets", "card", "v1-gratings/session-6")
    assert status == 0
    assert "CC BY-NC-ND 3.0" in out
    line = next(line for line in out.splitlines() if "fitspike fit" in line)
    assert '--dt-ms 10 --units "contamination < 0.05" --split trial:every=5,offset=4,column=repeat' in line


def test_make_writes_the_recording_and_its_truth(cli, tmp_path):
    arguments = ("--set", "n_neurons=4", "--set", "duration_s=5", "--seed", "3")
    status, out, err = cli("datasets", "make", "coupled-glm-network", "--out", str(tmp_path / "net"), *arguments)
    assert status == 0, err
    path = out.strip()
    assert path == str(tmp_path / "net")
    recording = fitspike.load(path)
    assert (recording.n_neurons, recording.duration_s) == (4, 5.0)
    assert load_truth(path).weight.shape == (4, 4)
    status, out, err = cli("datasets", "make", "coupled-glm-network", "--out", str(tmp_path / "net"), *arguments)
    assert status == 1
    assert "exists. Choose another name, or say --overwrite" in err
    status, out, _ = cli("datasets", "make", "coupled-glm-network", "--out", str(tmp_path / "net2"), *arguments, "--json")
    again = json.loads(out)
    assert again["has_truth"]
    assert fitspike.load(again["path"]).fingerprint() == recording.fingerprint()
    assert np.array_equal(load_truth(again["path"]).weight, load_truth(path).weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "v1-gratngs/session-6"), "no dataset 'v1-gratngs'; did you mean 'v1-gratings'"),
        (("get", "v1-gratings"), "has 27 items; say which"),
        (("get", "v1-gratings/session-66"), "no item 'session-66'; did you mean 'session-6'"),
        (("get", "cockroach-antennal-lobe/CAL1S"), "its origin offers no download"),
        (("make", "v1-gratings", "--out", "x"), "recorded, not generated. Use `fitspike datasets get v1-gratings`"),
        (("make", "coupled-glm-network", "--out", "x.npz"), "is no name for a folder"),
        (("make", "coupled-glm-network", "--out", "x", "--set", "n_nuerons=3"), "no setting 'n_nuerons'; did you mean 'n_neurons'"),
    ],
)
def test_errors_are_one_message_and_status_1(cli, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = cli("datasets", *arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert "Traceback" not in err


def test_get_prints_the_path_alone_and_finds_it_again(cli, tmp_path, monkeypatch, data_dir):
    monkeypatch.setenv("FITSPIKE_DATA", str(data_dir))
    status, out, _ = cli("datasets", "get", "cockroach-antennal-lobe/CAL1S")
    assert status == 0
    path = out.removesuffix("\n")
    assert path.startswith(str(tmp_path / "cache")) and "\n" not in path
    assert fitspike.load(path).n_spikes == 693
    monkeypatch.delenv("FITSPIKE_DATA")
    assert cli("datasets", "get", "cockroach-antennal-lobe/CAL1S")[:2] == (0, out)
    assert fitspike.get("cockroach-antennal-lobe/CAL1S").n_spikes == 693
