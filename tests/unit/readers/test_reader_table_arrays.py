"""Array files: npz, npy, MATLAB 5 and 7.3, HDF5; paths into them, cells, flat times with counts, binned counts."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy import io, sparse

from fitspike import load
from fitspike.errors import NoSpikeTrainsError, ReadError
from fitspike.recording.array_tree import open_tree, resolve


def trains(recording):
    return {str(i): recording.train_s(str(i)).tolist() for i in recording.neurons.ids}


def test_flat_arrays_of_npz_with_events_and_columns(tmp_path):
    path = tmp_path / "flat.npz"
    np.savez(path, when=[10.0, 5.0, 7.0], who=np.array([4, 2, 4], "u4"), cue=[1, 8], depth=[100.0, 300.0])
    recording = load(path, times="when", neurons="who", unit="ms", events={"cue": "cue"}, neuron_columns={"depth_um": "depth"})
    assert trains(recording) == {"2": [0.005], "4": [0.007, 0.01]}
    assert recording.events["cue"].tolist() == [1_000_000, 8_000_000]
    assert recording.neurons.column("depth_um").tolist() == [100, 300]


def test_untold_arrays_are_listed_with_an_example_that_works(tmp_path):
    path = tmp_path / "flat.npz"
    np.savez(path, when=[10.0, 5.0], who=[4, 2], note=np.array("hello"))
    with pytest.raises(ReadError, match=r"when \(2\) float64, who \(2\) int64.*times='when', neurons='who', unit='s'"):
        load(path)


def test_a_pickle_inside_npz_is_refused(tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, t=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ReadError, match="pickled Python objects, and loading those executes any code in them. Save plain arrays instead"):
        load(path, times="t", unit="s")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ReadError, match="pickled Python objects, and loading those executes any code in them. Save plain arrays instead"):
        load(tmp_path / "objects.npy", times="array", unit="s")


def test_an_array_of_one_axis_is_shown_how_to_be_read_as_one_train(tmp_path):
    np.save(tmp_path / "flat.npy", np.array([0.5, 0.7]))
    with pytest.raises(ReadError, match=r"such as load\(path, times='array', unit='s'\).*On the command line: --reader-option times="):
        load(tmp_path / "flat.npy")
    assert load(tmp_path / "flat.npy", times="array", unit="s").train_s(0).tolist() == [0.5, 0.7]


def test_columns_of_a_matrix(tmp_path):
    path = tmp_path / "matrix.mat"
    io.savemat(path, {"spks": np.array([[2, 0.5], [1, 0.25], [2, 0.125]])})
    recording = load(path, times="spks[:,1]", neurons="spks[:,0]", unit="s", ids="1..3")
    assert trains(recording) == {"1": [0.25], "2": [0.125, 0.5], "3": []}


def test_a_whole_matrix_is_no_column_of_times(tmp_path):
    path = tmp_path / "matrix.mat"
    io.savemat(path, {"spks": np.array([[2, 0.5], [1, 0.25], [2, 0.125]])})
    with pytest.raises(ReadError, match=r"'spks' has shape \(3, 2\); expected one row or column, such as 'spks\[:,1\]'"):
        load(path, times="spks", unit="s")


def test_cells_inside_a_struct_with_a_slice(tmp_path):
    cells = np.empty((1, 4), dtype=object)
    cells[0] = [np.array([[1], [3]], "int32"), np.zeros((0, 0)), np.array([[2]]), np.array([[99, 98, 97]])]
    path = tmp_path / "asdf.mat"
    io.savemat(path, {"data": {"asdf": cells, "weights": np.eye(3)}})
    recording = load(path, times="data/asdf[:3]", unit="ms")
    assert trains(recording) == {"0": [0.001, 0.003], "1": [], "2": [0.002]}


def test_matlab_7_3_has_its_axes_turned_back_and_its_cells_followed(tmp_path):
    path = tmp_path / "new.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        matrix = file.create_dataset("spks", data=np.array([[2.0, 0.5], [1.0, 0.25]]).T)
        matrix.attrs["MATLAB_class"] = np.bytes_("double")
        group = file.create_group("#refs#")
        references = [group.create_dataset(name, data=values).ref for name, values in (("a", [[1.0, 2.0]]), ("b", [[3.0]]))]
        file.create_dataset("cells", data=np.array([references], dtype=h5py.ref_dtype).T)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    assert trains(load(path, times="spks[:,1]", neurons="spks[:,0]", unit="s")) == {"1": [0.25], "2": [0.5]}
    assert trains(load(path, times="cells", unit="s")) == {"0": [1, 2], "1": [3]}


def test_text_of_matlab_7_3_and_its_empty_text(tmp_path):
    path = tmp_path / "text.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, codes in (("unit", np.array([[109], [115]], "u2")), ("note", np.array([0, 0], "u8"))):
            file[name] = codes
            file[name].attrs["MATLAB_class"] = np.bytes_("char")
        file["note"].attrs["MATLAB_empty"] = np.uint8(1)  # MATLAB writes the shape, 0 x 0, in place of the text
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    assert open_tree(path) == {"unit": "ms", "note": ""}


def test_a_sparse_matrix_of_counts(tmp_path):
    counts = np.array([[1, 0, 0], [0, 0, 2]])
    path = tmp_path / "sparse.mat"
    io.savemat(path, {"c": sparse.csc_array(counts), "s": {"inner": sparse.csc_array(counts)}})
    for name in ("c", "s/inner"):
        recording = load(path, counts=name, axes="neuron,time", dt_ms=10)
        assert np.array_equal(recording.bin().dense_numpy()[0], counts.T)


def test_a_sparse_matrix_too_large_when_filled_is_refused(tmp_path):
    path = tmp_path / "sparse.mat"
    io.savemat(path, {"c": sparse.csc_array(([1.0], ([5], [7])), shape=(20_000, 20_000)), "t": [0.5, 0.7]})
    with pytest.raises(ReadError, match=r"'c'.*20000 x 20000.*3\.2 GB when filled; the limit is 1\.0 GB.*find\(c\)"):
        load(path, counts="c", axes="neuron,time", dt_ms=10)
    assert load(path, times="t", unit="s").n_spikes == 2


def test_flat_times_cut_by_spikes_per_neuron(tmp_path):
    path = tmp_path / "waves.h5"
    with h5py.File(path, "w") as file:
        file["spikes"] = [0.1, 0.9, 0.2, 0.4, 0.3]
        file["sCount"] = np.array([2, 0, 3], "i4")
        file["names"] = np.array([b"a", b"b", b"c"])
        file["epos"] = np.array([[1.0, 2, 3], [4, 5, 6]])
    recording = load(
        path, times="spikes", spikes_per_neuron="sCount", unit="s", neuron_columns={"label": "names", "y_um": "epos[1]", "x_um": "/epos[0]"}
    )
    assert trains(recording) == {"0": [0.1, 0.9], "1": [], "2": [0.2, 0.3, 0.4]}
    assert recording.neurons.labels.tolist() == ["a", "b", "c"]
    assert recording.neurons.column("y_um").tolist() == [4, 5, 6]
    with pytest.raises(ReadError, match="say spikes_per_neuron= instead of neurons="):
        load(path, times="spikes", neurons="sCount", unit="s")


def test_counts_with_their_axes_in_any_order(tmp_path):
    counts = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) % 3  # (neuron, condition, time, repeat)
    path = tmp_path / "counts.npz"
    np.savez(path, c=counts, quality=[0.1, 0.9])
    recording = load(path, counts="c", axes="neuron,condition,time,repeat", dt_ms=10, neuron_columns={"quality": "quality"})
    assert recording.n_trials == 15
    binned = recording.bin().dense_numpy()
    for condition in range(3):
        for repeat in range(5):
            assert np.array_equal(binned[condition * 5 + repeat], counts[:, condition, :, repeat].T)
    assert recording.trials.conditions[5] == "1"
    assert recording.trials.column("repeat")[:6].tolist() == [0, 1, 2, 3, 4, 0]
    assert recording.neurons.column("quality").tolist() == [0.1, 0.9]


def test_counts_with_signals(tmp_path):
    path = tmp_path / "reach.mat"
    io.savemat(path, {"spikes": np.array([[1, 0], [0, 2], [3, 0]], "u1"), "pos": np.array([[0.0, 1], [2, 3], [4, 5]])})
    recording = load(path, counts="spikes", axes="time,neuron", dt_ms=50, signals={"pos": "pos"}, signal_rate_hz=20)
    assert recording.n_spikes == 6
    assert recording.signals["pos"].values.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("axes", [None, "time", "time,neurons", "time,time", "neuron,time,trial"])
def test_counts_need_a_name_for_every_axis(tmp_path, axes):
    path = tmp_path / "counts.npy"
    np.save(path, np.ones((4, 3), "u1"))
    with pytest.raises(ReadError, match=r"shape \(4, 3\).*a name for each axis"):
        load(path, counts="array", axes=axes, dt_ms=10)


@pytest.mark.parametrize(
    ("path_in_file", "message"),
    [
        ("spike", "has no 'spike'; did you mean 'spikes'"),
        ("spikes[7]", r"spikes\[7\] does not exist"),
        ("spikes[x]", r"\[x\] is no index"),
        ("spikes[,1]", r"\[,1\] is no index"),
        ("spikes[-]", r"\[-\] is no index"),
        ("spikes[1:-]", r"\[1:-\] is no index"),
        ("spikes[]", r"\[\] is no index"),
        ("group/zzz", "has no 'zzz' in 'group'. There is: inner"),
    ],
)
def test_a_wrong_path_lists_what_is_there(tmp_path, path_in_file, message):
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file["spikes"] = [0.1, 0.9]
        file["group/inner"] = [1]
    with pytest.raises(ReadError, match=message):
        load(path, times=path_in_file, unit="s")


def test_all_zero_counts_and_empty_times_are_no_success(tmp_path):
    path = tmp_path / "zeros.npz"
    np.savez(path, c=np.zeros((4, 3)), t=np.zeros(0), n=np.zeros(0, int))
    with pytest.raises(NoSpikeTrainsError):
        load(path, counts="c", axes="time,neuron", dt_ms=10)
    with pytest.raises(NoSpikeTrainsError):
        load(path, times="t", neurons="n", unit="s")


@pytest.mark.parametrize("name", ["cut.npz", "cut.h5", "cut.mat"])
def test_a_file_cut_short_is_a_message(tmp_path, name):
    whole = tmp_path / f"whole{name[3:]}"
    if name.endswith("npz"):
        np.savez(whole, t=np.arange(1000.0))
    elif name.endswith("h5"):
        with h5py.File(whole, "w") as file:
            file["t"] = np.arange(1000.0)
    else:
        io.savemat(whole, {"t": np.arange(1000.0)})
    path = tmp_path / name
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ReadError, match=f"cannot read {path}"):
        load(path, times="t", unit="s")


def test_damaged_bytes_of_compressed_arrays_are_a_message(tmp_path):
    io.savemat(tmp_path / "a.mat", {"t": np.arange(3000) % 7}, do_compression=True)
    np.savez_compressed(tmp_path / "a.npz", t=np.arange(3000) % 7)
    # where compressed data begin: behind the two headers of a MATLAB file, and behind the zip header, its name and its extra field
    for name, begin in (("a.mat", 128 + 8 + 2), ("a.npz", 30 + len("t.npy") + 20)):
        content = bytearray((tmp_path / name).read_bytes())
        content[begin] = 0xFF  # block type 3, which there is not
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ReadError, match=rf"{name} cannot be opened: Error -3 while decompressing data: invalid block type"):
            open_tree(tmp_path / name)


def test_a_damaged_header_of_an_array_is_a_message(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"(5,)", b"(5,("))
    with pytest.raises(ReadError, match=r"a\.npy cannot be opened"):
        open_tree(tmp_path / "a.npy")
    (tmp_path / "a.mat").write_bytes(bytes(200))
    with pytest.raises(ReadError, match=r"a\.mat cannot be opened"):
        open_tree(tmp_path / "a.mat")


def test_damaged_data_sets_and_dangling_links_of_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("t", data=np.arange(3000) % 7, chunks=(3000,), compression="gzip")
        begin = data.id.get_chunk_info(0).byte_offset + 2
        file["gone"] = h5py.SoftLink("/nowhere")
        file["kind"] = np.dtype("f8")
    content = bytearray(path.read_bytes())
    content[begin] = 0xFF
    path.write_bytes(content)
    tree = open_tree(path)
    assert list(tree) == ["t"]
    for name in ("t", "t[:5]"):
        with pytest.raises(ReadError, match=r"'/t' of .*a\.h5 cannot be read: .*Is the file damaged"):
            resolve(tree, name, file=path)
