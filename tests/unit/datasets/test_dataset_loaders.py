"""Loaders of odd layouts, on small files of the same layout."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import io

loaders = pytest.importorskip("fitspike_datasets.loaders")


def test_locust_frames_end_where_the_recording_does(tmp_path):
    from fitspike_datasets.loaders.locust import frames

    seconds = {1: [0.5, 8.755, 20.25, 28.7, 40.1], 2: [1.0, 21.0, 45.0]}  # frames of 10 s: 0, 2, 4; frames 1 and 3 are missing
    paths = []
    for unit, times in seconds.items():
        paths.append(tmp_path / f"locust1_Odour_tetA_u{unit}.txt")
        np.savetxt(paths[-1], np.array(times) * 15_000)
    recording = frames(paths, frame_s=10.0, well_isolated=1, odour_s=2.5)
    np.testing.assert_allclose(recording.events["odour"], [2.5e9, 22.5e9, 42.5e9])
    assert recording.trials.column("frame").tolist() == [0, 2, 4]
    assert (recording.trials.start_ns / 1e9).tolist() == [0, 20, 40]
    assert (recording.trials.stop_ns / 1e9).tolist() == [8.76, 28.76, 45.01]
    assert recording.bin(10).counts().tolist() == [[2, 1], [2, 1], [1, 1]]
    assert recording.neurons.column("is_well_isolated").tolist() == [True, False]
    notes = " ".join(recording.source.notes)
    assert "frames 1, 3 hold no spike" in notes
    assert "frame 4 ends after 5.01 s" in notes


def test_gratings_keep_direction_repeat_and_bin(tmp_path):
    from fitspike_datasets.loaders.v1_gratings import session

    counts = np.random.default_rng(1).integers(0, 3, size=(3, 2, 5, 4)).astype("u1")  # units, directions, bins, repeats
    conditions = np.array([(100, 0.0), (100, 22.5)], dtype=[("contrast", "O"), ("direction", "O")])
    sessions = np.empty(2, dtype=object)
    for k in range(2):
        sessions[k] = {
            "spikes": counts if k else counts[:, :, :, :2],
            "conditions": conditions,
            "contamination": [0.01, 0.2, 0.03],
            "tetrode": [1, 1, 2],
        }
    io.savemat(tmp_path / "v1.mat", {"data": sessions})
    recording = session([tmp_path / "v1.mat"], session=1)
    binned = recording.bin().dense_numpy()
    for trial in range(8):
        assert np.array_equal(binned[trial], counts[:, trial // 4, :, trial % 4].T)
    assert recording.trials.conditions.tolist() == ["0"] * 4 + ["22.5"] * 4
    assert recording.trials.column("repeat").tolist() == [0, 1, 2, 3] * 2
    assert recording.select(where="contamination < 0.05").n_neurons == 2
    assert (recording.events["grating"] - recording.trials.start_ns).tolist() == [200_000_000] * 8


def test_the_true_weights_are_turned_to_post_pre(tmp_path):
    from fitspike_datasets.loaders.izhikevich import truth

    pre_post = np.array([[0.0, 5.0, 6.0], [0.0, 0.0, -7.0], [0.0, 0.0, 0.0]])
    io.savemat(tmp_path / "net.mat", {"data": {"SWM": pre_post, "pConnection": 0.05}})
    weight = truth([tmp_path / "net.mat"]).weight
    assert weight[1, 0] == 5.0
    assert weight[2, 1] == -7.0
    assert weight[0, 1] == 0.0


def test_the_position_is_put_on_a_regular_grid(tmp_path):
    from fitspike_datasets.loaders.hippocampus import linear_track

    def cell(*items):
        made = np.empty((1, len(items)), dtype=object)
        for i, item in enumerate(items):
            made[0, i] = item
        return made

    def unit(times):
        return {"time": np.array(times)[:, None], "timerange": [10.0, 12.0], "meanrate": 1.0}

    no_unit = np.zeros((1, 0))
    outer = cell(cell(cell(cell(unit([10.5, 11.0]), no_unit, unit([])), no_unit)))
    io.savemat(tmp_path / "spikes.mat", {"spikes": outer})
    frames = np.zeros(130, dtype=[("time", "<u4"), ("x", "<u2"), ("y", "<u2"), ("x2", "<u2"), ("y2", "<u2")])
    frames["time"] = 300_000 + 500 * np.arange(130) + np.random.default_rng(0).integers(-40, 40, 130)
    frames["x"] = 2 * np.arange(130)
    (tmp_path / "video").write_bytes(b"<Start settings>\nclockrate: 30000\n<End settings>\n" + frames.tobytes())
    recording = linear_track([tmp_path / "spikes.mat", tmp_path / "video"])
    assert recording.neurons.ids.tolist() == ["1/1", "1/3"]
    assert recording.duration_s == 2.0
    position = recording.signals["position"]
    on_grid = 2 * 60 * (np.arange(len(position.values)) / 60)  # x moves 120 pixels per second
    assert np.abs(position.values[2:, 0] - on_grid[2:]).max() < 2 * 2 * 40 / 500 + 1e-9
    assert recording.bin(10).signal_values("position", 0, 5).shape == (5, 2)


def test_cockroach_trials_carry_the_valve(tmp_path):
    from fitspike_datasets.loaders.cockroach import odour

    (tmp_path / "a.csv").write_text("neuron,trial,time_s\n1,1,0.5\n2,2,1.5\n")
    recording = odour([tmp_path / "a.csv"], trial_s=2.0, valve_s=(0.4, 0.9))
    assert recording.bin(100).counts().tolist() == [[1, 0], [0, 1]]
    assert (recording.events["valve_close"] - recording.trials.start_ns).tolist() == [900_000_000] * 2


def test_place_cell_bins_start_at_the_samples_of_the_position(tmp_path):
    from fitspike_datasets.loaders.case_studies import place_cell

    t = np.arange(1, 11) / 1000
    io.savemat(tmp_path / "p.mat", {"t": t[:, None], "X": np.arange(10.0)[:, None], "spiketimes": np.array([[0.003], [0.01]])})
    binned = place_cell([tmp_path / "p.mat"]).bin(1)
    assert binned.dense_numpy()[0, :, 0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert binned.signal_values("position", 0, 10)[:, 0].tolist() == list(range(10))
