"""DEEP R in fits of recordings: exact numbers and signs, resume bit for bit, a refit on the support, and life without the plugin."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from fitspike_deepr.deep_r import DeepR

import fitspike
from fitspike import FitResult, Recording
from fitspike.plugin import InvalidInputError

QUIET = {
    "progress": "off",
    "threads": 1,
    "report": False,
    "score": {"co_smoothing_bins": 0, "n_bootstrap": 10},
    "simulation": {"max_seconds": 0},
}
SGD = {"name": "sgd", "learning_rate": 20.0}


def recording(seed=0):
    counts = (np.random.default_rng(seed).random((16, 100, 6)) < 0.15).astype(int)
    return Recording.from_counts(counts, dt_ms=1.0).attach(neuron_columns={"population": list("EEEEII")})


def fit(transform, **options):
    given = {"settings": {"coupling_ms": 5.0, "n_coupling": 2}, "optimiser": SGD, "batch": {"n_trials": 4}, "stop": {"max_steps": 30}}
    return fitspike.fit(recording(), "spiking-network", transforms=[transform], **{**QUIET, **given, **options})


def test_a_fit_ends_with_the_number_of_connections_asked_for():
    result = fit(DeepR(n_active=14, l1=1e-4))
    coupling, mask = result.params["coupling"], result.params["coupling_mask"]
    assert 7 <= np.count_nonzero(coupling) <= 14
    assert not coupling[mask == 0].any() and not coupling[np.arange(6), np.arange(6)].any() and 7 <= mask.sum() <= 14
    assert np.count_nonzero(result.connectivity().weight) <= 14
    assert any("Deep rewiring" in one.text for one in result.citations())


@pytest.mark.parametrize("rule", ["score-function", "e-prop"])
def test_any_learning_rule_moves_the_connections(rule):
    if rule == "e-prop":
        pytest.importorskip("fitspike_eprop")
    settings = {"coupling_ms": 5.0, "n_hidden": 2}
    result = fit(DeepR(n_active=20, l1=1e-4), rule=rule, settings=settings)
    first = fit(DeepR(n_active=20, l1=1e-4), rule=rule, settings=settings, stop={"max_steps": 1})
    mask = result.params["coupling_mask"]
    assert mask.shape[:2] == (8, 8) and 10 <= mask.sum() <= 20 and not result.params["coupling"][mask == 0].any()
    assert ((mask != 0) & (first.params["coupling_mask"] == 0)).any()


def test_signs_of_populations_are_kept_with_zeros_among_them():
    result = fit(DeepR(density=0.4, l1=1e-4), settings={"coupling_ms": 5.0, "dale": True})
    coupling = result.params["coupling"][..., 0]
    assert (coupling[:, :4] >= 0).all() and (coupling[:, 4:] <= 0).all()
    assert result.params["coupling_mask"].sum() == 12 and (coupling == 0).sum() >= 24


def test_a_resumed_fit_ends_with_the_same_connections_bit_for_bit(tmp_path):
    transform = {"name": "deep-r", "density": 0.3, "l1": 1e-3, "temperature": 1e-6}
    often = {"max_steps": 30, "log_every": 5, "checkpoint_s": 0.0}
    whole = fit(transform, stop=often)

    def stop_at_15(step, metrics):
        if step == 15:
            raise KeyboardInterrupt

    fit(transform, stop=often, out=tmp_path / "run", callbacks=[stop_at_15], raise_on_failure=False)
    resumed = fit(transform, stop=often, out=tmp_path / "run", resume=True)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value, err_msg=name)


def test_a_refit_keeps_to_the_connections_that_were_found(tmp_path):
    first = fit(DeepR(density=0.3, l1=3e-3), settings={"coupling_ms": 5.0}, out=tmp_path / "sparse")
    again = fitspike.fit(
        recording(), "spiking-network", settings={"coupling_ms": 5.0}, init=tmp_path / "sparse", stop={"max_steps": 40}, **QUIET
    )
    np.testing.assert_array_equal(again.params["coupling_mask"], first.params["coupling_mask"])
    found = first.params["coupling_mask"] != 0
    weight = again.connectivity().weight
    assert not weight[~found].any() and np.abs(weight[found]).sum() > np.abs(first.connectivity().weight).sum()


def test_adam_is_refused_for_a_likelihood_unless_wanted():
    with pytest.raises(InvalidInputError, match="deep-r with optimiser 'adam' stalls.*optimiser.name='sgd'"):
        fit(DeepR(), optimiser={})
    assert fit(DeepR(n_active=5, allow_adaptive=True), optimiser={}).params["coupling_mask"].sum() <= 5


def test_a_model_without_matrices_is_refused():
    with pytest.raises(InvalidInputError, match="no trainable parameter has the axes post and pre"):
        fit(DeepR(), settings={"coupling_ms": 0.0})


RUN_WITHOUT = """
import json, sys
from fitspike import FitResult
from fitspike.plugin.registry import get_registry
assert "deep-r" not in get_registry().names("update_transforms")
result = FitResult.load(sys.argv[1])
print(json.dumps({"active": int(result.params["coupling_mask"].sum()), "figures": len(result.plot())}))
"""


def test_a_run_is_read_and_drawn_without_the_plugin_and_another_fit_names_it(tmp_path):
    out = tmp_path / "run"
    result = fit({"name": "deep-r", "n_active": 9, "l1": 1e-4}, settings={"coupling_ms": 5.0}, out=out)
    environment = {**os.environ, "FITSPIKE_PLUGINS": "-deepr", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", RUN_WITHOUT, str(out)], capture_output=True, text=True, env=environment, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["active"] == 9 == result.params["coupling_mask"].sum() and told["figures"] > 3
    path = recording().save(tmp_path / "recording.fitspike")
    again = [sys.executable, "-m", "fitspike", "fit", str(path), "--config", str(out / "run.toml"), "--out", str(tmp_path / "again")]
    failed = subprocess.run(again, capture_output=True, text=True, env=environment, check=False)
    assert failed.returncode == 1 and "no update transform 'deep-r'" in failed.stderr
    assert FitResult.load(out).config["transforms"][0]["name"] == "deep-r"
