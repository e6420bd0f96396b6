"""fit(): its parts meet, its numbers are those of the parts, its problems come before compute."""

import json
import re
import signal
import time

import numpy as np
import pytest
import torch
from scipy.stats import poisson

import fitspike
from fitspike.errors import BackendError, FitFailed, FitInterrupted, FitspikeError, InvalidInputError, RunFolderError
from fitspike.fitting.machine import check_device
from fitspike.models.base import HasUnits
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.lif import EscapeLIF
from fitspike.recording.recording import Recording
from fitspike.results.result import FitResult

QUIET = {
    "progress": "off",
    "threads": 1,
    "report": False,
    "score": {"co_smoothing_bins": 500, "n_bootstrap": 50},
    "simulation": {"max_seconds": 3.0},
}


def fit(recording, model, **options):
    return fitspike.fit(recording, model, **{**QUIET, **options})


def test_scores_are_those_of_the_held_out_last_fifth(counts_recording, steady_rate):
    result = fit(counts_recording, steady_rate(shift=0.3, n_steps=60))
    counts = counts_recording.bin().dense_numpy()[0].astype(int)
    rate = counts[:2400].mean(0)
    model = poisson.logpmf(counts[2400:], rate * np.exp(0.3)).sum()
    null = poisson.logpmf(counts[2400:], rate).sum()
    assert result.scores["log_likelihood"] == pytest.approx(model, rel=1e-9)
    assert result.scores["bits_per_spike"] == pytest.approx((model - null) / counts[2400:].sum() / np.log(2), rel=1e-6)
    assert result.scores["n_spikes"] == counts[2400:].sum() and result.scores["n_bins"] == 600
    np.testing.assert_allclose(result.params["log_rate"], np.log(rate) + 0.3, atol=1e-9)
    assert result.status.name == "CONVERGED" and result.message == "halved"
    assert result.extras["standard_error"].tolist() == [1, 1, 1]


def test_open_settings_are_selected_unless_switched_off(counts_recording, steady_rate):
    chosen = fit(counts_recording, steady_rate())
    assert chosen.model.settings["shift"] == 0.0
    assert [row["label"] for row in chosen.selection["candidates"]] == ["shift 0.5", "shift 0.0", "shift -0.5"]
    with pytest.raises(AssertionError, match="fixes open settings"):
        fit(counts_recording, steady_rate(), selection=False)


def test_estimate_counts_freely_simulated_trials_where_a_loss_needs_them(monkeypatch, tmp_path):
    """The estimate's free runs are made to last half a second; a step is said to take three times that, and they are of ten trials."""
    from fitspike.learning import free_runs

    asked, run_free = [], free_runs.run_free

    def slow(*arguments, **options):
        asked.append(options["n_trials"])
        time.sleep(0.5)
        return run_free(*arguments, **options)

    monkeypatch.setattr(free_runs, "run_free", slow)
    counts = (np.random.default_rng(0).random((6, 40, 2)) < 0.2).astype(int)
    repeats = Recording.from_counts(counts, dt_ms=5.0, conditions=["a"] * 6)
    how = {"split": "none", "settings": {"time_bumps": 4}, "batch": {"n_free_trials": 10}, "stop": {"max_steps": 1}}
    for loss, least, most in (({"nll": 1}, 0.0, 1.0), ({"nll": 1, "psth": 1}, 1.5, 3.0)):
        folder = tmp_path / str(len(loss))
        fit(repeats, "spiking-network", loss=loss, out=folder, **how)
        found = re.search(r"a step takes about ([0-9.e-]+) s", (folder / "log.txt").read_text(encoding="utf-8"))
        assert least <= float(found[1]) < most
    assert set(asked) == {10}


def test_free_simulation_lies_beside_the_data(counts_recording, steady_rate):
    result = fit(counts_recording, steady_rate(shift=1.5, n_steps=60), simulation={"max_seconds": 6.0})
    assert result.simulation["rate_ratio"] == pytest.approx(np.exp(1.5), rel=0.1)
    assert any("times as much as the data" in note for note in result.notes)
    assert result.statistics["simulated/rate_hz"].shape == (3,)
    left_out = fit(counts_recording, steady_rate(shift=0.0), simulation={"max_seconds": 0})
    assert left_out.simulation == {} and "simulated/rate_hz" not in left_out.statistics


def test_same_seed_same_numbers_other_seed_other_simulation(counts_recording, steady_rate):
    one, again, other = (fit(counts_recording, steady_rate(shift=0.0), seed=seed) for seed in (1, 1, 2))
    assert one.scores == again.scores
    np.testing.assert_array_equal(one.statistics["simulated/rate_hz"], again.statistics["simulated/rate_hz"])
    assert (one.statistics["simulated/rate_hz"] != other.statistics["simulated/rate_hz"]).any()


def test_every_problem_is_reported_at_once(counts_recording, tmp_path):
    with pytest.raises(FitspikeError) as caught:
        fit(tmp_path / "missing.nwb", "coupled-gml", loss={"nll": 1, "nl": 0.5}, rule="bptd", transforms=["prune"])
    text = str(caught.value)
    for part in ("missing.nwb", "coupled-gml", "no loss 'nl'; did you mean 'nll'", "no learning rule 'bptd'", "prune"):
        assert part in text
    assert "5 problems" in text


def test_wrong_keys_and_wrong_names_are_reported_together(counts_recording, steady_rate, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "status.json").write_text("{}")
    with pytest.raises(FitspikeError) as caught:
        fit(
            counts_recording,
            steady_rate(shift=0.0),
            out=tmp_path / "old",
            dt_ms=1 / 3,
            split="trail:every=2",
            loss="nl",
            stop={"max_stepz": 3},
            threads=0,
        )
    text = str(caught.value)
    expected = (
        "'stop.max_stepz'; did you mean 'max_steps'",
        "threads = 0",
        "dt_ms=0.3333333333333333",
        "trail",
        "no loss 'nl'",
        "holds a run",
    )
    for part in expected:
        assert part in text, part
    assert "6 problems" in text


def test_bins_with_several_spikes_are_not_given_to_a_bernoulli_model(counts_recording, steady_rate):
    with pytest.raises(InvalidInputError, match=r"hold several spikes.*Use emission='poisson', a smaller dt_ms, or one_per_bin=true"):
        fit(counts_recording, steady_rate(shift=0.0), emission="bernoulli")
    assert fit(counts_recording, steady_rate(shift=0.0)).model.settings["emission"] == "poisson"


def test_several_spikes_in_a_bin_count_as_one_where_that_is_asked_for(counts_recording, steady_rate, tmp_path):
    result = fit(counts_recording, steady_rate(shift=0.0), emission="bernoulli", one_per_bin=True, split="none", out=tmp_path / "run")
    counts = counts_recording.bin().dense_numpy()
    assert counts.max() > 1
    lost, total = int(np.maximum(counts - 1, 0).sum()), int(counts.sum())
    assert any(f"{lost} of {total} training spikes share a bin" in note for note in result.notes)
    np.testing.assert_allclose(result.data.mean_count, (counts > 0).mean((0, 1)), rtol=1e-12)
    again = FitResult.load(tmp_path / "run", model=result.live_model)
    assert again.data.prepare(counts_recording).dense_numpy().max() == 1
    assert again.score(counts_recording).n_spikes == total - lost


def test_unknown_emission_and_setting_suggest_near_names(counts_recording, steady_rate):
    with pytest.raises(InvalidInputError, match="no emission 'poison'; did you mean 'poisson'"):
        fit(counts_recording, steady_rate(shift=0.0), emission="poison")
    with pytest.raises(InvalidInputError, match="'stop.max_step'; did you mean 'max_steps'"):
        fit(counts_recording, steady_rate(shift=0.0), stop={"max_step": 3})


def test_settings_of_the_neuron_given_to_the_network_are_told_where_they_belong(counts_recording):
    network = {"name": "spiking-network", "reset": "subtract", "refractory_s": 0.002}
    with pytest.raises(InvalidInputError, match=r"no setting 'reset' or 'refractory_s'.*'lif'.*neuron\.reset, neuron\.refractory_ms"):
        fit(counts_recording, network, neuron="lif")
    with pytest.raises(InvalidInputError, match="no setting 'n_hiden'; did you mean 'n_hidden'"):
        fit(counts_recording, {"name": "spiking-network", "n_hiden": 2}, neuron="lif")


def test_a_rule_that_cannot_train_a_model_says_what_would_do(counts_recording):
    class NeedsUnits:
        name = "needs-units"
        requires = (HasUnits,)

        def bind(self, *args):
            raise InvalidInputError("a second word on the same matter")

    with pytest.raises(InvalidInputError) as caught:
        fit(counts_recording, "coupled-glm", rule=NeedsUnits(), selection=False)
    text = str(caught.value)
    assert "'needs-units' cannot train model 'coupled-glm'" in text and "neurons that reach one another" in text and "HasUnits" in text
    assert "Use model='spiking-network', or rule='bptt'" in text
    assert "second word" not in text


def test_spikes_within_the_refractory_time_are_noted():
    """Intervals of 1, 2 and 3 bins of one neuron, and 1 bin from the last spike of a trial to the first of the next."""
    counts = np.zeros((2, 40, 2), dtype=int)
    counts[0, [0, 1, 10, 12, 20, 23, 39], 0] = 1
    counts[1, [0, 20], 0] = counts[0, 2, 1] = 1
    recording = Recording.from_counts(counts, dt_ms=2.0)
    how = {"dt_ms": 2.0, "stop": {"max_steps": 1}, "split": "none", "progress": "off"}
    found = [
        [note for note in fitspike.fit(recording, SpikingNetwork(neuron=EscapeLIF(refractory_ms=ms)), **how).notes if "refractory" in note]
        for ms in (0.0, 4.0)
    ]
    assert found[0] == [] and len(found[1]) == 1
    assert "2 of 10 training spikes" in found[1][0] and "neuron.refractory_ms to at most 0." in found[1][0]


def test_silent_neurons_are_noted_and_a_silent_recording_is_refused(steady_rate):
    counts = np.zeros((1000, 2), int)
    counts[::10, 0] = 1
    result = fit(Recording.from_counts(counts, dt_ms=10.0, ids=["loud", "mute"]), steady_rate(shift=0.0, n_steps=0))
    assert any("silent in the training part (mute)" in note for note in result.notes)
    with pytest.raises(FitspikeError, match="no spike"):
        fit(Recording.from_counts(np.zeros((1000, 2), int), dt_ms=10.0), steady_rate(shift=0.0))


def test_nothing_held_out_is_said(counts_recording, steady_rate):
    result = fit(counts_recording, steady_rate(shift=0.0), split="none")
    assert result.scores == {} and result.blocks is None
    assert any("no held-out score" in note for note in result.notes)


def test_a_diverged_fit_fails_with_its_result(counts_recording, steady_rate, tmp_path):
    with pytest.raises(FitFailed, match="DIVERGED.*it blew up.*learning_rate") as caught:
        fit(counts_recording, steady_rate(shift=0.0, diverge_at=3), out=tmp_path / "run")
    assert caught.value.result.status.name == "DIVERGED"
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"
    result = fit(counts_recording, steady_rate(shift=0.0, diverge_at=3), raise_on_failure=False)
    assert result.status.name == "DIVERGED" and result.scores == {}


def test_a_second_fit_into_one_folder_is_refused(counts_recording, steady_rate, tmp_path):
    fit(counts_recording, steady_rate(shift=0.0), out=tmp_path / "run")
    before = (tmp_path / "run" / "params.npz").read_bytes()
    with pytest.raises(RunFolderError, match=r"already holds a run.*--resume.*--out"):
        fit(counts_recording, steady_rate(shift=0.2), out=tmp_path / "run")
    assert (tmp_path / "run" / "params.npz").read_bytes() == before


def test_callbacks_hear_every_log_point_and_may_interrupt(counts_recording, steady_rate, tmp_path):
    heard = []

    def stop_at_five(step, metrics):
        heard.append(step)
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(FitInterrupted, match="at step 5; continue with `fitspike fit --resume"):
        fit(counts_recording, steady_rate(shift=0.0), callbacks=[stop_at_five], out=tmp_path / "run")
    assert heard == [1, 2, 3, 4, 5]
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"


def test_wrong_parameters_of_a_model_are_named(counts_recording, steady_rate):
    class Wrong(steady_rate):
        def solve(self, binned, context):
            params, report = super().solve(binned, context)
            return {"log_rat": params["log_rate"]}, report

    with pytest.raises(FitspikeError, match="log_rate is missing; log_rat is not in param_specs"):
        fit(counts_recording, Wrong(shift=0.0))


def test_held_out_neurons_are_the_ones_hidden(counts_recording, steady_rate):
    result = fit(counts_recording, steady_rate(shift=0.0), split="neuron:fraction=0.34")
    assert np.isfinite(result.score_details["co_smoothing"]).sum() == 1
    assert any("1 held-out neurons hidden" in note for note in result.notes)


def test_selection_of_neurons_and_trials_reaches_the_fit(steady_rate):
    counts = np.random.default_rng(4).poisson(0.3, size=(10, 200, 3))
    recording = Recording.from_counts(counts, dt_ms=10.0, ids=["a", "b", "c"])
    result = fit(recording, steady_rate(shift=0.0, n_steps=60), select={"neurons": ["c", "a"], "trials": range(6)}, split="trial:test=5")
    assert result.data.neuron_ids == ("c", "a")
    np.testing.assert_allclose(np.exp(result.params["log_rate"]), counts[:5, :, [2, 0]].mean((0, 1)), rtol=1e-9)


def test_interrupted_fit_is_returned_where_failures_are_not_raised(counts_recording, steady_rate):
    def interrupt(step, metrics):
        raise KeyboardInterrupt

    result = fit(counts_recording, "coupled-glm", selection=False, callbacks=[interrupt], raise_on_failure=False)
    assert result.status.name == "INTERRUPTED" and result.scores == {} and result.params

    with pytest.raises(FitInterrupted):  # nothing is fitted while settings are chosen
        fit(counts_recording, steady_rate(), callbacks=[lambda step, metrics: signal.raise_signal(signal.SIGINT)], raise_on_failure=False)


def test_device_and_backend_are_checked_before_the_fit(counts_recording, tmp_path):
    with pytest.raises(FitspikeError) as caught:
        fit(counts_recording, "coupled-glm", device="cdua", backend="nubma", out=tmp_path / "never")
    assert "no device 'cdua'; did you mean 'cuda'" in str(caught.value) and "'nubma'; did you mean 'numba'" in str(caught.value)
    for loss in ("nll", {"nll": 1.0, "firing_rate": 0.1}):  # by the solver, and by gradient steps
        with pytest.raises(FitspikeError, match="'coupled-glm' is fitted on 'cpu' alone"):
            fit(counts_recording, "coupled-glm", loss=loss, device="cuda:7", out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_one_update_transform_needs_no_list(tmp_path):
    counts = (np.random.default_rng(0).random((4, 50, 3)) < 0.2).astype(int)
    recording = Recording.from_counts(counts, dt_ms=5.0)
    for one in ("no-such", {"name": "no-such", "density": 0.3}):
        with pytest.raises(FitspikeError, match="no update transform 'no-such'") as caught:
            fit(recording, "spiking-network", transforms=one, out=tmp_path / "never")
        assert "'name'" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_missing_device_is_named():
    with pytest.raises(BackendError, match="'cuda:1' is not there: PyTorch .* sees 0 CUDA devices"):
        check_device("cuda:1")


def test_a_neuron_without_a_model_makes_a_network_of_it():
    recording = Recording.from_counts(np.random.default_rng(0).integers(0, 2, (400, 2)), dt_ms=1.0)
    result = fitspike.fit(recording, neuron="lif", stop={"max_steps": 1}, **QUIET)
    assert result.model.qualified_name.endswith(":spiking-network")


def test_a_text_chooses_trials_of_a_recording_in_memory_too(steady_rate):
    recording = Recording.from_counts(np.random.default_rng(0).integers(0, 2, (6, 200, 2)), dt_ms=1.0)
    result = fit(recording, steady_rate(shift=0.3, n_steps=2), select={"trials": "0:2,4"}, split="none")
    assert len(result.data.bins_per_trial) == 3


def test_a_recording_in_memory_is_cut_as_a_file_would_be(counts_recording, steady_rate):
    cut = {"align": "cue", "window_s": (0.0, 0.2)}
    cued = counts_recording.attach(events={"cue": [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]})
    result = fit(cued, steady_rate(shift=0.0), select=cut, split="none")
    by_hand = fit(cued.align("cue", (0.0, 0.2)), steady_rate(shift=0.0), split="none")
    assert result.data.n_scored_bins == by_hand.data.n_scored_bins < counts_recording.bin().n_scored_bins
    assert result.provenance.data["fingerprint"] == by_hand.provenance.data["fingerprint"]


def test_a_fit_starts_from_the_parameters_of_another_run(counts_recording, tmp_path, monkeypatch):
    """Given as a relative folder, stored as an absolute one, so that run.toml can be fitted again from anywhere."""
    monkeypatch.chdir(tmp_path)
    settings = {"coupling_ms": 10.0, "signals": ()}
    still = {"optimiser": {"name": "sgd", "learning_rate": 1e-12}, "stop": {"max_steps": 1}}
    first = fit(counts_recording, "spiking-network", settings=settings, stop={"max_steps": 3}, out="first")
    second = fit(counts_recording, "spiking-network", settings=settings, init="first", **still, out="second")
    own = fit(counts_recording, "spiking-network", settings=settings, **still)
    assert np.abs(first.params["coupling"] - own.params["coupling"]).max() > 1e-3
    for name, value in first.params.items():
        np.testing.assert_allclose(second.params[name], value, rtol=1e-5, atol=1e-6)
    stored = (tmp_path / "second" / "run.toml").read_text(encoding="utf-8")
    assert f'init = "{tmp_path / "first"}"' in stored
    with pytest.raises(FitspikeError, match="nowhere"):
        fit(counts_recording, "spiking-network", settings=settings, init="nowhere", **still)
    with pytest.raises(InvalidInputError, match="is no parameter of this model"):
        fit(counts_recording, "spiking-network", settings={**settings, "coupling_ms": 0.0}, init="first", **still)
    ids = list(counts_recording.neurons.ids)
    other = counts_recording.select(neurons=ids[1:])
    with pytest.raises(
        InvalidInputError, match=rf"init=.*has {len(ids)} neurons \({ids[0]}, .*this fit {len(ids) - 1} \({ids[1]}, .*same order"
    ):
        fit(other, "spiking-network", settings=settings, init="first", **still)
    with pytest.raises(
        InvalidInputError, match=r"fitted model 'spiking-network' with neurons '\w+', this fit has model .* with neurons 'lif'"
    ):
        fit(counts_recording, "spiking-network", neuron="lif", settings=settings, init="first", **still)


def test_an_unknown_optimiser_is_named_before_what_transforms_think_of_it(counts_recording):
    class Particular:
        name = "particular"

        def check(self, plan):
            raise InvalidInputError("I would have it otherwise")

        def init(self, *args):
            raise AssertionError("a fit with problems does not begin")

        apply = init

    for transforms in ([], [Particular()]):
        with pytest.raises(FitspikeError, match="no optimiser 'sdg'; did you mean 'sgd'") as caught:
            fit(counts_recording, "spiking-network", optimiser={"name": "sdg"}, transforms=transforms)
        assert "otherwise" not in str(caught.value)
