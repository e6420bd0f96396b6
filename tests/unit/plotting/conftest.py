"""A run folder written by hand: what a fit leaves behind, without fitting."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fitspike.recording.recording import Recording
from fitspike.statistics.summary import compare_summaries, summarise

N_NEURONS = 8


def summaries(seed: int) -> tuple[dict, dict]:
    """Return summaries of 12 trials of two conditions, recorded and simulated, with a shared gain in the recorded ones."""
    rng = np.random.default_rng(seed)
    rate = 0.05 + 0.2 * np.sin(np.linspace(0, 6, 100))[:, None] ** 2 * rng.uniform(0.2, 1, N_NEURONS)
    conditions = ["left", "right"] * 6
    gain = rng.gamma(5, 0.2, (12, 1, 1))
    recorded = Recording.from_counts(rng.poisson(gain * rate), dt_ms=10.0, conditions=conditions)
    simulated = Recording.from_counts(rng.poisson(np.broadcast_to(rate, (12, 100, N_NEURONS))), dt_ms=10.0, conditions=conditions)
    return summarise(recorded), summarise(simulated)


def populations() -> dict[str, np.ndarray]:
    """Return the arrays of three made-up populations, one of whose couplings is undetermined."""
    rng = np.random.default_rng(2)
    time_s = np.arange(500) * 0.004 + 1.0
    swing = 10 + 6 * np.tanh(5 * np.sin(3 * time_s))
    activity = np.stack([swing, 20 - swing, np.full(500, 25.0)], axis=1)
    return {
        "names": np.array(["left", "right", "inhibitory"]),
        "coupling": np.array([[10.0, 0.0, -20.0], [0.0, 10.0, -20.0], [10.0, 10.0, -20.0]]),
        "coupling_sd": np.array([[0.1, 0.0, np.nan]] * 3),
        "latent_time_s": time_s,
        "latent_hz": activity,
        "latent_sd_hz": np.full((500, 3), 4.0),
        "free_time_s": time_s,
        "free_hz": activity + rng.normal(0, 2, (500, 3)),
        "inferred_dwell_s": rng.exponential(3, 4),
        "free_dwell_s": rng.exponential(3, 40),
        "response_time_ms": np.arange(-75, 200) * 4.0,
        "response_hz": rng.uniform(5, 25, (3, 275, 3)),
        "response_pulse_ms": np.array(100.0),
        "response_per_s": np.array(80.0),
    }


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """Return a complete run folder with every figure's numbers."""
    path = tmp_path_factory.mktemp("runs") / "session-coupled-glm-1"
    path.mkdir()
    rng = np.random.default_rng(0)
    recorded, simulated = summaries(0)
    quantile = np.linspace(0, 1, 51)
    lag = np.arange(1, 21) * 10.0
    weight = np.where(rng.random((N_NEURONS, N_NEURONS)) < 0.3, rng.normal(0, 1, (N_NEURONS, N_NEURONS)), 0)
    rescaled = np.sort(rng.random((N_NEURONS, 300)))
    cdf = np.stack([np.searchsorted(values, quantile) / 300 for values in rescaled])
    arrays = {
        **{f"recorded/{name}": value for name, value in recorded.items()},
        **{f"simulated/{name}": value for name, value in simulated.items()},
        "model/psth_hz": 0.5 * (recorded["psth_hz"] + simulated["psth_hz"]),
        "rescaling/quantile": quantile,
        "rescaling/cdf": cdf,
        "rescaling/statistic": np.array([stats.kstest(values, "uniform").statistic for values in rescaled]),
        "rescaling/n_intervals": np.full(N_NEURONS, 300),
        "score/bits_per_spike": rng.normal(0.3, 0.2, N_NEURONS),
        "score/bits_per_spike_error": np.full(N_NEURONS, 0.05),
        "score/n_spikes": rng.integers(50, 400, N_NEURONS),
        "connectivity/weight": weight,
        "connectivity/unit": np.array("mV"),
        "connectivity/p_value": np.where(weight != 0, 1e-4, 0.5),
        **{f"population/{name}": value for name, value in populations().items()},
        "filter/history_lag_ms": lag,
        "filter/history": -np.exp(-lag / 30) * rng.uniform(1, 2, (N_NEURONS, 1)),
        "filter/coupling_lag_ms": lag,
        "filter/coupling": np.exp(-lag / 50) * rng.normal(0, 0.5, (3, 1)),
        "filter/coupling_pair": np.array([[0, 1], [2, 3], [4, 5]]),
        "targets/readout/time_ms": np.arange(50) + 0.5,
        "targets/readout/output": rng.normal(size=(2, 50, 2)),
        "targets/readout/target": rng.normal(size=(2, 50, 2)),
        "targets/readout/weight": np.ones((2, 50)),
        "targets/readout/is_class": np.array(False),
        "filter/speed_lag_ms": lag - 100,
        "filter/speed": rng.normal(0, 0.1, (N_NEURONS, 20, 2)),
    }
    np.savez(path / "statistics.npz", **arrays)
    files = {
        "status": {"format_version": 1, "state": "finished", "status": "CONVERGED", "message": "gradient below 1e-6"},
        "fit": {
            "status": "CONVERGED",
            "message": "gradient below 1e-6",
            "notes": ["Neuron 3 is <silent> & was left out."],
            "citations": [{"text": "Pillow et al. 2008, Nature 454:995", "doi": "10.1038/nature07140", "title": "", "year": "2008"}],
        },
        "specs": {
            "model": {
                "registered": "models",
                "qualified_name": "fitspike:coupled-glm",
                "settings": {"history_ms": 200.0, "ridge": 1.0},
                "distribution": "fitspike",
                "version": "0.1.0",
            },
            "params": {"bias": {"shape": [N_NEURONS], "axes": ["neuron"], "unit": "1", "doc": "log rate"}},
            "data": {"dt_ms": 10.0, "neuron_ids": recorded["neuron_ids"].tolist()},
        },
        "provenance": {
            "fitspike": "0.1.0",
            "python": "3.11",
            "packages": {"numpy": "2.0"},
            "plugins": [],
            "command": "fitspike fit session.npz",
            "seed": 0,
            "data": {"path": "session.npz", "sha256": "ab" * 32, "n_neurons": 8, "n_spikes": 12345, "n_trials": 60, "duration_s": 60.0},
        },
        "score": {
            "bits_per_spike": 0.31,
            "bits_per_spike_se": 0.02,
            "bits_per_spike_interval": [0.27, 0.35],
            "pseudo_r2": 0.21,
            "pseudo_r2_se": None,
            "pseudo_r2_interval": [None, None],
            "n_spikes": 2345,
            "n_neurons": 8,
            "n_bins": 1200,
            "n_bootstrap": 1000,
            "blocks": "12 trials",
            "notes": ["Co-smoothing was left out."],
        },
        "simulation": compare_summaries(recorded, simulated),
        "selection": {
            "method": "3 folds, blocked by time",
            "rows": [
                {"stage": stage, "settings": {name: value}, "bits_per_spike": 0.2 + 0.02 * i, "folds": [0.19, 0.21, 0.2], "taken": i == 1}
                for stage, name in (("own history", "history_ms"), ("coupling ridge", "ridge_coupling"))
                for i, value in enumerate((0.0, 30.0))
            ],
        },
        "checks": {"findings": [{"level": "warning", "name": "duplicates", "text": "3 duplicate spikes.", "neurons": []}]},
    }
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value, default=float))
    rows = [{"stage": "solve", "step": i, "wall_s": 0.1 * i, "objective": 100 / (i + 1)} for i in range(6)]
    (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "solve", "st')
    (path / "run.toml").write_text('[fit]\nmodel = "coupled-glm"\n')
    return path
