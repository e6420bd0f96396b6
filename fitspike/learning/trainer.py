"""Training by steps: a rule's directions, an optimiser, update transforms, and everything needed to stop and to go on bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from fitspike.errors import InvalidInputError, counted
from fitspike.learning.base import Batch, HasReparametrisation, LearningRule, RawParams, UpdateStep, UpdateTransform
from fitspike.learning.batches import cut_long_trials, ordered_chunks
from fitspike.learning.checkpoint import Training, copy_raw, restore
from fitspike.learning.checkpoint import to_arrays as to_checkpoint
from fitspike.learning.optimisers import OptimiserSlots, learning_rate_at, make_optimiser
from fitspike.learning.stopping import LARGEST, StopRule, Watch, diverged, limit_reached
from fitspike.losses.base import HasCheck
from fitspike.losses.total import WeightedLosses, record_all
from fitspike.models.base import Model, SolverContext, SolverReport
from fitspike.params import ParamSpec, constrain, to_arrays, to_raw
from fitspike.recording.binned import BinnedSpikes, SpikeChunk
from fitspike.rng import Stream
from fitspike.types import ParamArrays

DEFAULT_MAX_STEPS = 1000
DEFAULT_MAX_BINS = 1000


@dataclass(frozen=True)
class TrainSettings:
    """Settings of gradient training.

    n_bins, n_trials, carry : chunk of one step; None: whole trials, at most 1000 bins. With `carry` the state is handed on along a trial.
    optimiser, learning_rate, optimiser_options : an optimiser of torch.optim by name
    schedule, final_fraction : "cosine" from the learning rate to that fraction of it over the steps, or "constant"
    clip_norm : longest direction, over all parameters together; longer ones are shortened
    patience, min_improvement : log points without that relative improvement which make a plateau; of the training loss, the mean over
        the last `patience` log points is watched
    validation_fraction : part of the training data set aside, in blocks, to watch for the plateau and to choose the parameters kept;
        0 watches the training loss and keeps the last parameters
    log_every : steps per log point
    n_free_trials : freely simulated trials per step, for losses that need them; None: as many as `n_trials`
    precision : "float32" or "float64", of parameters and states; device : a torch device
    """

    n_bins: int | None = None
    n_trials: int = 8
    carry: bool = True
    optimiser: str = "adam"
    learning_rate: float = 0.01
    optimiser_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "cosine"
    final_fraction: float = 0.05
    clip_norm: float | None = None
    patience: int = 20
    min_improvement: float = 1e-5
    validation_fraction: float = 0.0
    log_every: int = 10
    n_free_trials: int | None = None
    precision: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "float64"):
            raise InvalidInputError(f"precision={self.precision!r}. Use 'float32' or 'float64'.")
        if not 0.0 <= self.validation_fraction <= 0.5:
            raise InvalidInputError(f"validation_fraction={self.validation_fraction} is outside [0, 0.5].")
        if self.log_every < 1 or self.n_trials < 1 or (self.n_bins is not None and self.n_bins < 1):
            raise InvalidInputError(f"log_every={self.log_every}, n_trials={self.n_trials} and n_bins={self.n_bins} must be at least 1.")
        learning_rate_at(0, 1, self.learning_rate, self.schedule, self.final_fraction)


def train(
    model: Model,
    specs: Mapping[str, ParamSpec],
    binned: BinnedSpikes,
    losses: WeightedLosses,
    rule: LearningRule,
    transforms: Sequence[UpdateTransform],
    settings: TrainSettings,
    context: SolverContext,
) -> tuple[ParamArrays, SolverReport]:
    """Train a model by steps and return its constrained parameters and how it went.

    Each step: the rule's directions on one chunk, the optimiser's proposed update, the update transforms in their order. A loss, direction
    or parameter that is not finite, or a loss or gradient of senseless size, ends the run with the parameters from before that step. The
    state handed to `context.checkpoint` at every log point is complete: a run resumed from it ends with the same parameters, bit for bit,
    as one never interrupted (at one number of threads).

    Parameters
    ----------
    losses : name -> (loss, weight)
    context : its `init` are the constrained starting values, its `max_steps` is 1000 where it is None; its `settings` are not used

    Returns
    -------
    constrained parameters, float64; SolverReport with status PLATEAU, STEP_LIMIT, TIME_LIMIT, DIVERGED or INTERRUPTED
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, context.threads))
    try:
        return _Run(model, specs, binned, losses, rule, transforms, settings, context).run()
    finally:
        torch.set_num_threads(threads_before)


class _Run:
    """One training run: what stays the same over its steps, and `Training`, which is what changes."""

    def __init__(
        self,
        model: Model,
        specs: Mapping[str, ParamSpec],
        binned: BinnedSpikes,
        losses: WeightedLosses,
        rule: LearningRule,
        transforms: Sequence[UpdateTransform],
        settings: TrainSettings,
        context: SolverContext,
    ) -> None:
        if context.backend != "auto" and is_dataclass(model) and getattr(model, "backend", None) == "auto":
            model = replace(model, backend=context.backend)
        self.model, self.own_specs, self.settings, self.context = model, specs, settings, context
        self.transforms = tuple(transforms)
        for transform in self.transforms:
            if isinstance(transform, HasReparametrisation):
                specs = transform.reparametrise(specs)
        self.specs = specs
        self.stop = StopRule(context.max_steps or DEFAULT_MAX_STEPS, context.deadline_s, settings.patience, settings.min_improvement)
        self.n_free_trials = settings.n_free_trials or settings.n_trials
        self.n_bins = settings.n_bins or min(DEFAULT_MAX_BINS, max(1, int(binned.bins_per_trial.max(initial=1))))
        self.validation = None
        # Trials that repeat each other stay whole: pieces of them would be compared with other parts of the stimulus.
        has_repeats = binned.info().has_repeats
        if settings.validation_fraction > 0:
            binned, self.validation = _set_aside(binned, settings.validation_fraction, losses, model)
        self.binned = binned if has_repeats else cut_long_trials(binned, self.n_bins, settings.n_trials)
        if self.binned.n_scored_bins == 0:
            raise InvalidInputError("there is no bin to train on. Check the selection, the split and the trials' durations.")
        self.bound = rule.bind(model, specs, losses, self.binned.info(), context.stream.child("rule"))
        self.recorded = record_all(losses, self.binned)
        self.trained = [name for name, spec in specs.items() if spec.trainable]
        self.is_between_steps = True
        self.started_s = time.monotonic()
        self.training = self._start(binned)

    def _start(self, binned: BinnedSpikes) -> Training:
        """Return the state before the first step, or the resumed one."""
        settings, context = self.settings, self.context
        raw = to_raw(self.specs, self._initial(binned), getattr(torch, settings.precision), settings.device)
        tensors = [raw[name] for name in self.trained]
        optimiser = make_optimiser(settings.optimiser, tensors, settings.learning_rate, settings.optimiser_options)
        states, begin = [], copy_raw(raw)
        for i, transform in enumerate(self.transforms):
            changed, state = transform.init(self.own_specs, begin, context.stream.child(f"transforms/{i}/init"))
            begin = {**begin, **changed}
            states.append(state)
        _put(raw, begin)
        window = 1 if self.validation is not None else max(1, settings.patience)
        training = Training(raw, optimiser, states, watch=Watch(window))
        if context.resume is not None:
            restore(training, self.trained, self.bound, context.resume, self._carry_template)
        return training

    def _initial(self, binned: BinnedSpikes) -> dict[str, np.ndarray]:
        """Return the starting values, with what the model takes from the data where nothing else was given."""
        init = dict(self.context.init)
        if hasattr(self.model, "params_from_data"):
            for name, value in self.model.params_from_data(binned).items():
                default = self.specs[name].init
                if np.isscalar(default) and (np.asarray(init[name]) == default).all():
                    init[name] = value
        return init

    def _carry_template(self, training: Training) -> Any:
        """Return a carry such as the rule made of the last chunk, found by asking it for directions on that chunk once more."""
        _, _, chunk = next(self._chunks(training.epoch, training.position))
        probe = Batch(chunk, None, self.context.stream.child("probe"), recorded=self.recorded, n_free_trials=self.n_free_trials)
        self.bound.directions(training.raw, probe)
        return probe.new_carry

    def _chunks(self, epoch: int, position: int) -> Iterator[tuple[int, int, SpikeChunk]]:
        settings = self.settings
        return ordered_chunks(
            self.binned,
            n_bins=self.n_bins,
            n_trials=settings.n_trials,
            carry=settings.carry,
            stream=self.context.stream.child("order"),
            epoch=epoch,
            position=position,
        )

    def run(self) -> tuple[ParamArrays, SolverReport]:
        """Take steps until something says stop."""
        training, context = self.training, self.context
        rows: list[dict[str, float]] = []
        try:
            status, message, kept = self._run_steps(rows)
        except KeyboardInterrupt:
            status, message, kept = "INTERRUPTED", f"{counted(training.step, 'step')} taken.", training.raw
        if self.is_between_steps:
            context.checkpoint(training.step, to_checkpoint(training, self.trained, self.bound))
        if training.best_raw is not None and status != "DIVERGED":
            kept = training.best_raw
        with torch.no_grad():
            params = to_arrays(constrain(self.specs, kept))
        return params, SolverReport(status, message, training.step, tuple(rows))

    def _run_steps(self, rows: list[dict[str, float]]) -> tuple[str, str, RawParams]:
        """Return status, message and the raw parameters to keep; adds a row per log point."""
        training, context = self.training, self.context
        last_good = copy_raw(training.raw)
        for epoch, position, chunk in self._chunks(training.epoch, training.position + 1):
            if training.watch.is_plateau(self.stop):
                return "PLATEAU", f"No improvement over {counted(training.watch.n_stale, 'log point')}.", training.raw
            if (status := limit_reached(training.step, self.stop)) is not None:
                return status, f"{counted(training.step, 'step')} taken.", training.raw
            before = copy_raw(training.raw)
            self.is_between_steps = False
            metrics = self._step(chunk, before)
            if bad := diverged(metrics):
                return "DIVERGED", f"{', '.join(bad)} passed {LARGEST:g} or became NaN at step {training.step + 1}.", last_good
            last_good = before
            training.epoch, training.position, training.step = epoch, position, training.step + 1
            training.add_metrics(metrics)
            self.is_between_steps = True
            if self._is_log_point(training.step):
                rows.append(self._log_point())
                context.checkpoint(training.step, to_checkpoint(training, self.trained, self.bound))
                context.report(training.step, rows[-1])
        raise AssertionError("chunks never end")

    def _step(self, chunk: SpikeChunk, before: RawParams) -> dict[str, float]:
        """Change the parameters, `before` being a copy of them, and return the step's metrics, one of them not finite if it failed."""
        training, settings = self.training, self.settings
        rng = self.context.stream.child(f"step/{training.step}")
        carry = training.carry if settings.carry and not chunk.is_first else None
        batch = Batch(
            chunk,
            carry,
            rng,
            recorded=self.recorded,
            n_free_trials=self.n_free_trials,
            wants_term_norms=self._is_log_point(training.step + 1),
        )
        directions, metrics = self.bound.directions(training.raw, batch)
        norm = math.sqrt(sum(float(direction.double().square().sum()) for direction in directions.values()))
        metrics = {**metrics, "gradient_norm": norm}
        if diverged(metrics):
            return metrics
        shrink = min(1.0, settings.clip_norm / norm) if settings.clip_norm and norm > 0 else 1.0
        rate = learning_rate_at(training.step, self.stop.max_steps, settings.learning_rate, settings.schedule, settings.final_fraction)
        for group in training.optimiser.param_groups:
            group["lr"] = rate
        for name in self.trained:
            training.raw[name].grad = directions[name] * shrink
        training.optimiser.step()
        training.optimiser.zero_grad()
        if self.transforms:
            self._transform(before, chunk, rate, rng)
        n_bad = sum(int((~torch.isfinite(training.raw[name])).sum()) for name in self.trained)
        training.carry = batch.new_carry
        return {**metrics, "learning_rate": rate, **({"parameters": math.nan} if n_bad else {})}

    def _is_log_point(self, step: int) -> bool:
        """Return whether a row is logged and a checkpoint written after that many steps."""
        return step % self.settings.log_every == 0 or step == self.stop.max_steps

    def _transform(self, before: RawParams, chunk: SpikeChunk, rate: float, rng: Stream) -> None:
        """Let the update transforms decide what becomes of the optimiser's step."""
        training = self.training
        after = copy_raw(training.raw)
        slots = OptimiserSlots(training.optimiser, {name: training.raw[name] for name in self.trained})
        for i, transform in enumerate(self.transforms):
            update = {name: after[name] - before[name] for name in self.trained}
            step = UpdateStep(training.step, self.stop.max_steps, rate, chunk.signals, rng.child(f"transform/{i}"), slots)
            changed, training.transform_states[i] = transform.apply(training.transform_states[i], before, update, step)
            after = {**after, **changed}
        _put(training.raw, after)

    def _log_point(self) -> dict[str, float]:
        """Return the row of a log point, and note whether the watched loss improved."""
        training = self.training
        row = {"step": float(training.step), "epoch": float(training.epoch), **training.take_means()}
        if self.validation is not None:
            row["validation_nll"] = self._validation_nll()
        is_better = training.watch.update(row.get("validation_nll", row["loss"]), self.stop)
        if is_better and self.validation is not None:
            training.best_raw = copy_raw(training.raw)
        row["wall_s"] = time.monotonic() - self.started_s
        return row

    @torch.no_grad()
    def _validation_nll(self) -> float:
        """Return the negative log-likelihood of the data set aside, nats per spike-bin."""
        params = constrain(self.specs, self.training.raw)
        total, n_scored, carry = 0.0, 0, None
        stream = self.context.stream.child("validation")
        for chunk in self.validation.chunks(self.n_bins, batch_trials=self.settings.n_trials, carry=True):
            log_likelihood, carry = self.model.log_likelihood(params, chunk, None if chunk.is_first else carry, stream)
            total -= float(log_likelihood.sum())
            n_scored += int(chunk.mask_numpy.sum()) * chunk.n_neurons
        return total / max(1, n_scored)


def _set_aside(binned: BinnedSpikes, fraction: float, losses: WeightedLosses, model: Model) -> tuple[BinnedSpikes, BinnedSpikes]:
    """Return the training data without, and the part set aside to validate; whole trials where free runs may be compared with repeats.

    Raises
    ------
    InvalidInputError
        If a loss makes no sense for what is left.
    """
    n_folds = max(2, round(1.0 / fraction))
    if binned.info().has_repeats and any("rollout" in loss.needs for loss, _ in losses.values()):
        n_folds = min(n_folds, binned.n_trials)
    training, validation = binned.folds(n_folds)[0]
    for loss, _ in losses.values():
        if not isinstance(loss, HasCheck):
            continue
        try:
            loss.check(training, model)
        except InvalidInputError as error:
            raise type(error)(f"with validation_fraction={fraction} set aside: {error} Or use validation_fraction=0.") from error
    return training, validation


def _put(raw: RawParams, values: RawParams) -> None:
    """Put values into raw parameters, which stay the tensors that the optimiser knows."""
    with torch.no_grad():
        for name, value in values.items():
            raw[name].copy_(value)
