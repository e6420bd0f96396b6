"""The conformance suite finds faults: a sound example of each kind with one thing broken fails the check that is meant for it."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fitspike.errors import ConformanceError, InvalidInputError
from fitspike.hardware.base import HardwareConstraints
from fitspike.hardware.simulator import Simulator
from fitspike.learning.bptt import BPTT
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.losses.readout import Readout
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.lif import EscapeLIF
from fitspike.neurons.srm import SRM
from fitspike.params import ParamSpec, positive
from fitspike.plugin import (
    Citation,
    DataCard,
    HardwareLimitError,
    HasConnectivity,
    ReadError,
    Recording,
    SolverReport,
    Stream,
    check_dataset,
    check_hardware_target,
    check_learning_rule,
    check_loss,
    check_model,
    check_neuron_model,
    check_reader,
    check_statistic,
    check_update_transform,
)
from fitspike.statistics.rates import FiringRate


def failed_checks(check, target):
    """Return the names of the checks that fail."""
    with pytest.raises(ConformanceError) as caught:
        check(target)
    failures = caught.value.outcome.failures
    assert all(text in str(caught.value) for text in failures), "the message lists every failure"
    return {text.partition(":")[0] for text in failures}


# -- neuron models ------------------------------------------------------------------------------------------------------------------


class LooksAtOtherNeurons(EscapeLIF):
    def step(self, params, state, current, spikes, dt_ms):
        state, drive = super().step(params, state, current, spikes, dt_ms)
        return state, drive + drive[:, :1]


class LooksAtTheMeanNeuron(EscapeLIF):
    """The same in every order of neurons."""

    def step(self, params, state, current, spikes, dt_ms):
        return super().step(params, state, current - spikes.mean(1, keepdim=True), spikes, dt_ms)


class LooksAtTheFirstParameter(EscapeLIF):
    """A fixed parameter that starts at one value for all neurons."""

    def init_state(self, params, n_trials):
        voltage, bins_left = super().init_state(params, n_trials)
        return torch.zeros_like(voltage) + params["rest_mv"][0], bins_left


class LooksAtOtherTrials(EscapeLIF):
    def step(self, params, state, current, spikes, dt_ms):
        return super().step(params, state, current + spikes.mean(0), spikes, dt_ms)


class ChangesItsState(EscapeLIF):
    def step(self, params, state, current, spikes, dt_ms):
        state[1].add_(1.0)
        return super().step(params, state, current, spikes, dt_ms)


class HasFixedType(EscapeLIF):
    def step(self, params, state, current, spikes, dt_ms):
        state, drive = super().step(params, state, current, spikes, dt_ms)
        return state, drive.float()


class StaysOnTheCpu(EscapeLIF):
    def init_state(self, params, n_trials):
        voltage, bins_left = super().init_state(params, n_trials)
        return voltage, torch.zeros(bins_left.shape, dtype=bins_left.dtype)


class CutsTheGradient(SRM):
    def step(self, params, state, current, spikes, dt_ms):
        return super().step({**params, "bias": params["bias"].detach()}, state, current, spikes, dt_ms)


class RemembersOutsideTheState(SRM):
    memory = [0]

    def step(self, params, state, current, spikes, dt_ms):
        self.memory[0] += 1
        state, drive = super().step(params, state, current, spikes, dt_ms)
        return state, drive + 1e-3 * self.memory[0]


class HasAnotherLinearForm(SRM):
    def linear_form(self, params, dt_ms):
        form = super().linear_form(params, dt_ms)
        return replace(form, decay=0.99 * form.decay)


class BreaksOnCounts(EscapeLIF):
    def step(self, params, state, current, spikes, dt_ms):
        state, drive = super().step(params, state, current, spikes, dt_ms)
        return state, drive + torch.log1p(-(spikes - 1.0).clamp_min(0.0))


class HasNoCitation(EscapeLIF):
    citation = None


class HasWrongShape(EscapeLIF):
    def param_specs(self, n_neurons):
        return {**super().param_specs(n_neurons), "extra": ParamSpec((), "1")}


class HasUnknownParameterUnit(EscapeLIF):
    def param_specs(self, n_neurons):
        return {**super().param_specs(n_neurons), "tau_m_ms": ParamSpec((n_neurons,), "fortnights", init=10.0)}


class StartsOutsideItsConstraint(EscapeLIF):
    def param_specs(self, n_neurons):
        return {**super().param_specs(n_neurons), "tau_m_ms": ParamSpec((n_neurons,), "ms", init=-1.0, constraint=positive)}


class CannotBeMade(EscapeLIF):
    def __init__(self, must_be_given):
        super().__init__()


class MistakesItsThreshold(SRM):
    def params_for_count(self, expected, emission, dt_ms):
        return {name: value + 1.0 for name, value in super().params_for_count(expected, emission, dt_ms).items()}


NEURONS = {
    MistakesItsThreshold: "parameters for a count",
    LooksAtOtherNeurons: "no dependence on neuron order",
    LooksAtTheMeanNeuron: "no dependence between neurons",
    LooksAtTheFirstParameter: "no dependence between neurons",
    LooksAtOtherTrials: "no dependence between trials",
    ChangesItsState: "no side effects",
    HasFixedType: "shapes and types",
    StaysOnTheCpu: "device of the parameters",
    CutsTheGradient: "gradient of the clamped likelihood",
    RemembersOutsideTheState: "chunks of a run",
    HasAnotherLinearForm: "linear form",
    BreaksOnCounts: "several spikes in a bin",
    HasNoCitation: "citation",
    HasWrongShape: "parameter specs",
    HasUnknownParameterUnit: "parameter specs",
    StartsOutsideItsConstraint: "constraints round trip",
    CannotBeMade: "default settings",
}


@pytest.mark.parametrize(("neuron", "check"), NEURONS.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_a_neuron_model_is_found(neuron, check):
    assert check in failed_checks(check_neuron_model, neuron)


def test_a_free_run_that_does_not_replay_is_found():
    assert "replay of a free run" in failed_checks(check_neuron_model, RemembersOutsideTheState)


@pytest.mark.parametrize("change", [{"decay": 1.01}, {"gain": 1.01}, {"readout": 0.99}])
def test_step_is_checked_although_the_kernel_would_run_the_linear_form(change):
    """With a linear form the rollout takes the kernel unless told not to: a neuron whose two forms differ in any part is found."""

    class Differs(SRM):
        def linear_form(self, params, dt_ms):
            form = super().linear_form(params, dt_ms)
            return replace(form, **{name: factor * getattr(form, name) for name, factor in change.items()})

    assert "linear form" in failed_checks(check_neuron_model, Differs())


class HasNoReset(EscapeLIF):
    def step_with_reset(self, params, state, current, spikes, reset_spikes, dt_ms):
        return self.step(params, state, current, spikes, dt_ms)


class ResetsTwice(EscapeLIF):
    def step_with_reset(self, params, state, current, spikes, reset_spikes, dt_ms):
        state, drive = self.step(params, state, current, reset_spikes, dt_ms)
        return (state[0] - reset_spikes, state[1]), drive


@pytest.mark.parametrize("neuron", [HasNoReset, ResetsTwice])
def test_a_step_that_differs_with_its_reset_told_apart_is_found(neuron):
    assert "reset apart from other effects of a spike" in failed_checks(check_neuron_model, neuron)


def test_settings_that_cannot_be_pickled_are_found():
    @dataclass(frozen=True)
    class Local(EscapeLIF):
        pass

    assert "pickling" in failed_checks(check_neuron_model, Local)


def test_all_failures_are_listed_at_once():
    class Broken:
        name = ""

    assert failed_checks(check_neuron_model, Broken) >= {"members", "name", "pickling"}


# -- models -------------------------------------------------------------------------------------------------------------------------


class ForgetsTheMask(SpikingNetwork):
    def log_likelihood(self, params, chunk, carry, rng):
        return super().log_likelihood(params, replace(chunk, mask_numpy=np.ones_like(chunk.mask_numpy)), carry, rng)


class ForgetsTheCarry(SpikingNetwork):
    def log_likelihood(self, params, chunk, carry, rng):
        return super().log_likelihood(params, chunk, None, rng)


class MixesTrials(SpikingNetwork):
    def log_likelihood(self, params, chunk, carry, rng):
        values, carry = super().log_likelihood(params, chunk, carry, rng)
        return values + values.mean(0), carry


class SumsInSinglePrecision(SpikingNetwork):
    def log_likelihood(self, params, chunk, carry, rng):
        values, carry = super().log_likelihood(params, chunk, carry, rng)
        return values.float(), carry


class PeeksAtTheContext(SpikingNetwork):
    def rollout(self, params, context, **how):
        run = super().rollout(params, context, **how)
        return replace(run, spikes=(run.spikes + context.dense("float64")).clamp(max=1.0))


class MisstatesItsLogProb(SpikingNetwork):
    def rollout(self, params, context, **how):
        run = super().rollout(params, context, **how)
        return replace(run, log_prob=1.01 * run.log_prob)


class MisstatesItsIntensity(SpikingNetwork):
    def intensity(self, params, chunk, carry):
        expected, carry = super().intensity(params, chunk, carry)
        return 0.9 * expected, carry


class DrivesItsUnitsItself(SpikingNetwork):
    def driven_by(self, drive):
        return self


class HasNoParameters(SpikingNetwork):
    def param_specs(self, data):
        return {}


class ListsItsEmissions(SpikingNetwork):
    emissions = ["bernoulli"]


class DoublesTheGradient(SpikingNetwork):
    def log_likelihood(self, params, chunk, carry, rng):
        values, carry = super().log_likelihood(params, chunk, carry, rng)
        return values + (values - values.detach()), carry


class StartsEveryChunkAnew(SpikingNetwork):
    def rollout(self, params, context, **how):
        return super().rollout(params, context, **{**how, "carry": None})


class FavoursWhatItIsGiven(SpikingNetwork):
    def rollout(self, params, context, *, observed=None, **how):
        run = super().rollout(params, context, observed=observed, **how)
        return run if observed is None else replace(run, log_prob=0.9 * run.log_prob)


class LosesNeurons(SpikingNetwork):
    def connectivity(self, params, extras):
        found = super().connectivity(params, extras)
        return replace(found, weight=found.weight[:1, :1])


class ClimbsDown(SpikingNetwork):
    def solve(self, binned, context):
        worse = {name: value + 5.0 if name == "bias" else value for name, value in context.init.items()}
        return worse, SolverReport("CONVERGED", "done", 1)


MODELS = {
    HasNoParameters: "parameter specs",
    ListsItsEmissions: "emissions",
    DoublesTheGradient: "gradient of the likelihood",
    StartsEveryChunkAnew: "free run in chunks",
    FavoursWhatItIsGiven: "replay of a free run",
    LosesNeurons: "connectivity",
    ClimbsDown: "solver",
    DrivesItsUnitsItself: "units driven by somebody else",
    ForgetsTheMask: "likelihood of a mask",
    ForgetsTheCarry: "likelihood in chunks",
    MixesTrials: "no dependence between trials",
    SumsInSinglePrecision: "likelihood",
    PeeksAtTheContext: "free run",
    MisstatesItsLogProb: "likelihood of a free run",
    MisstatesItsIntensity: "intensity",
}


@pytest.mark.parametrize(("model", "check"), MODELS.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_a_model_is_found(model, check):
    assert check in failed_checks(check_model, model)


# -- statistics ---------------------------------------------------------------------------------------------------------------------


class CountsMaskedBins(FiringRate):
    def update(self, acc, spikes, chunk):
        return super().update(acc, spikes, replace(chunk, mask_numpy=np.ones_like(chunk.mask_numpy)))


class AveragesChunks(FiringRate):
    def init(self, data):
        return super().init(data), []

    def update(self, acc, spikes, chunk):
        empty, values = acc
        return empty, [*values, super().finalise(super().update(empty, spikes, chunk))]

    def finalise(self, acc):
        return torch.stack(acc[1]).nanmean(0)


class KnowsTheFirstNeuron(FiringRate):
    def finalise(self, acc):
        value = super().finalise(acc)
        return torch.cat([2.0 * value[:1], value[1:]])


class LosesTheGradient(FiringRate):
    def update(self, acc, spikes, chunk):
        return super().update(acc, spikes.detach(), chunk)


class HasUnknownUnit(FiringRate):
    unit = "spikes per fortnight"


class AddsExpectedCounts(FiringRate):
    def update(self, acc, spikes, chunk, expected=None):
        return super().update(acc, spikes if expected is None else spikes + expected.count, chunk)


class IsNoTensor(FiringRate):
    def finalise(self, acc):
        return super().finalise(acc).tolist()


class CountsTrialsOfAChunk(FiringRate):
    def update(self, acc, spikes, chunk):
        return super().update(acc, spikes * spikes.shape[0], chunk)


class DividesBySilence(FiringRate):
    def finalise(self, acc):
        value = super().finalise(acc)
        return value + torch.where(value == 0, torch.inf, 0.0)


STATISTICS = {
    IsNoTensor: "value",
    CountsTrialsOfAChunk: "chunks of trials",
    DividesBySilence: "recordings without spikes",
    AddsExpectedCounts: "expected counts",
    CountsMaskedBins: "masked bins",
    AveragesChunks: "chunks in time",
    KnowsTheFirstNeuron: "no dependence on neuron order",
    LosesTheGradient: "gradient",
    HasUnknownUnit: "unit and distance",
}


@pytest.mark.parametrize(("statistic", "check"), STATISTICS.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_a_statistic_is_found(statistic, check):
    assert check in failed_checks(check_statistic, statistic)


# -- losses, rules, transforms ------------------------------------------------------------------------------------------------------


class IsNoScalar(NegativeLogLikelihood):
    def __call__(self, context):
        return {"nll": super().__call__(context)["nll"][None]}


class DrawsFromTheGlobalGenerator(NegativeLogLikelihood):
    def __call__(self, context):
        return {"nll": super().__call__(context)["nll"] + torch.rand(())}


class HasNoGradient(NegativeLogLikelihood):
    def __call__(self, context):
        return {"nll": super().__call__(context)["nll"].detach()}


class NeedsTheUnknown(NegativeLogLikelihood):
    needs = frozenset({"moon"})


class ShowsTheWrongTarget(Readout):
    def traces(self, context):
        found = super().traces(context)
        return found._replace(target=found.target[..., 0])


LOSSES = {
    IsNoScalar: "terms",
    DrawsFromTheGlobalGenerator: "equal calls",
    HasNoGradient: "gradient",
    NeedsTheUnknown: "needs",
    ShowsTheWrongTarget: "traces",
}


@pytest.mark.parametrize(("loss", "check"), LOSSES.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_a_loss_is_found(loss, check):
    assert check in failed_checks(check_loss, loss)


@dataclass(frozen=True)
class Altered:
    """A bound rule whose directions go through a function."""

    bound: object
    change: object

    def directions(self, raw, batch):
        directions, metrics = self.bound.directions(raw, batch)
        return self.change(raw, directions), metrics

    def state_dict(self):
        return self.bound.state_dict()


def altered_rule(change):
    class Rule(BPTT):
        def bind(self, *arguments):
            return Altered(super().bind(*arguments), change)

    return Rule()


def shifted_in_place(raw, directions):
    with torch.no_grad():
        raw["w"] += 1.0
    return directions


RULES = {
    "climbs": (lambda raw, directions: {name: -d for name, d in directions.items()}, "one step lowers the loss"),
    "leaves out a parameter": (lambda raw, directions: {}, "directions"),
    "moves parameters itself": (shifted_in_place, "directions"),
    "mistakes neurons": (lambda raw, directions: {name: d.flip(0) for name, d in directions.items()}, "one step lowers the loss"),
    "keeps a graph": (lambda raw, directions: {name: d + 0.0 * raw[name] for name, d in directions.items()}, "directions"),
    "draws globally": (lambda raw, directions: {name: d + torch.rand(d.shape) for name, d in directions.items()}, "equal calls"),
}


@pytest.mark.parametrize(("change", "check"), RULES.values(), ids=RULES)
def test_fault_of_a_learning_rule_is_found(change, check):
    assert check in failed_checks(check_learning_rule, altered_rule(change))


class RequiresAName(BPTT):
    requires = {"likelihood"}


class TakesEveryModel(BPTT):
    requires = frozenset({HasConnectivity})


class HasAListAsState(BPTT):
    def bind(self, *arguments):
        bound = super().bind(*arguments)
        object.__setattr__(bound, "state_dict", lambda: [1])
        return bound


class HandsNothingOn(BPTT):
    def bind(self, *arguments):
        bound = super().bind(*arguments)

        def directions(raw, batch, found=bound.directions):
            result = found(raw, batch)
            batch.new_carry = None
            return result

        object.__setattr__(bound, "directions", directions)
        return bound


class StartsChunksAfresh(BPTT):
    def bind(self, *arguments):
        bound = super().bind(*arguments)

        def directions(raw, batch, found=bound.directions):
            batch.carry = None
            return found(raw, batch)

        object.__setattr__(bound, "directions", directions)
        return bound


class HandsGradientsOn(BPTT):
    def bind(self, *arguments):
        bound = super().bind(*arguments)

        def directions(raw, batch, found=bound.directions):
            result = found(raw, batch)
            batch.new_carry = batch.new_carry + 0.0 * raw["w"]
            return result

        object.__setattr__(bound, "directions", directions)
        return bound


class ForgetsTheWeights(BPTT):
    def bind(self, model, specs, losses, data, rng):
        return super().bind(model, specs, {name: (loss, 1.0) for name, (loss, _) in losses.items()}, data, rng)


WHOLE_RULES = {
    HandsNothingOn: "chunks of a trial",
    StartsChunksAfresh: "chunks of a trial",
    HandsGradientsOn: "chunks of a trial",
    ForgetsTheWeights: "weights of losses",
    RequiresAName: "requires",
    TakesEveryModel: "refusal of other models",
    HasAListAsState: "state",
}


@pytest.mark.parametrize(("rule", "check"), WHOLE_RULES.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_a_rule_around_its_directions_is_found(rule, check):
    assert check in failed_checks(check_learning_rule, rule)


@dataclass(frozen=True)
class Plain:
    """Takes the proposed update as it is."""

    name = "plain"
    citation = Citation("nobody, nowhere")

    def init(self, specs, raw, rng):
        return raw, {"steps": torch.zeros(())}

    def apply(self, state, raw, update, step):
        return {name: value + update[name] if name in update else value for name, value in raw.items()}, {"steps": state["steps"] + 1}


class UpdatesInPlace(Plain):
    def apply(self, state, raw, update, step):
        for name, value in update.items():
            raw[name].add_(value)
        return raw, state


class LosesParameters(Plain):
    def apply(self, state, raw, update, step):
        return {name: raw[name] + value for name, value in update.items()}, state


class AddsGlobalNoise(Plain):
    def apply(self, state, raw, update, step):
        after, state = super().apply(state, raw, update, step)
        return {name: value + torch.rand(value.shape) for name, value in after.items()}, state


class BeginsInPlace(Plain):
    def init(self, specs, raw, rng):
        raw["coupling"].zero_()
        return super().init(specs, raw, rng)


class ForgetsToReturnParameters(Plain):
    def init(self, specs, raw, rng):
        return {"steps": torch.zeros(())}


class CountsOutsideItsState(Plain):
    def init(self, specs, raw, rng):
        object.__setattr__(self, "n_steps", 0)
        return raw, ()

    def apply(self, state, raw, update, step):
        object.__setattr__(self, "n_steps", self.n_steps + 1)
        return {name: value + update[name] / self.n_steps if name in update else value for name, value in raw.items()}, state


class DropsSpecs(Plain):
    def reparametrise(self, specs):
        return {name: spec for name, spec in specs.items() if name != "coupling"}


class FreesFixedParameters(Plain):
    def reparametrise(self, specs):
        return {name: replace(spec, trainable=True) for name, spec in specs.items()}


def test_sound_update_transform_conforms():
    assert "resumed run" in check_update_transform(Plain).passed


TRANSFORMS = {
    UpdatesInPlace: "no side effects",
    BeginsInPlace: "no side effects",
    LosesParameters: "parameters after a step",
    ForgetsToReturnParameters: "parameters after a step",
    AddsGlobalNoise: "equal calls",
    CountsOutsideItsState: "resumed run",
    DropsSpecs: "constraints taken over",
    FreesFixedParameters: "constraints taken over",
}


@pytest.mark.parametrize(("transform", "check"), TRANSFORMS.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_an_update_transform_is_found(transform, check):
    assert check in failed_checks(check_update_transform, transform)


# -- hardware, datasets, readers ----------------------------------------------------------------------------------------------------


class PretendsToBeSmall(Simulator):
    def constraints(self):
        return HardwareConstraints(n_neurons=2)


class IgnoresItsStream(Simulator):
    def run(self, program, signals, n_trials, n_bins, rng):
        seed = int(np.random.SeedSequence().generate_state(1)[0])
        return super().run(program, signals, n_trials, n_bins, Stream(seed, "other"))


class HasNegativeLimits(Simulator):
    def constraints(self):
        return HardwareConstraints(n_neurons=-1)


class CompilesNothing(Simulator):
    def compile(self, model, params):
        raise HardwareLimitError("no model fits this target. Use another one.")


class RunsElsewhere(Simulator):
    def run(self, program, signals, n_trials, n_bins, rng):
        return replace(super().run(program, signals, n_trials, n_bins, rng), target="elsewhere")


TARGETS = {
    PretendsToBeSmall: "refusal of a model beyond the limits",
    IgnoresItsStream: "equal runs",
    HasNegativeLimits: "constraints",
    CompilesNothing: "compilation of a model within the limits",
    RunsElsewhere: "run",
}


@pytest.mark.parametrize(("target", "check"), TARGETS.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_a_hardware_target_is_found(target, check):
    assert check in failed_checks(check_hardware_target, target)


@dataclass(frozen=True)
class Coins:
    """Two neurons that flip coins."""

    name = "coins"
    card: DataCard = field(default_factory=lambda: DataCard("coins", "Coin flips.", "CC0", "none", is_synthetic=True))

    def describe(self):
        return self.card

    def load(self, cache, *, item=None, seed=0):
        return Recording.from_counts((Stream(seed, "coins").uniforms(1, range(100), 2)[0] < 0.5).astype(int), dt_ms=1.0)

    def truth(self, *, seed=0):
        return None


class IgnoresItsSeed(Coins):
    def load(self, cache, *, item=None, seed=0):
        return super().load(cache, item=item, seed=0)


class DrawsAnew(Coins):
    def load(self, cache, *, item=None, seed=0):
        return super().load(cache, item=item, seed=int(np.random.SeedSequence().generate_state(1)[0]))


class HasNoLicence(Coins):
    def describe(self):
        return replace(self.card, licence="")


def test_sound_dataset_conforms():
    assert "seeds" in check_dataset(Coins).passed


class NeverLands(Coins):
    def load(self, cache, *, item=None, seed=0):
        return Recording.from_counts(np.zeros((100, 2), dtype=int), dt_ms=1.0)


class KnowsTheTruthAsArray(Coins):
    def truth(self, *, seed=0):
        return np.eye(2)


DATASETS = {
    IgnoresItsSeed: "seeds",
    DrawsAnew: "seeds",
    HasNoLicence: "card",
    NeverLands: "recording",
    KnowsTheTruthAsArray: "truth",
}


@pytest.mark.parametrize(("dataset", "check"), DATASETS.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_a_dataset_is_found(dataset, check):
    assert check in failed_checks(check_dataset, dataset)


@dataclass(frozen=True)
class Lines:
    """One "time neuron" pair per line, times in seconds."""

    name = "lines"
    extensions = (".lines",)

    def can_read(self, path):
        return True if path.suffix == ".lines" else "the extension is not .lines"

    def read(self, path, **options):
        try:
            table = np.array([line.split() for line in path.read_text(encoding="utf-8").splitlines()], dtype=float)
            recording = Recording.from_arrays(table[:, 0], table[:, 1].astype(int), unit="s", stop_s=1.0)
        except (ValueError, IndexError) as error:
            raise ReadError(f"{path} is no table of times and neurons: {error}") from error
        return replace(recording, source=replace(recording.source, reader=self.name))


class LetsErrorsThrough(Lines):
    def read(self, path, **options):
        table = np.array([line.split() for line in path.read_text(encoding="utf-8").splitlines()], dtype=float)
        return Recording.from_arrays(*table.T, unit="s")


class AcceptsEverything(Lines):
    def can_read(self, path):
        return True

    def read(self, path, **options):
        return Recording.from_counts(np.zeros((3, 1), dtype=int), dt_ms=1.0)


def test_sound_reader_conforms_on_an_example(tmp_path):
    example = tmp_path / "three.lines"
    example.write_text("0.1 0\n0.2 1\n0.3 0\n", encoding="utf-8")
    assert "reading an example" in check_reader(Lines, example, n_spikes=3).passed
    with pytest.raises(ConformanceError, match="has 3 spikes; the example holds 4"):
        check_reader(Lines, Path(example), n_spikes=4)


class ForgetsTheDot(Lines):
    extensions = ("lines",)


READERS = {
    LetsErrorsThrough: "errors of broken files",
    AcceptsEverything: "refusal of other files",
    ForgetsTheDot: "extensions",
}


@pytest.mark.parametrize(("reader", "check"), READERS.items(), ids=lambda x: getattr(x, "__name__", None))
def test_fault_of_a_reader_is_found(reader, check):
    assert check in failed_checks(check_reader, reader)


def test_error_of_ours_in_a_check_is_reported_without_a_place():
    class Refuses(EscapeLIF):
        def param_specs(self, n_neurons):
            raise InvalidInputError("not today")

    with pytest.raises(ConformanceError, match=r"parameter specs: raised InvalidInputError: not today$"):
        check_neuron_model(Refuses)


FOUND = {
    "check_neuron_model": {*NEURONS.values(), "replay of a free run", "reset apart from other effects of a spike"},
    "check_model": {*MODELS.values()},
    "check_statistic": {*STATISTICS.values()},
    "check_loss": {*LOSSES.values()},
    # that there is no toy to learn is no fault of a rule
    "check_learning_rule": {*(check for _, check in RULES.values()), *WHOLE_RULES.values(), "a model to learn"},
    "check_update_transform": {*TRANSFORMS.values()},
    "check_hardware_target": {*TARGETS.values()},
    "check_dataset": {*DATASETS.values()},
    "check_reader": {*READERS.values(), "reading an example"},
}


@pytest.mark.parametrize("suite", FOUND)
def test_every_check_finds_some_fault(suite):
    """Checks that a test of their own covers are named by hand above."""
    page = (Path(__file__).parents[2] / "docs" / "plugins" / "testing.md").read_text(encoding="utf-8")
    listed = re.search(rf"^\| `{suite}` \| (.*) \|$", page, re.MULTILINE)[1].split(", ")
    assert [check for check in listed if check not in FOUND[suite]] == []
