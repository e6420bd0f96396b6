"""The checks of a neuron model: shapes, purity, symmetry, gradients, replay, linear form."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fitspike.learning.nest import leaves, map_tensors
from fitspike.neurons.base import LinearForm, NeuronModel
from fitspike.neurons.emissions import NEVER_DRIVE, get_emission
from fitspike.params import ParamSpec, constrain, initial_params, to_raw
from fitspike.plugin.conformance.report import Mismatch, NotChecked, Outcome, Report, expect, instance_of
from fitspike.plugin.conformance.toys import SEED, perturbed
from fitspike.plugin.kinds import KINDS
from fitspike.rng import Stream
from fitspike.rollout import Driven, rollout
from fitspike.types import Params
from fitspike.units import check_parameter_unit

_DT_MS = 1.0
_SIZES = ((1, 1), (1, 3), (3, 1), (3, 3))  # (n_trials, n_neurons)
_N_BINS = 60
# A neuron's unit of current is its own; try until it fires now and then.
_CURRENT_SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 0.1, 0.01, 300.0, 1000.0)


def check_neuron_model(neuron: Any) -> Outcome:
    """Check a neuron model, given as a class or an object, and return what passed.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    kind = KINDS["neuron_models"]
    report = Report(f"neuron model {getattr(neuron, 'name', neuron)!r}")
    neuron = instance_of(report, neuron, kind)
    if neuron is None:
        return report.outcome()
    report.check("parameter specs", _check_specs, neuron, needs=("members",))
    runs = ("members", "parameter specs", "shapes and types")
    report.check("constraints round trip", _check_round_trip, neuron, needs=runs[:2])
    report.check("shapes and types", _check_shapes, neuron, needs=runs[:2])
    report.check("device of the parameters", _check_device, neuron, needs=runs)
    report.check("no side effects", _check_purity, neuron, needs=runs)
    report.check("no dependence between trials", _check_trials, neuron, needs=runs)
    report.check("no dependence between neurons", _check_neurons, neuron, needs=runs)
    report.check("no dependence on neuron order", _check_order, neuron, needs=runs)
    report.check("several spikes in a bin", _check_counts, neuron, needs=runs)
    report.check("gradient of the clamped likelihood", _check_gradient, neuron, needs=runs)
    report.check("replay of a free run", _check_replay, neuron, needs=runs)
    report.check("chunks of a run", _check_chunks, neuron, needs=runs)
    if hasattr(neuron, "linear_form"):
        report.check("linear form", _check_linear_form, neuron, needs=runs)
    if hasattr(neuron, "step_with_reset"):
        report.check("reset apart from other effects of a spike", _check_separate_reset, neuron, needs=runs)
    if hasattr(neuron, "params_for_count"):
        report.check("parameters for a count", _check_params_for_count, neuron, needs=runs)
    return report.outcome()


# -- what the checks run on ---------------------------------------------------------------------------------------------------------


def _raw(neuron: NeuronModel, n_neurons: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    specs = neuron.param_specs(n_neurons)
    values = initial_params(specs, Stream(SEED, "conformance/init"))
    return perturbed(to_raw(specs, values, dtype=dtype))


def _params(neuron: NeuronModel, n_neurons: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    specs = neuron.param_specs(n_neurons)
    return {name: value.detach() for name, value in constrain(specs, _raw(neuron, n_neurons, dtype)).items()}


def _uniforms(n_trials: int, n_bins: int, n_neurons: int, name: str = "spikes") -> torch.Tensor:
    return torch.as_tensor(Stream(SEED, f"conformance/{name}").uniforms(n_trials, range(n_bins), n_neurons))


def _spikes(n_trials: int, n_bins: int, n_neurons: int) -> torch.Tensor:
    return (_uniforms(n_trials, n_bins, n_neurons, "observed") < 0.2).double()


def _current(n_trials: int, n_bins: int, n_neurons: int, scale: float = 1.0) -> torch.Tensor:
    return 3.0 * scale * _uniforms(n_trials, n_bins, n_neurons, "current")


def _run(neuron: NeuronModel, params: Params, current: torch.Tensor, *, backend: str = "step", **how: Any) -> Driven:
    """Run bin by bin unless told otherwise: with a linear form the kernel would run, and `step` would go unchecked."""
    return rollout(neuron, params, get_emission("bernoulli"), current=current, dt_ms=_DT_MS, backend=backend, **how)


def _paths(neuron: NeuronModel) -> tuple[str, ...]:
    """Return the backends that can drive this neuron model."""
    return ("step", "auto") if hasattr(neuron, "linear_form") else ("step",)


def _firing_current(neuron: NeuronModel, params: Params, uniforms: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return a current at which the neurons spike in some bins but not in most, and the fraction of bins with a spike."""
    tried = []
    for scale in _CURRENT_SCALES:
        current = _current(*uniforms.shape, scale)
        fraction = float(_run(neuron, params, current, uniforms=uniforms).spikes.mean())
        if 0.02 <= fraction <= 0.6:
            return current, fraction
        tried.append((abs(fraction - 0.2), scale, fraction))
    _, scale, fraction = min(tried)
    return _current(*uniforms.shape, scale), fraction


# -- the checks ---------------------------------------------------------------------------------------------------------------------


def _check_specs(neuron: NeuronModel) -> None:
    for n_neurons in (1, 3):
        specs = neuron.param_specs(n_neurons)
        expect(isinstance(specs, Mapping), f"param_specs({n_neurons}) returns {type(specs).__name__}; expected a mapping of ParamSpec.")
        for name, spec in specs.items():
            expect(isinstance(spec, ParamSpec), f"parameter {name!r} is {type(spec).__name__}; expected ParamSpec.")
            expect(name.isidentifier(), f"parameter name {name!r} is no identifier.")
            check_parameter_unit(spec.unit)
            shape = tuple(spec.shape)
            expect(
                bool(shape) and shape[0] == n_neurons,
                f"parameter {name!r} has shape {shape} for {n_neurons} neurons; its first axis must be the neuron.",
            )
    expect(bool(specs), "there is no parameter. Without one a model cannot tell device and type.")


def _check_round_trip(neuron: NeuronModel) -> None:
    specs = neuron.param_specs(3)
    for name, value in initial_params(specs, Stream(SEED, "conformance/init")).items():
        constraint = specs[name].constraint
        back = constraint.constrain(constraint.unconstrain(torch.as_tensor(value))).numpy()
        expect(
            np.allclose(back, value, rtol=1e-6, atol=1e-6),
            f"initial {name} = {value.ravel()[:3]} becomes {back.ravel()[:3]} when made raw and constrained again ({constraint.kind}).",
        )


def _check_shapes(neuron: NeuronModel) -> None:
    for dtype in (torch.float32, torch.float64):
        for n_trials, n_neurons in _SIZES:
            params = _params(neuron, n_neurons, dtype)
            state = neuron.init_state(params, n_trials)
            before = leaves(state)
            for tensor in before:
                expect(
                    tensor.shape[:1] == (n_trials,),
                    f"init_state for {n_trials} trials holds a tensor of shape {tuple(tensor.shape)}; its first axis must be the trial.",
                )
            for bin_number in range(3):
                current, spikes = (x[:, bin_number].to(dtype) for x in (_current(n_trials, 3, n_neurons), _spikes(n_trials, 3, n_neurons)))
                result = neuron.step(params, state, current, spikes, _DT_MS)
                expect(isinstance(result, tuple) and len(result) == 2, "step must return (state, drive).")
                state, drive = result
                expect(
                    isinstance(drive, torch.Tensor) and drive.shape == (n_trials, n_neurons),
                    f"drive has shape {tuple(getattr(drive, 'shape', ()))}; expected (n_trials, n_neurons) = {(n_trials, n_neurons)}.",
                )
                expect(
                    drive.dtype == dtype, f"drive is {drive.dtype} with parameters of {dtype}. Make new tensors with the parameters' type."
                )
                expect(bool(torch.isfinite(drive).all()), f"drive is not finite in bin {bin_number}: {drive.flatten()[:4].tolist()}.")
                after = leaves(state)
                expect(
                    [x.shape for x in after] == [x.shape for x in before],
                    f"the state's shapes change from {[tuple(x.shape) for x in before]} to {[tuple(x.shape) for x in after]} in a step.",
                )
                expect(
                    [x.dtype for x in after] == [x.dtype for x in before],
                    f"the state's types change from {[x.dtype for x in before]} to {[x.dtype for x in after]} in a step.",
                )


def _check_device(neuron: NeuronModel) -> None:
    """Run one step on another device: a GPU if there is one, else torch's "meta" device, which has shapes but no numbers."""
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    params = {name: value.to(device) for name, value in _params(neuron, 3).items()}
    try:
        state = neuron.init_state(params, 2)
        stays = [x.device.type for x in leaves(state) if x.device.type != device.type]
        expect(not stays, f"init_state makes tensors on {stays[:1]} with parameters on {device}. Use params[...].new_zeros and its like.")
        given = torch.zeros(2, 3, dtype=torch.float64, device=device)
        state, drive = neuron.step(params, state, given, given, _DT_MS)
    except (RuntimeError, NotImplementedError) as error:
        if device.type == "meta" and "meta" in str(error) and ("item" in str(error) or "data-dependent" in str(error)):
            raise NotChecked("step looks at values of tensors, which only a GPU could show to be right") from error
        raise Mismatch(f"with parameters on {device}: {error}. Make new tensors with params[...].new_zeros and its like.") from error
    stays = [x.device.type for x in [*leaves(state), drive] if x.device.type != device.type]
    expect(not stays, f"step makes tensors on {stays[:1]} with parameters on {device}.")


def _check_purity(neuron: NeuronModel) -> None:
    params = _params(neuron, 3)
    state = neuron.init_state(params, 2)
    current, spikes = _current(2, 1, 3)[:, 0], torch.ones(2, 3, dtype=torch.float64)
    # A step first, so that the state has a past.
    state, _ = neuron.step(params, state, current, spikes, _DT_MS)
    given = {"params": dict(params), "state": state, "current": current, "spikes": spikes}
    copies = map_tensors(given, torch.clone)
    _, first = neuron.step(params, state, current, spikes, _DT_MS)
    for name in given:
        same = all(torch.equal(a, b) for a, b in zip(leaves(given[name]), leaves(copies[name]), strict=True))
        expect(same, f"step changes the {name} it is given. Return new tensors instead of changing them in place.")
    _, second = neuron.step(params, state, current, spikes, _DT_MS)
    expect(
        torch.equal(first, second), "two equal steps return different drives. Randomness belongs to the emission, memory into the state."
    )


def _check_trials(neuron: NeuronModel) -> None:
    params = _params(neuron, 3)
    current, spikes = _current(3, 20, 3), _spikes(3, 20, 3)
    drive = _run(neuron, params, current, observed=spikes).drive
    current, spikes = current.clone(), spikes.clone()
    current[0] += 1.0
    spikes[0] = 1.0 - spikes[0]
    changed = _run(neuron, params, current, observed=spikes).drive
    worst = float((drive[1:] - changed[1:]).abs().max())
    expect(worst == 0.0, f"changing trial 0 changes the drive of other trials by up to {worst:g}.")
    alone = _run(neuron, params, current[1:2], observed=spikes[1:2]).drive
    worst = float((alone - changed[1:2]).abs().max())
    expect(worst <= 1e-12, f"a trial alone and the same trial among others differ by up to {worst:g} in drive.")


def _check_neurons(neuron: NeuronModel) -> None:
    """Change parameters, current and spikes of neuron 0 alone: a mean over neurons would not show in another order."""
    specs, raw = neuron.param_specs(3), _raw(neuron, 3)
    first = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    moved = {name: value + 0.1 * first.reshape(-1, *[1] * (value.ndim - 1)) for name, value in raw.items()}
    current, spikes = _current(2, 20, 3), _spikes(2, 20, 3)
    other_spikes = torch.where(first > 0, 1.0 - spikes, spikes)
    plain, changed = (
        _run(neuron, {name: value.detach() for name, value in constrain(specs, own).items()}, given, observed=seen).drive[..., 1:]
        for own, given, seen in ((raw, current, spikes), (moved, current + first, other_spikes))
    )
    worst = float((plain - changed).abs().max())
    expect(
        worst == 0.0,
        f"changing parameters, current and spikes of neuron 0 changes the drive of others by up to {worst:g}. Neurons act on one another "
        "through currents, which the network makes.",
    )


def _check_order(neuron: NeuronModel) -> None:
    params, order = _params(neuron, 3), torch.tensor([2, 0, 1])
    current, spikes = _current(2, 20, 3), _spikes(2, 20, 3)
    drive = _run(neuron, params, current, observed=spikes).drive
    permuted = {name: value[order] for name, value in params.items()}
    again = _run(neuron, permuted, current[..., order], observed=spikes[..., order]).drive
    worst = float((drive[..., order] - again).abs().max())
    expect(worst <= 1e-10, f"neurons in another order have drives that differ by up to {worst:g}: some neuron looks at another one.")


def _check_counts(neuron: NeuronModel) -> None:
    params = _params(neuron, 3)
    drive = _run(neuron, params, _current(2, 20, 3), observed=3.0 * _spikes(2, 20, 3)).drive
    expect(bool(torch.isfinite(drive).all()), "drive is not finite after bins with 3 spikes, which a Poisson emission may give.")


def _check_gradient(neuron: NeuronModel) -> None:
    specs = neuron.param_specs(2)
    raw = _raw(neuron, 2)
    names = [name for name, spec in specs.items() if spec.trainable]
    spikes, emission = _spikes(2, 8, 2), get_emission("bernoulli")

    def log_likelihood(current: torch.Tensor, *trained: torch.Tensor) -> torch.Tensor:
        params = constrain(specs, {**raw, **dict(zip(names, trained, strict=True))})
        drive = _run(neuron, params, current, observed=spikes).drive
        return emission.log_prob(drive, spikes, _DT_MS).sum()

    inputs = (_current(2, 8, 2).requires_grad_(), *(raw[name] for name in names))
    total = log_likelihood(*inputs)
    expect(total.requires_grad, "the drive does not depend on parameters or current in a way torch can follow (detach, numpy, .item()?).")
    try:
        torch.autograd.gradcheck(log_likelihood, inputs, eps=1e-6, atol=1e-5, rtol=1e-3)
    except RuntimeError as error:
        which = ["current", *names]
        found = [f"{which[int(word.rstrip('.,'))]!r}" for word in _words_after(str(error), "input") if word.rstrip(".,").isdigit()]
        raise Mismatch(
            f"torch's gradient disagrees with finite differences in float64{' for ' + found[0] if found else ''}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


def _words_after(text: str, word: str) -> list[str]:
    words = text.split()
    return [after for before, after in zip(words, words[1:], strict=False) if before == word]


def _check_replay(neuron: NeuronModel) -> None:
    params, uniforms, emission = _params(neuron, 3), _uniforms(2, _N_BINS, 3), get_emission("bernoulli")
    current, fraction = _firing_current(neuron, params, uniforms)
    for backend in _paths(neuron):
        free = _run(neuron, params, current, uniforms=uniforms, backend=backend)
        clamped = _run(neuron, params, current, observed=free.spikes, backend=backend)
        difference = emission.log_prob(free.drive, free.spikes, _DT_MS).sum() - emission.log_prob(clamped.drive, free.spikes, _DT_MS).sum()
        expect(float(difference) == 0.0, f"replaying a free run clamped changes its log-likelihood by {float(difference):g}; expected 0.")
        mask = torch.tensor([True, False, True])
        mixed = _run(neuron, params, current, uniforms=uniforms, observed=free.spikes, observed_mask=mask, backend=backend)
        expect(torch.equal(mixed.spikes, free.spikes), "clamping two of three neurons to their own spikes changes the third one's.")
    if not 0.0 < fraction < 1.0:
        raise NotChecked(f"no current tried made the neurons spike now and then ({fraction:.0%} of bins)")


def _check_chunks(neuron: NeuronModel) -> None:
    params, uniforms = _params(neuron, 3), _uniforms(2, _N_BINS, 3)
    current, _ = _firing_current(neuron, params, uniforms)
    for backend, n_bins in itertools.product(_paths(neuron), (1, 7)):
        whole = _run(neuron, params, current, uniforms=uniforms, backend=backend)
        parts, carry = [], None
        for first in range(0, _N_BINS, n_bins):
            bins = slice(first, first + n_bins)
            part = _run(neuron, params, current[:, bins], uniforms=uniforms[:, bins], carry=carry, backend=backend)
            parts.append(part)
            carry = part.carry
        expect(
            torch.equal(torch.cat([part.spikes for part in parts], dim=1), whole.spikes)
            and torch.equal(torch.cat([part.drive for part in parts], dim=1), whole.drive),
            f"a run in chunks of {n_bins} bins differs from the run in one piece: something is kept outside the state.",
        )


def _check_separate_reset(neuron: Any) -> None:
    params, nothing = _params(neuron, 3), torch.zeros(2, 3, dtype=torch.float64)
    state = neuron.init_state(params, 2)
    for current, spikes in zip(_current(2, 5, 3).unbind(1), _spikes(2, 5, 3).unbind(1), strict=True):
        both = neuron.step_with_reset(params, state, current, spikes, spikes, _DT_MS)
        plain = neuron.step(params, state, current, spikes, _DT_MS)
        same = all(torch.equal(a, b) for a, b in zip([*leaves(both[0]), both[1]], [*leaves(plain[0]), plain[1]], strict=True))
        expect(same, "step_with_reset with the same spikes for both differs from step.")
        state = plain[0]
    ones = torch.ones_like(nothing)
    full, without = (neuron.step_with_reset(params, state, nothing, ones, reset_spikes, _DT_MS)[0] for reset_spikes in (ones, nothing))
    has_reset = any(not torch.equal(a, b) for a, b in zip(leaves(full), leaves(without), strict=True))
    expect(has_reset, "reset_spikes change nothing in step_with_reset. Leave the method out if there is no reset.")


def _check_params_for_count(neuron: Any) -> None:
    specs = neuron.param_specs(3)
    emission = get_emission("bernoulli")
    wanted = torch.tensor([0.01, 0.05, 0.2], dtype=torch.float64)
    given = neuron.params_for_count(wanted, emission, _DT_MS)
    params = {name: torch.as_tensor(value) for name, value in initial_params(specs, Stream(SEED, "conformance/init"), given).items()}
    nothing = torch.zeros(1, 3, dtype=torch.float64)
    _, drive = neuron.step(params, neuron.init_state(params, 1), nothing, nothing, _DT_MS)
    found = emission.expected(drive, _DT_MS)[0]
    expect(
        bool(torch.allclose(found, wanted, rtol=1e-3)),
        f"without input and spikes the expected counts are {found.tolist()}; params_for_count was asked for {wanted.tolist()}.",
    )


# -- linear form --------------------------------------------------------------------------------------------------------------------


@dataclass
class _LinearNeuron:
    """Runs a LinearForm as its docstring says, with the interface of a neuron model."""

    form: LinearForm

    def init_state(self, params: Params, n_trials: int) -> tuple[torch.Tensor, torch.Tensor]:
        n_neurons = next(iter(params.values())).shape[0]
        n_components = self.form.decay.shape[0]
        start = torch.zeros(n_components, n_neurons, dtype=torch.float64)
        if self.form.initial is not None:
            start = start + _per_neuron(self.form.initial)
        return start.expand(n_trials, -1, -1), torch.zeros(n_trials, n_neurons, dtype=torch.float64)

    def step(self, params: Params, state: Any, current: torch.Tensor, spikes: torch.Tensor, dt_ms: float) -> tuple[Any, torch.Tensor]:
        form = self.form
        components, bins_left = state  # (n_trials, D, n_neurons), (n_trials, n_neurons)
        z = spikes[:, None]
        if form.reset != "none":
            chosen = list(form.reset_components)
            value = torch.zeros(()) if form.reset_value is None else form.reset_value
            before = components[:, chosen]
            after = before - value * z if form.reset == "subtract" else before + (value - before) * z.clamp(max=1.0)
            components = components.clone()
            components[:, chosen] = after
        components = _per_neuron(form.decay) * components + _per_neuron(form.gain) * current[:, None] + _per_neuron(form.jump) * z
        drive = (_per_neuron(form.readout) * components).sum(1) + form.bias
        if form.n_refractory:
            bins_left = torch.where(spikes > 0, float(form.n_refractory), (bins_left - 1.0).clamp_min(0.0))
            drive = torch.where(bins_left > 0, NEVER_DRIVE, drive)
        return (components, bins_left), drive


def _per_neuron(value: torch.Tensor) -> torch.Tensor:
    """Return (D,) or (D, n_neurons) so that it broadcasts against (n_trials, D, n_neurons)."""
    return value[:, None] if value.ndim == 1 else value


def _check_linear_form(neuron: Any) -> None:
    params, uniforms = _params(neuron, 3), _uniforms(2, _N_BINS, 3)
    current, _ = _firing_current(neuron, params, uniforms)
    for dt_ms in (1.0, 0.5):
        form = neuron.linear_form(params, dt_ms)
        expect(isinstance(form, LinearForm), f"linear_form returns {type(form).__name__}; expected LinearForm.")
        expect(form.reset in ("none", "subtract", "to_value"), f"reset={form.reset!r} is unknown. Use 'none', 'subtract' or 'to_value'.")
        observed = _spikes(2, _N_BINS, 3)
        step, by_form, fast = (
            rollout(one, params, get_emission("bernoulli"), current=current, dt_ms=dt_ms, observed=observed, backend=backend).drive
            for one, backend in ((neuron, "step"), (_LinearNeuron(form), "step"), (neuron, "auto"))
        )
        for drive, whose in ((by_form, "the linear form's drive"), (fast, "the drive on the fast path")):
            worst = float((step - drive).abs().max())
            expect(worst <= 1e-9, f"with dt_ms={dt_ms} {whose} differs from step's by up to {worst:g}; expected 1e-9.")
