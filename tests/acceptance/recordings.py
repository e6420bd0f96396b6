"""Recordings made by others: every file loads with the counts its README gives, or gives the message that is right for it.

    python tests/acceptance/recordings.py [--no-fits]

Needs the folder of recordings in $FITSPIKE_DATA (default: ../shared/data beside the project). The expected numbers are parsed from the
READMEs of the recordings or written here from them; none comes from fitspike.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _table import Bounds

import fitspike
from fitspike.errors import FitspikeError
from fitspike.plugin.registry import get_registry

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.setdefault("FITSPIKE_DATA", str(ROOT.parent / "shared" / "data")))
FITSPIKE = [sys.executable, "-m", "fitspike"]

# file -> options of `inspect`, neurons, spikes; from formats/README.md
LOADS = {
    "neuroexplorer/test1.nex": ((), 2, 7),
    "plexon/explore1.plx": ((), 4, 2112 + 642 + 228 + 279),
    "blackrock/example_1.nev": ((), 324, 14_210),
    "nwb/A8604-211122.nwb": ((), 3, 11_020 + 4_690 + 5_644),
    "phy/column-vectors": ((), 20, 340),
    "phy/flat-vectors": ((), 20, 340),
    "axona/DVH_2013103103.set": ((), 6, 1_925 + 1_466),
    "axona/DVH_2013103103.1": ((), 4, 1_925),
    "axona/DVH_2013103103.2": ((), 2, 1_466),
    "text/PySpike_testdata.txt": (("--time-unit", "ms"), 40, 634),
    "text/SPIKE_Sync_Test.txt": (("--time-unit", "ms"), 50, 1_746),
    "text/wong1993_p0.times": (("--time-unit", "s", "--reader-option", "times=Time", "--reader-option", "neurons=Channel"), 39, 13_336),
    "same-recording/recording-1-0.gdf": ((), 24, 4_222),
    "same-recording/recording.nix": ((), 24, 4_222),
    "same-recording/recording.nwb": ((), 24, 4_222),
    "same-recording/recording.pkl": (("--reader-option", "allow_pickle=true"), 24, 4_222),
    "same-recording/recording_ascii.txt": (("--time-unit", "s"), 24, 4_222),
    "same-recording/recording_neo.mat": ((), 24, 4_222),
    "same-recording/reference.npz": (("--time-unit", "s", "--reader-option", "times=times", "--reader-option", "neurons=unit"), 24, 4_222),
}

# file -> what the message has to hold, when the file is inspected without a word about it
REFUSED = {
    "formats/axon/axonio.abf": "no spike trains found.*1 signal",
    "formats/nwb/1.0.2_nwbfile.nwb": "no spike trains found.*no Units table",
    "formats/nwb/2.1.0_nwbfile_with_extension.nwb": "no spike trains found.*no Units table",
    "formats/axona/DVH_2013103103_1.cut": "cluster labels only, no spike trains. Give the .set file",
    "formats/axona/DVH_2013103103_2.cut": "cluster labels only, no spike trains. Give the .set file",
    "formats/text/PySpike_testdata.txt": "nothing says their unit",
    "formats/text/SPIKE_Sync_Test.txt": "nothing says their unit",
    "formats/text/wong1993_p0.times": "Say which are times and neurons, and the time unit.*times='Time', neurons='Channel'",
    "formats/text/wong1993_p0.pos": "Say which are times and neurons",
    "formats/same-recording/recording.pkl": "executes any code in it.*allow_pickle",
    "formats/same-recording/recording_ascii.txt": "nothing says their unit",
    "formats/same-recording/reference.npz": "times='times', neurons='unit'",
    **{
        f"formats/axona/expected_{what}{i}.npy": rf"holds array \({n}\).*Say which entries are times and neurons"
        for what in ("spike_train_times", "cut_indices")
        for i, n in enumerate((1925, 1466))
    },
    "odd-files/truncated_40pct.plx": "cannot read .*truncated_40pct.plx.*PlexonIO",
    "odd-files/truncated_50pct.nwb": "does not open as NWB.*truncated",
    "odd-files/empty.nwb": "empty file",
    "odd-files/empty.nex": "empty file",
    "odd-files/empty.txt": "empty file",
    "odd-files/nex_renamed.plx": "content is a NeuroExplorer file.*Rename it to .nex",
    "odd-files/text_renamed.nwb": "content is text.*Rename it",
    "odd-files/glmcc_cell13_other.txt": "from -99398.2 to 9.99944e.06, and nothing says their unit",
    "odd-files/mcd_exported_spike.txt": "not text in utf-8: byte 0xb5 in line 4.*encoding='latin-1'",
    "odd-files/medpc_events.txt": "no spike trains found",
}

# odd files that are read: options, neurons, spikes, what the notes or checks have to hold
REPORTED = {
    "truncated_60pct.nex": ((), 2, 7, "is truncated: 'sin2Hz' ends at byte 9674, the file at 5804"),
    "truncated_10pct.nev": ((), 251, 1_376, "is truncated"),
    "neo_ascii_with_units.txt": ((), 24, 4_222, "times are in s, as the file says"),
    "glmcc_cell13_other.txt": (("--time-unit", "ms"), 1, 30_224, "309 spikes at negative times"),
}

# set -> recordings in the tables of its README, counted by hand, so that a row that is not parsed is missed
README_ROWS = {
    "aplysia-pedal": 21,
    "retinal-waves": 5,
    "mea-cultures": 4,
    "locust-antennal-lobe": 22,
    "cockroach-antennal-lobe": 8,
    "hippocampus-linear-track": 1,
    "network-izhikevich-100": 1,
    "network-hh-20": 1,
    "network-lif-300": 1,
    "neuropixels-snippet": 1,
    "grasshopper-receptor": 1,
    "v1-gratings": 27,
    "glm-stability": 2,
}

# every item of a set with so many neurons and so much time is fitted; of each set this one with the defaults and its card's settings
LEAST_NEURONS, LEAST_S = 3, 60.0
FITS = {
    "aplysia-pedal": "Sep2414da01",
    "cockroach-antennal-lobe": "e060817spont",
    "hippocampus-linear-track": "linear-track",
    "locust-antennal-lobe": "20000214-Citral",
    "mea-cultures": "TC102-NB-C57-DIV14_A",
    "network-hh-20": "cells",
    "network-izhikevich-100": "example",
    "neuropixels-snippet": "ephys-snippet",
    "retinal-waves": "Wong1993_Adult",
    "s1-reaching-binned": "s1",
    "v1-gratings": "session-23",
}
FITTED_NEURONS, FITTED_S = 5, 90.0
LONGEST_S = 1800.0
_FEW_FILTERS = ("history_ms=100", "n_history=2", "coupling_ms=100", "n_coupling=1", "standard_errors=false", "simulation.max_seconds=0")
QUICK = ["--no-selection", "--no-report", *(text for setting in _FEW_FILTERS for text in ("--set", setting))]


def cli(*arguments: str, timeout: float = 600.0) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of a command; status -1 if it takes longer than `timeout` seconds."""
    try:
        done = subprocess.run([*FITSPIKE, *arguments], capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired:
        return -1, "", f"not done within {timeout:g} s"
    return done.returncode, done.stdout, done.stderr


def inspect(path: Path, options: tuple[str, ...]) -> tuple[dict, str]:
    """Return what `inspect --json` prints, and the error text ("" without one)."""
    status, out, err = cli("inspect", "--json", *options, str(path))
    return (json.loads(out) if status == 0 else {}), ("" if status == 0 else err)


def check_formats(b: Bounds) -> None:
    for name, (options, n_neurons, n_spikes) in LOADS.items():
        found, error = inspect(DATA / "formats" / name, options)
        figure = f"{found['n_neurons']} neurons, {found['n_spikes']} spikes" if found else error.strip()[:200]
        met = bool(found) and (found["n_neurons"], found["n_spikes"]) == (n_neurons, n_spikes)
        b.check(f"formats/{name}: {n_neurons} neurons, {n_spikes} spikes", figure, met)
    every = {path.relative_to(DATA).as_posix() for path in (DATA / "formats").rglob("*") if path.is_file()} - {"formats/README.md"}
    read = {f"formats/{name}" for name in LOADS}  # a folder covers its files
    left = sorted(name for name in every - set(REFUSED) if not read & {name, *(str(parent) for parent in Path(name).parents)})
    b.check("every file of formats is among these or has a message", f"{len(every) - len(left)} of {len(every)} {left[:3]}", not left)


def check_refusals(b: Bounds) -> None:
    for name, wanted in REFUSED.items():
        status, out, err = cli("inspect", "--json", str(DATA / name))
        met = status == 1 and not out and "Traceback" not in err and re.search(wanted, err, re.DOTALL) is not None
        b.check(f"{name}: one message, status 1: {wanted}", f"status {status}: {err.strip()[-80:]}", met)
    for name, (options, n_neurons, n_spikes, wanted) in REPORTED.items():
        found, error = inspect(DATA / "odd-files" / name, options)
        said = " ".join([*found.get("notes", []), *(finding["text"] for finding in found.get("checks", []))])
        met = bool(found) and (found["n_neurons"], found["n_spikes"]) == (n_neurons, n_spikes) and wanted in said
        b.check(f"odd-files/{name}: read, and reports: {wanted}", said[:80] or error[:80], met)
    every = {path.name for path in (DATA / "odd-files").iterdir()} - {"README.md"}
    covered = {name.removeprefix("odd-files/") for name in REFUSED if name.startswith("odd-files/")} | set(REPORTED)
    b.check("every file of odd-files is among these", f"{len(every & covered)} of {len(every)}", every <= covered)


def apart_ns(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of two trains, ns; infinite where they differ in number of spikes."""
    return float(np.abs(found - expected).max(initial=0.0)) if len(found) == len(expected) else np.inf


def check_details(b: Bounds) -> None:
    """Check what the READMEs say beyond counts."""
    formats = DATA / "formats"
    axona = fitspike.load(formats / "axona" / "DVH_2013103103.set")
    for tetrode in (1, 2):
        mine = axona.neurons.column("tetrode")[axona.spike_neuron] == tetrode
        times = np.load(formats / "axona" / f"expected_spike_train_times{tetrode - 1}.npy")
        labels = np.load(formats / "axona" / f"expected_cut_indices{tetrode - 1}.npy")
        order = np.lexsort((labels, times))
        worst = apart_ns(axona.spike_times_ns[mine], times[order] * 1e9)
        same = np.array_equal(axona.neurons.column("unit_id")[axona.spike_neuron[mine]], labels[order])
        b.check(
            f"axona tetrode {tetrode}: the origin's times to 1 ns and its cut labels",
            f"{worst:.2f} ns, labels equal: {same}",
            worst < 1 and same,
        )
    nev = fitspike.load(formats / "blackrock" / "example_1.nev")
    counts = {where: nev.select(where=where).n_neurons for where in ("unit_id == 0", "unit_id == 255", "is_sorted == true")}
    met = sum(counts.values()) == 324 and min(counts.values()) > 0
    b.check("blackrock: unsorted (0), noise (255) and sorted units can be told apart", f"{list(counts.values())} of 324", met)
    per_train = np.bincount(fitspike.load(formats / "plexon" / "explore1.plx").spike_neuron).tolist()
    b.check("plexon: trains of 2112, 642, 228, 279 spikes", per_train, per_train == [2112, 642, 228, 279])
    per_unit = np.bincount(fitspike.load(formats / "nwb" / "A8604-211122.nwb").spike_neuron).tolist()
    b.check("A8604: units of 11020, 4690, 5644 spikes, without obs_intervals", per_unit, per_unit == [11_020, 4_690, 5_644])
    column, flat = (fitspike.load(formats / "phy" / name) for name in ("column-vectors", "flat-vectors"))
    same = column.fingerprint() == flat.fingerprint()
    b.check("phy: column and flat vectors give the same recording", "equal" if same else "different", same)


def check_same_recording(b: Bounds) -> None:
    """Check that seven files of one recording give the same trains."""
    folder = DATA / "formats" / "same-recording"
    with np.load(folder / "reference.npz") as reference:
        order = np.argsort(reference["times"], kind="stable")
        times, unit = np.rint(reference["times"][order] * 1e9).astype(np.int64), reference["unit"][order]
    by_unit = [times[unit == i] for i in range(24)]
    for name, options, tolerance in (
        ("recording.nix", {}, 0),
        ("recording.nwb", {}, 0),
        ("recording_neo.mat", {}, 0),
        ("recording.pkl", {"allow_pickle": True}, 0),
        ("recording_ascii.txt", {"unit": "s"}, 0),
        ("reference.npz", {"times": "times", "neurons": "unit", "unit": "s"}, 0),
        ("recording-1-0.gdf", {}, 50),  # its times are printed to 0.1 us
    ):
        bound = f"same-recording/{name}: the trains of the reference to {tolerance} ns"
        try:
            recording = fitspike.load(folder / name, **options)
        except FitspikeError as error:
            b.check(bound, str(error)[:120], False)
            continue
        trains = [recording.spike_times_ns[recording.spike_neuron == i] for i in range(recording.n_neurons)]
        worst = max(map(apart_ns, trains, by_unit), default=np.inf) if len(trains) == 24 else np.inf
        b.check(bound, f"{len(trains)} trains, {worst:g} ns", worst <= tolerance)
    text = fitspike.load(DATA / "formats" / "text" / "wong1993_p0.times", times="Time", neurons="Channel", unit="s")
    h5 = fitspike.get("retinal-waves/Wong1993_P0")
    trains, wanted = ({name: recording.train_s(i) for i, name in enumerate(recording.neurons.labels.tolist())} for recording in (text, h5))
    met = len(trains) == text.n_neurons == h5.n_neurons == 39 and set(trains) == set(wanted)
    n_equal = sum(np.array_equal(trains[name], wanted[name]) for name in set(trains) & set(wanted))
    b.check("wong1993_p0.times equals retinal-waves/Wong1993_P0.h5, train by train", f"{n_equal} of 39 equal", met and n_equal == 39)


def readme_table(name: str) -> list[dict[str, str]]:
    """Return the rows of the table of recordings in a set's README, by column; rows of another width than its header are left out."""
    lines = [line for line in (DATA / name / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    first = next((i for i, row in enumerate(rows) if row[0] in ("file / condition", "file", "#")), len(rows))
    return [dict(zip(rows[first], row, strict=True)) for row in rows[first + 2 :] if len(row) == len(rows[first])]


def expected_counts() -> dict[str, tuple[int, int, int | None]]:
    """Return item -> (units, spikes, duplicate times) as the READMEs state them."""
    found: dict[str, tuple[int, int, int | None]] = {}

    def numbers(name: str, item_of) -> None:
        for row in readme_table(name):
            if row.get("units", "").isdigit() and row["spikes"].isdigit() and row["duplicate times"].isdigit():
                found[f"{name}/{item_of(row['file / condition'])}"] = (int(row["units"]), int(row["spikes"]), int(row["duplicate times"]))

    numbers("aplysia-pedal", lambda text: text.removesuffix(".mat"))
    numbers("retinal-waves", lambda text: text.split(".h5")[0])
    numbers("mea-cultures", lambda text: text.split(".h5")[0])
    numbers("locust-antennal-lobe", lambda text: "-".join(text.split()[:2]))
    numbers("cockroach-antennal-lobe", lambda text: text.split()[0])
    numbers("hippocampus-linear-track", lambda _: "linear-track")
    numbers("network-izhikevich-100", lambda _: "example")
    numbers("network-hh-20", lambda _: "cells")
    numbers("network-lif-300", lambda _: "output")
    numbers("neuropixels-snippet", lambda _: "ephys-snippet")
    numbers("grasshopper-receptor", lambda _: "receptor-1")
    for row in readme_table("v1-gratings"):
        if row["#"].isdigit() and row["units"].isdigit() and row["spikes"].isdigit():
            found[f"v1-gratings/session-{row['#']}"] = (int(row["units"]), int(row["spikes"]), None)
    for row in readme_table("glm-stability"):
        if row["file"].startswith("Data_") and row["spikes"].isdigit():
            found[f"glm-stability/{row['file'].removeprefix('Data_')}"] = (1, int(row["spikes"]), None)
    found["s1-reaching-binned/s1"] = (52, 842_910, None)
    found["purkinje-single/sPK"] = (1, 2_232 + 2_888, None)
    found["case-studies/light-levels"] = (1, 750 + 969, None)
    found["case-studies/place-cell"] = (1, 220, None)
    return found


def check_sets(b: Bounds) -> None:
    """Check every item of every card: it is fetched, has the README's counts, and can be binned."""
    expected = expected_counts()
    for name, n_rows in README_ROWS.items():
        n_parsed = sum(label.startswith(f"{name}/") for label in expected)
        b.check(f"{name}: {n_rows} recordings counted in its README", n_parsed, n_parsed == n_rows)
    seen: set[str] = set()
    for name in get_registry().names("datasets"):
        dataset = get_registry().create("datasets", name)
        if dataset.describe().is_synthetic:
            continue
        wrong: list[str] = []
        n_checked = 0
        for item in dataset.describe().items:
            label = f"{name}/{item}"
            try:
                recording = fitspike.get(label)
                binned = recording.bin(None if recording.is_binned else 5.0)
            except FitspikeError as error:
                wrong.append(f"{item}: {str(error)[:80]}")
                continue
            n_in_bins = int(binned.counts().sum())
            if n_in_bins != recording.n_spikes:
                wrong.append(f"{item}: {n_in_bins} of {recording.n_spikes} spikes in bins")
            if label in expected:
                units, spikes, duplicates = expected[label]
                n_checked += 1
                seen.add(label)
                if (recording.n_neurons, recording.n_spikes) != (units, spikes):
                    wrong.append(f"{item}: {recording.n_neurons} neurons, {recording.n_spikes} spikes, README {units}, {spikes}")
                found = int(recording.checks().n_duplicates.sum())
                if duplicates is not None and found != duplicates:
                    wrong.append(f"{item}: {found} duplicate times, README {duplicates}")
        n_items = len(dataset.describe().items)
        b.check(
            f"{name}: all items are fetched, counted as in the README, binned",
            "; ".join(wrong)[:120] or f"{n_items} items, {n_checked} counts",
            not wrong,
        )
    missing = sorted(set(expected) - seen)
    b.check(
        "every recording that a README counts has an item", f"{len(expected) - len(missing)} of {len(expected)} {missing[:3]}", not missing
    )
    weak = fitspike.get("v1-gratings/session-6").select(where="contamination < 0.05").n_neurons
    b.check("v1-gratings/session-6: 10 units with contamination below 0.05", weak, weak == 10)
    total = sum(fitspike.get(f"v1-gratings/session-{k}").n_spikes for k in range(27))
    n_trials = sum(fitspike.get(f"v1-gratings/session-{k}").n_trials for k in range(27))
    b.check("v1-gratings: 1,926,228 spikes in 14,432 trials in all", f"{total} in {n_trials}", (total, n_trials) == (1_926_228, 14_432))


def check_neo(b: Bounds) -> None:
    for name in ("aplysia-pedal/Sep2414", "s1-reaching-binned/s1", "v1-gratings/session-23", "cockroach-antennal-lobe/CAL2C"):
        recording = fitspike.get(name)
        same = fitspike.load(recording.to_neo()).fingerprint() == recording.fingerprint()
        b.check(f"{name}: to_neo and back is the same recording", "equal" if same else "different", same)


def check_fits(b: Bounds) -> None:
    """Check that `fitspike fit $(fitspike datasets get NAME/ITEM) --model coupled-glm` works wherever there are neurons and time enough.

    One item of every set with nothing but that command, settings chosen by the fit, report drawn; the same item, a part of it, as its card
    recommends; every other item with few filters in coarse bins, so that the whole takes minutes.
    """
    fitted: list[str] = []
    for name in get_registry().names("datasets"):
        dataset = get_registry().create("datasets", name).describe()
        for item in () if dataset.is_synthetic else dataset.items:
            recording = fitspike.get(f"{name}/{item}")
            if recording.n_neurons < LEAST_NEURONS or recording.duration_s < LEAST_S:
                continue
            fitted.append(f"{name}/{item}")
            if item == FITS.get(name):
                fit(b, f"{name}/{item}", "as it comes", [])
                fit(b, f"{name}/{item}", "a part, as its card recommends", [*a_part(recording), *recommended(dataset.settings[item])])
            else:
                fit(b, f"{name}/{item}", "few filters", [*QUICK, "--dt-ms", str(max(20.0, (recording.bin_width_ns or 0) / 1e6))])
    sets = {label.partition("/")[0] for label in fitted}
    met = {f"{name}/{item}" for name, item in FITS.items()} <= set(fitted) and sets == set(FITS)
    b.check("every set with such an item has one fitted as it comes", f"{len(fitted)} items of {len(sets)} sets", met)


def a_part(recording: fitspike.Recording) -> list[str]:
    """Return the options that keep the busiest neurons, and of a continuous recording its beginning."""
    busiest = np.argsort(-np.bincount(recording.spike_neuron, minlength=recording.n_neurons), kind="stable")[:FITTED_NEURONS]
    options = ["--neurons", ",".join(recording.neurons.ids[np.sort(busiest)]), "--no-selection", "--no-report"]
    if recording.n_trials == 1:
        start_s = recording.trials.start_ns.min() / 1e9
        options += ["--start", str(start_s), "--stop", str(start_s + FITTED_S)]
    return options


def recommended(settings: Mapping[str, object]) -> list[str]:
    """Return the settings of a card as options of `fit`; its choice of units is replaced by that of `a_part`."""
    flags = {"dt_ms": "--dt-ms", "split": "--split", "emission": "--emission"}
    pairs = [[flags[key], str(value)] if key in flags else ["--set", f"{key}={value}"] for key, value in settings.items() if key != "units"]
    return [text for pair in pairs for text in pair]


def fit(b: Bounds, label: str, how: str, options: list[str]) -> None:
    """Check one fit: exit status 0, an optimum, and a finite held-out score."""
    begin = time.monotonic()
    status, path, err = cli("datasets", "get", label)
    found: dict = {}
    if status == 0:
        with tempfile.TemporaryDirectory() as folder:
            command = ("fit", path.strip(), "--model", "coupled-glm", "--json", "--progress", "off", "--out", f"{folder}/run", *options)
            status, out, err = cli(*command, timeout=LONGEST_S)
        found = json.loads(out) if status == 0 else {}
    if not found:
        b.check(f"{label} can be fitted, {how}", f"status {status}: {err.strip()[-160:]}", False)
        return
    bits = found["bits_per_spike"]
    met = found["status"] == "CONVERGED" and bits is not None and bool(np.isfinite(bits)) and "Traceback" not in err
    figure = f"{found['status']}, {bits:.3f} bits per spike, {time.monotonic() - begin:.0f} s" if met else found["message"][:120]
    b.check(f"{label} can be fitted, {how}", figure, met)


def main() -> None:
    b = Bounds("recordings")
    if not DATA.is_dir():
        b.check("the recordings are there", f"no folder {DATA}", False)
        b.finish()
    checks = [check_formats, check_refusals, check_details, check_same_recording, check_sets, check_neo]
    for check in checks if "--no-fits" in sys.argv[1:] else [*checks, check_fits]:
        try:
            check(b)
        except Exception as error:  # noqa: BLE001 - whatever it is, one bound is missed and the other checks run
            traceback.print_exc()
            b.check(f"{check.__name__} runs to its end", f"{type(error).__name__}: {error}"[:120], False)
    b.finish()


if __name__ == "__main__":
    main()
