"""E-prop in fits: the command line, resume bit for bit, readouts of hidden neurons, and life without the plugin."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fitspike_eprop.rule import EProp
from test_local_derivatives import ThreeStates
from test_rule import NLL, directions, worst

import fitspike
from fitspike import FitResult, Recording
from fitspike.learning.bptt import BPTT
from fitspike.losses.hidden_rate import HiddenRate
from fitspike.losses.readout import Readout
from fitspike.losses.total import all_specs, record_all
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.lif import EscapeLIF
from fitspike.params import initial_params, to_raw
from fitspike.plugin import Batch, Signal, Stream

QUIET = {
    "progress": "off",
    "threads": 1,
    "report": False,
    "score": {"co_smoothing_bins": 0, "n_bootstrap": 10},
    "simulation": {"max_seconds": 0},
}


def recording(n_trials=10):
    """Return trials of neurons of which the second follows the first by one bin."""
    counts = (np.random.default_rng(0).random((n_trials, 120, 4)) < 0.15).astype(int)
    counts[:, 1:, 1] |= counts[:, :-1, 0]
    return Recording.from_counts(counts, dt_ms=1.0)


def fit(rule, n_steps=12, n_hidden=3, **options):
    """Fit in double precision, without validation, from the same draws whatever the rule."""
    model = SpikingNetwork(n_hidden=n_hidden, coupling_ms=4.0, n_coupling=2)
    stop = {"max_steps": n_steps, "log_every": 3, "checkpoint_s": 0.0}
    how = {"optimiser": {"precision": "float64", "learning_rate": 0.1}, "batch": {"n_trials": 4}, "stop": stop, **QUIET, **options}
    return fitspike.fit(recording(), model, rule=rule, **how)


@pytest.mark.parametrize("feedback", ["random", "adaptive"])
def test_a_resumed_fit_goes_on_with_the_same_feedback_bit_for_bit(feedback, tmp_path):
    rule = {"name": "e-prop", "feedback": feedback, "feedback_decay": 0.05}
    whole = fit(rule)

    def stop_at_6(step, metrics):
        if step == 6:
            raise KeyboardInterrupt

    fit(rule, out=tmp_path / "run", callbacks=[stop_at_6], raise_on_failure=False)
    resumed = fit(rule, out=tmp_path / "run", resume=True)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value, err_msg=name)
    symmetric = fit("e-prop")
    assert any(not np.array_equal(symmetric.params[name], value) for name, value in whole.params.items())


def test_with_all_neurons_recorded_a_fit_is_that_of_back_propagation():
    by_eprop, exact = (fit(rule, 40, n_hidden=0, batch={"n_trials": 8}) for rule in ("e-prop", "bptt"))
    assert by_eprop.history[-1]["nll"] < by_eprop.history[0]["nll"] - 0.01
    for name, value in exact.params.items():
        np.testing.assert_allclose(by_eprop.params[name], value, rtol=1e-7, atol=1e-9, err_msg=name)


def test_the_text_none_of_a_configuration_means_that_no_own_spike_is_followed():
    told, meant, other = (fit(rule, 3) for rule in ({"name": "e-prop", "own_spike": "none"}, EProp(own_spike="none"), EProp()))
    for name, value in meant.params.items():
        np.testing.assert_array_equal(told.params[name], value, err_msg=name)
    assert any(not np.array_equal(other.params[name], value) for name, value in meant.params.items())


@pytest.mark.parametrize("own_spike", ["none", "adaptation", "all"])
def test_neurons_that_offer_a_step_alone(own_spike):
    """Hidden neurons whose derivatives are found by automatic differentiation of one step, against that of the whole cut graph."""
    model = SpikingNetwork(neuron=ThreeStates(), n_hidden=3, n_coupling=2)
    losses = {**NLL, "hidden_rate": (HiddenRate(), 0.3)}
    found = [directions(EProp(implementation=form, own_spike=own_spike), model, losses) for form in ("adjoint", "autodiff")]
    assert worst(*found) < 1e-10


def task_directions(rule, model, losses):
    """Return the directions of a task: a target of two outputs beside the inputs' spikes."""
    rng = np.random.default_rng(0)
    counts = (rng.random((3, 40, 4)) < 0.3).astype(int)
    target = Signal(rng.normal(size=(120, 2)), 1000.0)
    binned = Recording.from_counts(counts, dt_ms=1.0, signals={"target": target}).bin()
    specs = all_specs(model, losses, binned.info())
    raw = to_raw(specs, initial_params(specs, Stream(2, "init")), dtype=torch.float64)
    bound = rule.bind(model, specs, losses, binned.info(), Stream(3, "rule"))
    batch = Batch(binned.chunk(range(3), 0, 40), None, Stream(4, "batch"), recorded=record_all(losses, binned))
    return bound.directions(raw, batch)[0], raw, bound


@pytest.mark.parametrize("feedback", ["symmetric", "random", "adaptive"])
def test_a_readout_of_hidden_neurons(feedback):
    """Adjoint and cut graph agree; without connections among hidden neurons symmetric feedback is back-propagation, others are not."""
    losses = {"readout": (Readout(tau_out_ms=7.0), 1.0)}
    for connect in (("->hidden", "hidden->hidden"), ("->hidden",)):
        model = SpikingNetwork(neuron=EscapeLIF(), n_hidden=5, signals=(), coupling_ms=1.0, coupling_init=20.0, connect=connect)
        found, _, bound = task_directions(EProp(feedback=feedback, own_spike="all"), model, losses)
        cut, raw, _ = task_directions(EProp(feedback=feedback, own_spike="all", implementation="autodiff"), model, losses)
        assert worst(found, cut) < 1e-10
    exact, _, _ = task_directions(BPTT(), model, losses)
    assert (worst(found, exact) < 1e-10) == (feedback == "symmetric")
    kept = bound.state_dict()
    assert bool(kept) == (feedback != "symmetric")
    if feedback == "adaptive":  # D = B - W has shrunk by 1e-3, B being what random feedback of this stream is
        _, raw, other = task_directions(EProp(feedback="random"), model, losses)
        begin = other.state_dict()["feedback/readout/weight"] - raw["readout/weight"].detach()
        torch.testing.assert_close(kept["feedback/readout/weight"], 0.999 * begin, rtol=1e-12, atol=0.0)


RUN_WITHOUT = """
import json, sys
from fitspike import FitResult
from fitspike.plugin.registry import get_registry
assert "e-prop" not in get_registry().names("learning_rules")
result = FitResult.load(sys.argv[1])
print(json.dumps({"rule": result.config["rule"]["name"], "figures": len(result.plot())}))
"""


def test_the_command_fits_with_hidden_neurons_and_the_run_outlives_the_plugin(tmp_path):
    path, out = recording().save(tmp_path / "recording.fitspike"), tmp_path / "run"
    command = [sys.executable, "-m", "fitspike", "fit", str(path), "--set", "model.n_hidden=2"]
    command += ["--rule", "e-prop", "--set", "stop.max_steps=20", "--set", "batch.n_trials=4", "--out", str(out), "--no-report"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result = FitResult.load(out)
    assert np.isfinite(result.scores["bits_per_spike"]) and any("Bellec" in one.text for one in result.citations())
    environment["FITSPIKE_PLUGINS"] = "-eprop"
    drawn = subprocess.run([sys.executable, "-c", RUN_WITHOUT, str(out)], capture_output=True, text=True, env=environment, check=True)
    told = json.loads(drawn.stdout.splitlines()[-1])
    assert told["rule"] == "e-prop" and told["figures"] > 3
    again = subprocess.run([*command[:-3], str(tmp_path / "again")], capture_output=True, text=True, env=environment, check=False)
    assert again.returncode == 1 and "no learning rule 'e-prop'" in again.stderr


def test_without_a_model_the_one_made_of_neurons_is_fitted():
    for rule in ("e-prop", {"name": "e-prop", "feedback": "random"}, EProp()):
        result = fitspike.fit(recording(4), rule=rule, stop={"max_steps": 1}, **QUIET)
        assert result.config["model"]["name"] == "spiking-network"
