"""Phy, Axona, SONATA and NEST files written by hand, and files that are cut off or named wrongly."""

from __future__ import annotations

import struct

import h5py
import numpy as np
import pytest

from fitspike import load
from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording.truncation import truncation_note


def trains(recording):
    return {str(i): recording.train_s(str(i)).tolist() for i in recording.neurons.ids}


@pytest.fixture
def phy_folder(tmp_path):
    folder = tmp_path / "phy"
    folder.mkdir()
    np.save(folder / "spike_times.npy", np.array([[300], [600], [30_000]]))
    np.save(folder / "spike_clusters.npy", np.array([[7], [2], [7]], "u4"))
    (folder / "params.py").write_text("dat_path = 'raw.dat'\nn_channels_dat = 2\ndtype = 'int16'\nsample_rate = 30000.  # Hz\n")
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n2\tnoise\n7\tgood\n9\tgood\n")
    (folder / "cluster_info.tsv").write_text("cluster_id\tdepth\tn_spikes\n7\t12.5\t40\n2\t\t3\n")
    return folder


def test_phy_column_vectors_and_cluster_tables(phy_folder):
    recording = load(phy_folder)
    assert trains(recording) == {"2": [0.02], "7": [0.01, 1.0]}
    assert recording.neurons.column("group").tolist() == ["noise", "good"]
    assert recording.neurons.column("depth")[1] == 12.5
    assert np.isnan(recording.neurons.column("depth")[0])
    notes = " ".join(recording.source.notes)
    assert "spike_times.npy has shape (3, 1)" in notes
    assert "count 43 spikes, the arrays hold 3" in notes
    assert load(phy_folder / "spike_times.npy").fingerprint() == recording.fingerprint()


def test_phy_length_is_that_of_the_raw_file_where_it_lies_there(phy_folder):
    np.zeros(2 * 90_000, "int16").tofile(phy_folder / "raw.dat")
    assert load(phy_folder).duration_s == 3.0


def test_phy_without_params_asks_for_the_rate(phy_folder):
    (phy_folder / "params.py").unlink()
    with pytest.raises(ReadError, match="Give sampling_rate_hz"):
        load(phy_folder)
    assert trains(load(phy_folder, sampling_rate_hz=3000))["7"] == [0.1, 10.0]


def test_phy_params_are_never_executed(phy_folder):
    (phy_folder / "params.py").write_text("sample_rate = 30000\nraise SystemExit(1)\n")
    assert load(phy_folder).n_spikes == 3


def axona_tetrode(path, times, n_stated=None, timebase=96_000, cut=None):
    header = (
        f"trial_date Monday\r\nduration 10\r\nnum_chans 4\r\ntimebase {timebase} hz\r\nbytes_per_timestamp 4\r\n"
        f"samples_per_spike 50\r\nbytes_per_sample 1\r\nnum_spikes {n_stated or len(times)}\r\ndata_start"
    )
    wave = bytes(50)
    records = b"".join(struct.pack(">I", t) + wave for t in times for _ in range(4))
    path.write_bytes(header.encode() + records + b"\r\ndata_end\r\n")
    if cut is not None:
        labels = path.with_name(f"{path.stem}_{path.suffix[1:]}.cut")
        labels.write_text(f"n_clusters: 3\n\nExact_cut_for: {path.stem} spikes: {len(cut)}\n" + " ".join(map(str, cut)))


def test_axona_without_pretrigsamps_with_cut_labels(tmp_path):
    (tmp_path / "rat.set").write_text("trial_date Monday\r\nduration 10\r\n")
    axona_tetrode(tmp_path / "rat.1", [96_000, 48_000, 192_000], cut=[1, 0, 1])
    axona_tetrode(tmp_path / "rat.2", [960])
    recording = load(tmp_path / "rat.set")
    assert trains(recording) == {"1/0": [0.5], "1/1": [1, 2], "2/0": [0.01]}
    assert recording.neurons.column("is_sorted").tolist() == [False, True, False]
    assert recording.duration_s == 10
    assert any("rat.2 has no cut file" in note for note in recording.source.notes)
    assert load(tmp_path / "rat.1").n_spikes == 3
    with pytest.raises(ReadError, match="cluster labels only"):
        load(tmp_path / "rat_1.cut")


def test_axona_names_may_hold_brackets(tmp_path):
    (tmp_path / "rat[1].set").write_text("trial_date Monday\r\nduration 10\r\n")
    (tmp_path / "rat[1].pos").write_text("trial_date Monday\r\n")
    axona_tetrode(tmp_path / "rat[1].1", [96_000])
    axona_tetrode(tmp_path / "rat1.1", [48_000])  # what "rat[1]" means as a pattern
    recording = load(tmp_path / "rat[1].set")
    assert trains(recording) == {"1/0": [1.0]}
    assert any("rat[1].pos (position) was not read" in note for note in recording.source.notes)


def test_axona_cut_off_is_noted_and_cut_labels_must_match(tmp_path):
    axona_tetrode(tmp_path / "rat.1", [10, 20], n_stated=5)
    assert any("header counts 5 spikes, 2 are in the file" in note for note in load(tmp_path / "rat.1").source.notes)
    axona_tetrode(tmp_path / "cat.1", [10, 20], cut=[1, 1, 1])
    with pytest.raises(ReadError, match="labels 3 spikes, cat.1 holds 2"):
        load(tmp_path / "cat.1")


def test_sonata_in_both_layouts(tmp_path):
    new, old = tmp_path / "new.h5", tmp_path / "old.h5"
    with h5py.File(new, "w") as file:
        for population, ids in (("v1", [0, 2]), ("lgn", [1, 1])):
            file[f"spikes/{population}/node_ids"] = np.array(ids, "u8")
            file[f"spikes/{population}/timestamps"] = [5.0, 7.5]
            file[f"spikes/{population}/timestamps"].attrs["units"] = "ms"
    with h5py.File(old, "w") as file:
        file["spikes/gids"] = np.array([0, 2], "u8")
        file["spikes/timestamps"] = [5.0, 7.5]
    assert trains(load(new)) == {"lgn/1": [0.005, 0.0075], "v1/0": [0.005], "v1/2": [0.0075]}
    assert load(new).neurons.populations.tolist() == ["lgn", "v1", "v1"]
    recording = load(old, n_neurons=4, stop_s=1.0)
    assert trains(recording) == {"0": [0.005], "1": [], "2": [0.0075], "3": []}
    assert any("states no time unit; taken as ms" in note for note in recording.source.notes)
    with pytest.raises(ReadError, match="unit='s' was given"):
        load(new, unit="s")


def test_nest_text_and_its_ambiguous_steps(tmp_path):
    path = tmp_path / "spikes-1-0.gdf"
    path.write_text("8\t52.1\n16\t258.9\n8\t60.0\n")
    recording = load(path)
    assert trains(recording) == {"8": [0.0521, 0.06], "16": [0.2589]}
    assert any("taken as ms" in note for note in recording.source.notes)
    path.write_text("8 521\n16 2589\n")
    with pytest.raises(ReadError, match="either ms or simulation steps"):
        load(path)
    assert trains(load(path, sampling_rate_hz=10_000)) == {"8": [0.0521], "16": [0.2589]}
    header = tmp_path / "spikes.dat"
    header.write_text("# NEST version: 3.6\n# RecordingBackendASCII version: 2\nsender\ttime_ms\n3\t10.5\n")
    assert trains(load(header, ids="1..3")) == {"1": [], "2": [], "3": [0.0105]}


def test_an_empty_file_is_named_as_such(tmp_path):
    for name in ("empty.nwb", "empty.nex", "empty.txt", "empty.mat"):
        (tmp_path / name).touch()
        with pytest.raises(ReadError, match=f"{name} is an empty file"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("renamed.plx", b"NEX1" + bytes(600), "content is a NeuroExplorer file.*Rename it to .nex"),
        ("renamed.nwb", b"1.5 2.5\n3.5\n", "content is text.*Rename it to .txt"),
        ("renamed.nex", b"\x89HDF\r\n\x1a\n" + bytes(100), "content is an HDF5 file"),
        ("data.rda", b"\x1f\x8b\x08\x00" + bytes(20), "gzip-compressed"),
        ("noise.xyz", bytes(range(256)), "Neo has no reader for '.xyz'"),
    ],
)
def test_wrong_names_and_unknown_formats(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ReadError, match=message):
        load(path, unit="s")


def test_pickles_are_refused_unless_asked_for(tmp_path):
    path = tmp_path / "block.pkl"
    path.write_bytes(b"\x80\x04\x95" + bytes(10))
    with pytest.raises(ReadError, match="executes any code in it.*allow_pickle=True"):
        load(path)


def nex_file(path, keep):
    """Write a NeuroExplorer file of one neuron with 4 spikes at byte 752, `keep` bytes of it."""
    header = struct.pack("<ii256sdiiii256s", 0x3158454E, 104, b"", 40_000.0, 0, 400_000, 1, 0, b"")
    variable = struct.pack("<ii64sii", 0, 101, b"neuron1", 544 + 208, 4).ljust(208, b"\0")
    path.write_bytes((header + variable + np.array([10, 20, 30, 40], "<i4").tobytes())[:keep])


def test_a_cut_off_neuroexplorer_file_is_noted(tmp_path):
    nex_file(tmp_path / "a.nex", keep=None)
    assert truncation_note(tmp_path / "a.nex", 4) == ""
    nex_file(tmp_path / "b.nex", keep=-8)
    assert "'neuron1' ends at byte 768, the file at 760" in truncation_note(tmp_path / "b.nex", 4)


def test_a_cut_off_blackrock_file_is_noted(tmp_path):
    head = b"NEURALEV" + bytes(4) + struct.pack("<II", 20, 104)
    (tmp_path / "a.nev").write_bytes(head + bytes(3 * 104))
    (tmp_path / "b.nev").write_bytes(head + bytes(3 * 104 + 5))
    assert truncation_note(tmp_path / "a.nev", 3) == ""
    assert "5 bytes of a packet of 104 remain" in truncation_note(tmp_path / "b.nev", 3)


def test_a_folder_without_anything_readable(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="no text files"):
        load(tmp_path / "empty")
    assert issubclass(NoSpikeTrainsError, ReadError)


def test_a_file_read_column_by_column_through_neo(tmp_path):
    nex_file(tmp_path / "a.nex", keep=None)
    recording = load(tmp_path / "a.nex")
    assert recording.spike_times_ns.tolist() == [250_000, 500_000, 750_000, 1_000_000]
    assert recording.neurons.labels.tolist() == ["neuron1"]
    assert recording.duration_s == 10
    assert recording.source.reader == "neo:NeuroExplorerIO"
    renamed = (tmp_path / "a.nex").rename(tmp_path / "a.plx")
    assert load(renamed, format="neo", io="NeuroExplorerIO").fingerprint() == recording.fingerprint()
