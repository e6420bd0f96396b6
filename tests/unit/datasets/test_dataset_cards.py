"""Cards of recorded datasets, their files, the cache, and truths stored beside recordings."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from fitspike import Recording
from fitspike.datasets import cache as cache_module
from fitspike.datasets.base import GroundTruth
from fitspike.datasets.cache import cache_folder, data_root, find_file
from fitspike.datasets.cards import read_card, read_cards
from fitspike.datasets.fetching import store
from fitspike.datasets.truth import load_truth, save_truth
from fitspike.errors import InvalidInputError, MissingDataError, ReadError, UnknownNameError
from fitspike.plugin.registry import get_registry

FILES = {"cell2.txt": "0.5\n0.75\n", "cell10.txt": "0.25\n", "cell1.txt": "0.1\n"}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def card_text(**changes):
    entries = {"name": "'toy'", "summary": "'s'", "licence": "'l'", "citation": "'c'", "origin": "'o'"} | changes
    head = "\n".join(f"{key} = {value}" for key, value in entries.items() if value is not None)
    hashes = "\n".join(f"'{name}' = '{sha(text)}'" for name, text in FILES.items())
    return f"""{head}
url = {{ "cell1*" = "https://example.org/data/{{name}}" }}
[reader]
format = "table"
unit = "s"
[settings]
dt_ms = 5.0
split = "time:0.2"
[items.all]
files = "cell*.txt"
reader = {{ layout = "neuron-per-file" }}
[items.one]
files = ["cell2.txt"]
settings = {{ split = "none" }}
[sha256]
{hashes}
"""


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(card_text())
    return read_card(path)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Return a folder of datasets named by $FITSPIKE_DATA."""
    folder = tmp_path / "data"
    (folder / "toy").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / "toy" / name).write_text(text)
    monkeypatch.setenv("FITSPIKE_DATA", str(folder))
    return folder


def test_items_inherit_reader_and_settings_and_order_files_naturally(card):
    assert card.items["all"].files == ("cell1.txt", "cell2.txt", "cell10.txt")
    assert card.items["one"].reader == {"format": "table", "unit": "s"}
    assert card.items["one"].settings == {"dt_ms": 5.0, "split": "none"}
    assert card.describe().settings["all"]["split"] == "time:0.2"
    assert card.urls == {
        "cell1.txt": "https://example.org/data/cell1.txt",
        "cell10.txt": "https://example.org/data/cell10.txt",
        "cell2.txt": "",
    }


def test_an_item_is_read_from_its_files(card, data, tmp_path):
    recording = card.load(tmp_path / "cache", item="all")
    assert recording.neurons.ids.tolist() == ["1", "2", "10"]
    assert recording.train_s("2").tolist() == [0.5, 0.75]
    assert card.load(tmp_path / "cache", item="one").n_spikes == 2
    assert card.truth() is None


def test_items_have_to_be_said_and_exist(card):
    with pytest.raises(InvalidInputError, match="has 2 items; say which, as toy/ITEM. Items: all, one"):
        card.item(None)
    with pytest.raises(UnknownNameError, match="no item 'al'; did you mean 'all'"):
        card.item("al")


def test_a_card_lists_all_its_problems(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        card_text(summary=None, licencse="'x'")
        .replace('files = ["cell2.txt"]', 'file = ["cell3.txt"]')
        .replace(sha(FILES["cell1.txt"]), "abc")
    )
    with pytest.raises(InvalidInputError) as caught:
        read_card(path)
    text = str(caught.value)
    for part in (
        "'summary' is missing",
        "'licencse'; did you mean 'licence'",
        "'file'; did you mean 'files'",
        "'one' names no files",
        "64 hexadecimal",
    ):
        assert part in text
    path.write_text("name = ")
    with pytest.raises(InvalidInputError, match="no valid TOML"):
        read_card(path)


def test_a_changed_file_is_refused(card, data, tmp_path):
    (data / "toy" / "cell2.txt").write_text("0.5\n0.76\n")
    with pytest.raises(MissingDataError, match=f"the card says {sha(FILES['cell2.txt'])[:12]}"):
        card.load(tmp_path / "cache", item="one")


def test_without_data_the_cache_is_used_then_the_reason_is_said(card, data, tmp_path, monkeypatch):
    monkeypatch.delenv("FITSPIKE_DATA")
    with pytest.raises(MissingDataError, match=r"offers no download. Put it there, or set \$FITSPIKE_DATA"):
        card.load(tmp_path / "cache", item="one")
    (tmp_path / "cache" / "files").mkdir(parents=True)
    (data / "toy").rename(tmp_path / "cache" / "files" / "toy")
    assert card.load(tmp_path / "cache", item="one").n_spikes == 2


def test_a_download_is_checked_and_kept_and_its_failure_explained(tmp_path, monkeypatch):
    import pooch

    monkeypatch.delenv("FITSPIKE_DATA", raising=False)
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a.txt").write_text("1\n")
    calls = []

    def retrieve(url, known_hash, fname, path):
        calls.append(url)
        if url.endswith("gone"):
            raise OSError("no route to host")
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes((origin / "a.txt").read_bytes())
        assert known_hash == f"sha256:{sha('1' + chr(10))}"
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    for _ in range(2):
        path = find_file("set", "a.txt", sha256=sha("1\n"), url="https://example.org/a.txt", cache=tmp_path / "cache")
    assert path == tmp_path / "cache" / "files" / "set" / "a.txt"
    assert calls == ["https://example.org/a.txt"]
    with pytest.raises(MissingDataError, match=r"gone failed \(OSError: no route to host\). Without a network, copy the file to .*b.txt"):
        find_file("set", "b.txt", sha256=sha("2"), url="https://example.org/gone", cache=tmp_path / "cache")


def test_data_root_names_a_folder_or_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("FITSPIKE_DATA", "")
    assert data_root() is None
    monkeypatch.setenv("FITSPIKE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(MissingDataError, match="which is no folder"):
        data_root()


def test_the_cache_goes_to_a_temporary_folder_where_home_is_read_only(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FITSPIKE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("FITSPIKE_CACHE")
    blocked = tmp_path / "home"
    blocked.write_text("a file where the cache would be")
    monkeypatch.setattr("pooch.os_cache", lambda name: blocked / name)
    monkeypatch.setattr(cache_module.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    assert cache_folder().parent == tmp_path / "tmp"
    assert "cannot be written to; datasets are cached in" in caplog.text
    monkeypatch.setenv("FITSPIKE_CACHE", str(blocked / "x"))
    with pytest.raises(MissingDataError, match="where nothing can be written"):
        cache_folder()


def test_a_truth_is_stored_in_the_folder_of_its_recording(tmp_path):
    weight = np.array([[0.0, 2.0], [-1.0, 0.0]])
    truth = GroundTruth(weight=weight, delay_ms=np.abs(weight), values={"bias": np.array([1.0, 2.0])}, settings={"seed": 3})
    recording = Recording.from_trains([[0.1], [0.2]])
    path = store(recording, truth, tmp_path / "a.fitspike")
    again = load_truth(path)
    assert np.array_equal(again.weight, weight)
    assert np.array_equal(again.delay_ms, np.abs(weight))
    assert again.values["bias"].tolist() == [1, 2]
    assert again.settings == {"seed": 3}
    np.save(tmp_path / "w.npy", weight)
    assert np.array_equal(load_truth(tmp_path / "w.npy").weight, weight)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".making")]
    with pytest.raises(ReadError, match="no truth at"):
        load_truth(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="may not be called weight"):
        save_truth(GroundTruth(values={"weight": weight}), tmp_path / "b.npz")


def test_the_cards_of_the_distribution_name_licence_origin_and_every_file_once():
    datasets = [entry.create() for entry in get_registry().entries("datasets") if entry.plugin == "datasets"]
    recorded = [dataset for dataset in datasets if not dataset.describe().is_synthetic]
    assert len(recorded) >= 16
    for dataset in recorded:
        card = dataset.describe()
        assert all((card.summary, card.licence, card.citation, card.origin)), card.name
        used = {file for item in dataset.items.values() for file in item.files}
        assert used == set(dataset.sha256), card.name


def test_cards_of_a_folder_come_in_order_of_name(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.toml").write_text(card_text(name=f"'{name}'"))
    assert [dataset.name for dataset in read_cards(tmp_path)] == ["a", "b"]
