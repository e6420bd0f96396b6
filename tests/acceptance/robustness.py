"""Robustness: broken plugins, a fit killed at any moment, replay and chunks, binning, start-up.

    python tests/acceptance/robustness.py [PART ...]

The parts are plugins, resume, replay, binning and startup; without a name all of them are run. No recording is needed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _table import Bounds

from fitspike.models.base import Model
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.lif import EscapeLIF
from fitspike.params import initial_params, to_tensors
from fitspike.recording.chunk import SpikeChunk
from fitspike.recording.info import DataInfo
from fitspike.recording.recording import Recording
from fitspike.rng import Stream
from fitspike.types import Params

FITSPIKE = [sys.executable, "-m", "fitspike"]

# plugin -> its module, what `plugins list` has to say of it
BROKEN = {
    "import-error": ("import a_package_that_nobody_has", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
    "raising-hook": (
        """
from fitspike.plugin import hookimpl
@hookimpl
def fitspike_register_neuron_models(register):
    raise RuntimeError("the hook broke")
@hookimpl
def fitspike_fit_start(run):
    raise RuntimeError("the listener broke")
""",
        "fitspike_register_neuron_models failed: RuntimeError: the hook broke",
    ),
    "wrong-arguments": (
        "from fitspike.plugin import hookimpl\n@hookimpl\ndef fitspike_register_models(register, colour): ...",
        "colour",
    ),
    "unknown-hook": (
        "from fitspike.plugin import hookimpl\n@hookimpl\ndef fitspike_register_neurons(register): ...",
        "knows no hook 'fitspike_register_neurons'; did you mean 'fitspike_register_neuron_models'?",
    ),
    "newer-api": ("FITSPIKE_API = (1, 99)", "it needs plugin interface 1.99, newer than this fitspike's 1.0"),
}
QUIET = ["--progress", "off", "--threads", "1", "--no-report", "--set", "score.n_bootstrap=20", "--set", "simulation.max_seconds=2"]


def cli(*arguments: str, cwd: Path, site: Path | None = None, timeout: float = 300.0) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error of a command that sees the plugins in `site`."""
    done = subprocess.run(
        [*FITSPIKE, *arguments], capture_output=True, text=True, timeout=timeout, cwd=cwd, env=environment(site), check=False
    )
    return done.returncode, done.stdout, done.stderr


def environment(site: Path | None = None) -> dict[str, str]:
    """Return the environment of a command: one thread, no settings of the user, plugins from `site`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FITSPIKE_")}
    own |= {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "XDG_CONFIG_HOME": os.devnull}
    if site is not None:
        own["PYTHONPATH"] = os.pathsep.join([str(site), *filter(None, [own.get("PYTHONPATH")])])
    return own


def install_broken(site: Path) -> None:
    """Install the broken plugins as pip would: a module and a .dist-info folder with an entry point each."""
    site.mkdir()
    for name, (source, _) in BROKEN.items():
        module = f"fitspike_{name.replace('-', '_')}"
        (site / f"{module}.py").write_text(source, encoding="utf-8")
        info = site / f"{module}-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fitspike-{name}\nVersion: 2.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[fitspike]\n{name} = {module}\n", encoding="utf-8")


def coupled_recording(n_neurons: int, n_bins: int, *, n_trials: int = 10, seed: int = 11) -> Recording:
    """Return spikes in 5 ms bins; each neuron is followed by the next one in a fifth of the cases."""
    draw = np.random.default_rng(seed)
    counts = (draw.random((n_trials, n_bins, n_neurons)) < 0.08).astype(int)
    follows = draw.random((n_trials, n_bins - 1, n_neurons)) < 0.2
    counts[:, 1:] |= np.roll(counts[:, :-1], 1, axis=2) & follows
    return Recording.from_counts(counts, dt_ms=5.0)


# -- broken plugins -----------------------------------------------------------------------------------------------------------------


def check_plugins(b: Bounds, folder: Path) -> None:
    """Check every command beside five broken plugins, and that the numbers are those without them."""
    site, recording = folder / "site", str(coupled_recording(4, 400).save(folder / "session.fitspike"))
    install_broken(site)
    fit = ["fit", recording, *QUIET, "--no-selection"]
    commands = {
        "fitspike --help": ["--help"],
        "plugins list": ["plugins", "list"],
        "inspect": ["inspect", recording, "--json"],
        "fit": [*fit, "--out", "run", "--json"],
        "fit of a network": ["fit", recording, *QUIET, "--neuron", "lif", "--set", "stop.max_steps=2", "--out", "network", "--json"],
        "score": ["score", "run", recording, "--json"],
        "simulate": ["simulate", "run", "--out", "free", "--duration", "2", "--json"],
        "compare": ["compare", "run", "network", "--json"],
        "connectivity": ["connectivity", "run", "--json"],
        "plot": ["plot", "run", "--json"],
        "datasets list": ["datasets", "list", "--json"],
        "info": ["info", "--json"],
        "config show": ["config", "show"],
    }
    whole, beside = folder / "without", folder / "beside"
    for place in (whole, beside):
        place.mkdir()
    for name, arguments in commands.items():
        expected_status, expected, expected_err = cli(*arguments, cwd=whole)
        status, out, err = cli(*arguments, cwd=beside, site=site)
        assert expected_status == 0, f"{name} fails without any plugin: {expected_err}"
        problem = "Traceback" if "Traceback" in err else "" if status == 0 else f"exit status {status}: {err.strip()[-100:]}"
        if not problem and name not in ("plugins list", "info", "config show"):
            problem = "" if without_places(out, beside) == without_places(expected, whole) else "prints something else than without them"
        unnamed = [plugin for plugin in BROKEN if f"plugin {plugin!r} (fitspike-{plugin} 2.0)" not in err]
        if name != "fitspike --help" and unnamed and not problem:
            problem = f"does not name {', '.join(unnamed)}"
        says = "exit 0" if name == "fitspike --help" else f"exit 0, names {len(BROKEN)}"
        b.check(f"beside {len(BROKEN)} broken plugins `{name}` works", problem or says, not problem)
    with np.load(whole / "run" / "params.npz") as one, np.load(beside / "run" / "params.npz") as other:
        same = all(np.array_equal(one[name], other[name]) for name in one)
    b.check("the fit beside them has the same parameters, bit for bit", "equal" if same else "different", same)
    table = re.sub(r"\s+", " ", cli("plugins", "list", cwd=beside, site=site)[1])
    listed = json.loads(cli("plugins", "list", "--json", cwd=beside, site=site)[1])["plugins"]
    reasons = {plugin["name"]: " ".join(plugin["problems"]) for plugin in listed}
    for plugin, (_, reason) in BROKEN.items():
        named = plugin in table and reason in table and reason in reasons.get(plugin, "")
        b.check(f"plugins list names {plugin} and why", reasons.get(plugin, "not listed")[:90], named)


def without_places(text: str, place: Path) -> str:
    """Return what a command printed without the folder it ran in and without times."""
    return re.sub(r'"(wall_s|seconds|time)": [0-9.e-]+', "", text.replace(str(place), ""))


# -- kill -9 and resume -------------------------------------------------------------------------------------------------------------


def check_resume(b: Bounds, folder: Path) -> None:
    """Check that a fit killed by the system, twice, ends with the parameters of one that was left alone."""
    glm = coupled_recording(30, 3000).save(folder / "glm.fitspike")
    selected = coupled_recording(8, 1000).save(folder / "selected.fitspike")
    network = coupled_recording(6, 300).save(folder / "network.fitspike")
    common = [*QUIET, "--set", "stop.checkpoint_s=0", "--set", "score.co_smoothing_bins=0"]
    steps = ["--set", "batch.n_bins=100", "--set", "stop.log_every=1", "--set", "stop.max_steps=60"]
    fits = {
        "coupled-glm (L-BFGS)": (glm, ["--model", "coupled-glm", "--no-selection", "--set", "solver=lbfgs"], ("fit", "fit")),
        "coupled-glm (proximal)": (
            glm,
            ["--model", "coupled-glm", "--no-selection", "--set", "penalty=group-l1", "--set", "sparsity_coupling=3"],
            ("fit", "fit"),
        ),
        "coupled-glm, settings selected": (selected, ["--model", "coupled-glm", "--set", "solver=lbfgs"], ("select", "fit")),
        "spiking-network": (network, ["--model", "spiking-network", *steps], ("fit", "fit")),
        "spiking-network, 3 hidden": (network, ["--model", "spiking-network", "--set", "n_hidden=3", *steps], ("fit", "fit")),
    }
    for number, (name, (recording, options, stages)) in enumerate(fits.items()):
        out = [folder / f"{kind}-{number}" for kind in ("whole", "killed")]
        arguments = ["fit", str(recording), *options, *common]
        status, _, err = cli(*arguments, "--out", str(out[0]), cwd=folder)
        assert status == 0, err
        kills = [killed_at(folder, [*arguments, "--out", str(out[1])], out[1], stages[0], None)]
        kills.append(killed_at(folder, ["fit", "--resume", "--out", str(out[1]), "--progress", "off"], out[1], stages[1], kills[0]))
        died = all(kill is not None for kill in kills) and not (out[1] / "params.npz").exists()
        status, _, err = cli("fit", "--resume", "--out", str(out[1]), "--progress", "off", cwd=folder)
        assert status == 0, err
        difference = largest_difference(out[0] / "params.npz", out[1] / "params.npz")
        where = " and ".join(f"{kill[0]} {kill[1]}" for kill in kills if kill)
        b.check(
            f"{name}: kill -9 twice and --resume gives the same parameters",
            f"killed at {where or 'no step'}; largest difference {difference:g}",
            died and difference == 0.0,
        )


def killed_at(
    folder: Path, arguments: list[str], out: Path, stage: str, before: tuple[str, int] | None, timeout_s: float = 300.0
) -> tuple[str, int] | None:
    """Start a command, kill it (signal 9) once it is two log points into a stage, or past those of `before`.

    Return stage and step at which it died, or None if it came to its end.
    """
    process = subprocess.Popen([*FITSPIKE, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env=environment())
    least = before[1] + 2 if before is not None and before[0] == stage else 2
    last = None
    begin = time.monotonic()
    try:
        while process.poll() is None and time.monotonic() - begin < timeout_s:
            last = reached(out) or last
            if last is not None and last[0] == stage and last[1] >= least and any((out / "checkpoints").glob("*")):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    finally:
        if process.poll() is None:
            process.kill()
        status = process.wait()
    return last if status == -signal.SIGKILL else None


def reached(out: Path) -> tuple[str, int] | None:
    """Return stage and step of a run in progress, as its history says."""
    try:
        lines = (out / "history.jsonl").read_text(encoding="utf-8").splitlines()
        row = json.loads(lines[-1])
    except (OSError, IndexError, json.JSONDecodeError):
        return None  # not there yet, or caught in the middle of a line
    return row["stage"], int(row["step"])


def largest_difference(one: Path, other: Path) -> float:
    """Return the largest difference between two files of parameters; infinite if names, shapes or types differ."""
    with np.load(one) as a, np.load(other) as b:
        if set(a) != set(b) or any(a[name].shape != b[name].shape or a[name].dtype != b[name].dtype for name in a):
            return float("inf")
        return max(float(np.abs(a[name] - b[name]).max(initial=0.0)) for name in a)


# -- replay and chunks --------------------------------------------------------------------------------------------------------------

N_TRIALS, N_BINS, N_NEURONS, DT_MS = 3, 3700, 12, 1.0


def models() -> dict[str, Model]:
    """Return the models that are run freely and replayed."""
    return {
        "coupled-glm, poisson": CoupledGLM(emission="poisson", history_ms=100.0, coupling_ms=40.0, population_ms=50.0, drift_bumps=0),
        "coupled-glm, bernoulli": CoupledGLM(emission="bernoulli", history_ms=100.0, coupling_ms=40.0, population_ms=0.0, drift_bumps=0),
        "spiking-network, srm, 5 hidden": SpikingNetwork(n_hidden=5, delay_ms=3.0, n_coupling=2),
        "spiking-network, lif, 5 hidden": SpikingNetwork(neuron=EscapeLIF(refractory_ms=2.0), n_hidden=5),
        "spiking-network, lif, 5 hidden, bin by bin": SpikingNetwork(neuron=EscapeLIF(refractory_ms=2.0), n_hidden=5, backend="step"),
    }


def check_replay(b: Bounds) -> None:
    """Check that a free run replayed clamped is itself, and that chunk sizes change nothing."""
    for name, model in models().items():
        n_units = N_NEURONS + getattr(model, "n_hidden", 0)
        data = DataInfo(N_NEURONS, N_TRIALS, DT_MS, np.full(N_TRIALS, N_BINS), mean_count=np.linspace(0.01, 0.05, N_NEURONS))
        model = model.resolved(data) if isinstance(model, CoupledGLM) else model
        params = random_params(model, data)
        uniforms = torch.as_tensor(Stream(5, "acceptance/replay").uniforms(N_TRIALS, range(N_BINS), n_units))
        context = SpikeChunk.empty(N_TRIALS, N_BINS, N_NEURONS, DT_MS)
        with torch.no_grad():
            free = model.rollout(params, context, uniforms=uniforms)
            spikes = torch.cat([free.spikes, free.latents["hidden_spikes"]], dim=-1) if n_units > N_NEURONS else free.spikes
            # Other uniforms: a replay must not draw anything.
            replay = model.rollout(params, context, uniforms=1.0 - uniforms, observed=spikes)
        rate_hz = float(free.spikes.mean()) / DT_MS * 1e3
        same = torch.equal(free.spikes, replay.spikes) and 1.0 < rate_hz < 200.0
        difference = float((free.log_prob - replay.log_prob).abs().max())
        b.check(f"{name}: replay gives identical spikes", f"{'identical' if same else 'other'} spikes, {rate_hz:.1f} Hz", same)
        b.check(f"{name}: log-likelihood difference of the replay is 0", f"{difference:g} nats", difference == 0.0)
        runs = {n_bins: run_in_chunks(model, params, n_bins, uniforms, context) for n_bins in (100, 1000, N_BINS)}
        equal = all(torch.equal(one[0], free.spikes) for one in runs.values())
        b.check(f"{name}: chunks of 100, 1000, T bins: identical spikes", "identical" if equal else "other spikes", equal)
        recording = Recording.from_counts(free.spikes.numpy().astype(int), dt_ms=DT_MS)
        totals = [float(one[1].sum()) for one in runs.values()]
        totals += [likelihood_in_chunks(model, params, recording, n_bins) for n_bins in (100, 1000, N_BINS)]
        if not getattr(model, "n_hidden", 0):
            # Rollout and likelihood are the same number by two ways; with hidden units the latter samples them anew.
            spread = relative_spread(totals)
            b.check(f"{name}: likelihood of all chunk sizes, run and recording, within 1e-9", f"{spread:.1e} relative", spread <= 1e-9)
            continue
        for way, some in (("free run", totals[:3]), ("clamped recording", totals[3:])):
            spread = relative_spread(some)
            b.check(f"{name}: likelihood of the {way} in all chunk sizes within 1e-9", f"{spread:.1e} relative", spread <= 1e-9)


def random_params(model: Model, data: DataInfo) -> Params:
    """Return initial parameters with couplings and history filters that do something."""
    specs = model.param_specs(data)
    values = initial_params(specs, Stream(5, "acceptance/init"))
    draw = np.random.default_rng(5)
    for name in ("coupling", "history", "population", "post_spike_weight"):
        if name in values:
            values[name] = values[name] + draw.normal(-0.05, 0.15, values[name].shape)
    if "threshold_mv" in values:
        values["threshold_mv"] = values["threshold_mv"] - 4.0
    return to_tensors(values)


def relative_spread(values: list[float]) -> float:
    """Return largest minus smallest value, relative to the largest size."""
    return (max(values) - min(values)) / max(abs(value) for value in values)


def run_in_chunks(
    model: Model, params: Params, n_bins: int, uniforms: torch.Tensor, whole: SpikeChunk
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return spikes and log-probability (n_trials, n_neurons) of a free run in chunks."""
    spikes, log_prob, carry = [], torch.zeros(N_TRIALS, N_NEURONS, dtype=torch.float64), None
    with torch.no_grad():
        for first, length in pieces(n_bins):
            part = replace(SpikeChunk.empty(N_TRIALS, length, N_NEURONS, DT_MS, first_bin=first), trial=whole.trial)
            run = model.rollout(params, part, uniforms=uniforms[:, first : first + length], carry=carry)
            spikes.append(run.spikes)
            log_prob, carry = log_prob + run.log_prob, run.carry
    return torch.cat(spikes, dim=1), log_prob


def pieces(n_bins: int) -> Iterator[tuple[int, int]]:
    """Yield first bin and length of each chunk of a trial."""
    for first in range(0, N_BINS, n_bins):
        yield first, min(n_bins, N_BINS - first)


def likelihood_in_chunks(model: Model, params: Params, recording: Recording, n_bins: int) -> float:
    """Return the log-likelihood of a recording in chunks, nats."""
    binned, total, carry = recording.bin(DT_MS), 0.0, None
    with torch.no_grad():
        for first, length in pieces(n_bins):
            values, carry = model.log_likelihood(
                params, binned.chunk(range(N_TRIALS), first, length), carry, Stream(5, "acceptance/hidden")
            )
            total += float(values.sum())
    return total


# -- binning ------------------------------------------------------------------------------------------------------------------------

N_SPIKES, HOURS = 1_000_000, 6


def check_binning(b: Bounds) -> None:
    """Check the bin of every spike against integer arithmetic of Python's own numbers."""
    for rate, text in ((Fraction(30_000), "30 kHz"), (Fraction(390_625, 16), "24414.0625 Hz")):
        last = int(HOURS * 3600 * rate)
        sample = np.sort(np.random.default_rng(2).integers(0, last, N_SPIKES))
        # Edges and their neighbours are where arithmetic goes wrong.
        if rate == 30_000:
            edges = 30 * np.random.default_rng(3).integers(1, last // 30, N_SPIKES // 4)
            sample = np.sort(np.concatenate([edges - 1, edges, edges + 1, sample[: N_SPIKES - 3 * len(edges)]]))
        samples = sample.tolist()
        for dt_ms in (1.0, 0.25) if rate == 30_000 else (1.0,):
            dt = Fraction(str(dt_ms)) / 1000
            per_bin = rate * dt  # samples per bin, exact
            expected = np.array([k * per_bin.denominator // per_bin.numerator for k in samples])
            # Each as it comes in files: sampling points, or seconds that were rounded to float64 once.
            seconds = np.array([k / 30_000 if rate == 30_000 else k * 16 / 390_625 for k in samples])
            ids = np.arange(len(samples)) % 50
            for how, times, options in (
                ("sampling points", np.array(samples), {"sampling_rate_hz": float(rate)}),
                ("float seconds", seconds, {"unit": "s"}),
            ):
                recording = Recording.from_arrays(times, ids, n_neurons=50, start_s=0.0, stop_s=HOURS * 3600.0, **options)
                wrong = n_wrong(recording, dt_ms, expected, ids)
                figure = f"{wrong} of {len(samples)} wrong, {HOURS} h"
                b.check(f"{text}, {how}, {dt_ms:g} ms bins equal exact arithmetic", figure, wrong == 0)


def n_wrong(recording: Recording, dt_ms: float, expected: np.ndarray, ids: np.ndarray) -> int:
    """Return how many (bin, neuron) counts differ from those expected, and how many spikes are missing."""
    binned = recording.bin(dt_ms)
    counts = np.ones(len(binned.event_neuron), np.int64) if binned.event_count is None else binned.event_count.astype(np.int64)
    found = np.repeat(binned.event_bin * 50 + binned.event_neuron, counts)
    wanted = np.sort(expected * 50 + ids)
    if len(found) != len(wanted):
        return abs(len(found) - len(wanted)) + len(wanted)
    return int(np.count_nonzero(np.sort(found) != wanted))


# -- start-up -----------------------------------------------------------------------------------------------------------------------

N_STARTS = 15
HEAVY = ("torch", "numba", "elephant", "neo", "scipy", "matplotlib")


def check_startup(b: Bounds, folder: Path) -> None:
    """Check how long whole processes take, the interpreter's own start included, and what they import."""
    run_help = "from fitspike.cli.main import run; run(['--help'])"
    for what, code, command, bound_s in (
        ("import fitspike", "import fitspike", [sys.executable, "-c", "import fitspike"], 0.15),
        ("fitspike --help", run_help, [*FITSPIKE, "--help"], 0.30),
    ):
        median, fastest = start_times(command, folder)
        b.check(f"`{what}` under {bound_s} s (median of {N_STARTS})", f"{median:.3f} s, fastest {fastest:.3f} s", median < bound_s)
        asked = f"{code}; import sys; print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, env=environment(), cwd=folder, check=True)
        b.check(f"`{what}` imports none of {', '.join(HEAVY)}", done.stderr.strip(), done.stderr.strip() == "[]")
    median, _ = start_times([sys.executable, "-c", "pass"], folder)
    b.note(f"the interpreter alone starts in {median:.3f} s (median); the figures above include it")


def start_times(command: list[str], folder: Path) -> tuple[float, float]:
    """Return the median and the shortest time of a command, s, after one run that fills the caches."""
    times = []
    for _ in range(N_STARTS + 1):
        begin = time.perf_counter()
        subprocess.run(command, capture_output=True, env=environment(), cwd=folder, check=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:]), min(times[1:])


def main() -> None:
    parts = {"plugins": check_plugins, "resume": check_resume, "replay": check_replay, "binning": check_binning, "startup": check_startup}
    wanted = sys.argv[1:] or list(parts)
    if unknown := [name for name in wanted if name not in parts]:
        sys.exit(f"no part {', '.join(unknown)}. Parts: {', '.join(parts)}.")
    b = Bounds("robustness")
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="fitspike-") as folder:
            if name in ("replay", "binning"):
                parts[name](b)
            else:
                parts[name](b, Path(folder))
    b.finish()


if __name__ == "__main__":
    main()
