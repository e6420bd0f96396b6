"""report.html: one file, complete, safe against what names contain, made from the run folder alone."""

import base64
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from fitspike.errors import RunFolderError
from fitspike.plotting import report
from fitspike.plotting.report import number, write_report

VOID = {"meta", "img", "br", "hr", "link"}


class Checker(HTMLParser):
    """Follows tags and keeps the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        assert tag != "script"
        if tag == "img":
            assert given["alt"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the drawing of figures, seconds of it, where only what is written is looked at."""
    no_figure = {"address": "", "width": "1", "height": "1"}
    monkeypatch.setattr(report, "_embedded", lambda drawing, folder: {"caption": drawing.caption, **no_figure})


@pytest.fixture(scope="module")
def page(run_folder):
    checker = Checker()
    text = write_report(run_folder).read_text(encoding="utf-8")
    checker.feed(text)
    assert checker.open == []
    return checker, " ".join(" ".join(checker.text).split())


def test_report_is_one_file_without_network(page):
    checker, _ = page
    assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in checker.addresses)
    pictures = [address.partition(",")[2] for address in checker.addresses if address.startswith("data:")]
    for picture in pictures:
        assert ElementTree.fromstring(base64.b64decode(picture)).tag.endswith("svg")
    links = {address[1:] for address in checker.addresses if address.startswith("#")}
    assert links <= set(checker.ids)


def test_report_says_what_was_fitted_and_how_good_it_is(page):
    _, text = page
    for part in (
        "coupled-glm fitted to session.npz",
        "CONVERGED gradient below 1e-6",
        "0.31",
        "0.27 to 0.35",
        "2 345 spikes of 8 neurons in 1 200 held-out bins; uncertainty from 1 000 resamplings of blocks (12 trials).",
        "Co-smoothing was left out.",
        "3 duplicate spikes.",
        "ridge_coupling 30 (taken)",
        "On training data alone, by 3 folds, blocked by time.",
        "significant at a false-discovery rate of 0.05",
        "fitspike fit session.npz",
        'model = "coupled-glm"',
        "Pillow et al. 2008, Nature 454:995",
        "history_ms",
    ):
        assert part in text, part


def test_report_warns_first_and_escapes_names(page, run_folder):
    _, text = page
    assert "Neuron 3 is <silent> & was left out." in text
    raw = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "<silent>" not in raw and "&lt;silent&gt;" in raw
    assert raw.index("To be looked at") < raw.index("What was fitted</h2>")


def test_every_figure_is_in_the_report(page):
    checker, _ = page
    found = {name.removeprefix("figure-") for name in checker.ids if name.startswith("figure-")}
    assert {"raster", "simulation", "psth", "psth-scores", "rescaling", "neuron-scores", "coupling", "learning-curve", "selection"} <= found
    assert {"intervals", "coupling-filters", "history-filters", "filters-speed"} <= found


def test_report_of_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "running", "message": "step 3"}')
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "running" in text and "Nothing was held out" in text
    assert not list(tmp_path.glob(".report*"))


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "running"}')
    (tmp_path / "score.json").write_text("{")
    with pytest.raises(RunFolderError, match=re.escape("score.json is damaged")):
        write_report(tmp_path)
    (tmp_path / "score.json").unlink()
    (tmp_path / "statistics.npz").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match=re.escape("statistics.npz is damaged")):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "value,text",
    [
        (0.123456, "0.1235"),
        (12345678, "12\u202f345\u202f678"),
        (1e-7, "1.000e-07"),
        (None, "–"),
        (float("nan"), "–"),
        (True, "True"),
        (0, "0"),
    ],
)
def test_numbers_are_written_for_readers(value, text):
    assert number(value) == text


def test_report_without_a_held_out_part_says_what_is_shown(run_folder, tmp_path, undrawn):
    bare = tmp_path / "run"
    shutil.copytree(run_folder, bare)
    (bare / "score.json").unlink()
    text = write_report(bare).read_text(encoding="utf-8")
    assert "Spikes of the training data" in text and "signals of the training data" in text
    assert "Nothing was held out" in text and "held-out data" not in text


def test_report_of_a_task_promises_no_score_and_shows_no_run_or_coupling_that_is_not_there(run_folder, tmp_path, undrawn):
    bare = tmp_path / "run"
    shutil.copytree(run_folder, bare)
    (bare / "score.json").unlink()
    specs = json.loads((bare / "specs.json").read_text())
    specs["model"]["settings"]["emission"] = "threshold"
    (bare / "specs.json").write_text(json.dumps(specs))
    with np.load(bare / "statistics.npz") as stored:
        kept = {name: value for name, value in stored.items() if not name.startswith("simulated/")}
    kept["connectivity/weight"] = np.eye(len(kept["connectivity/weight"]))
    np.savez(bare / "statistics.npz", **kept)
    text = write_report(bare).read_text(encoding="utf-8")
    assert "Deterministic spikes have no likelihood" in text and "Fit again with a split" not in text
    assert "Spikes of the training data, neurons" in text and "running freely, neurons" not in text
    assert "Couplings summed over lag" not in text and "0 of " in text


def test_report_gives_the_unit_of_couplings(page):
    assert "from (pre) weight (mV) p-value" in page[1]


def test_report_says_why_there_is_no_mean_response(run_folder, tmp_path, undrawn):
    bare = tmp_path / "run"
    shutil.copytree(run_folder, bare)
    with np.load(bare / "statistics.npz") as stored:
        kept = {name: stored[name] for name in stored.files if "psth" not in name}
    np.savez(bare / "statistics.npz", **kept)
    assert "five trials without conditions" in write_report(bare).read_text(encoding="utf-8")
    assert "five trials without conditions" not in write_report(run_folder).read_text(encoding="utf-8")
