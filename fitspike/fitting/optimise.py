"""The computation: choose open settings on training data, then solve or train; both can be resumed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fitspike.config import RunConfig
from fitspike.errors import PluginError
from fitspike.fitting.prepare import Prepared
from fitspike.fitting.session import Session
from fitspike.models.base import HasSelection, HasSolver, SolverContext, SolverReport
from fitspike.params import ParamSpec, initial_params
from fitspike.results.components import ComponentRef, reference_to
from fitspike.rng import Stream
from fitspike.types import ParamArrays

SELECTION_FILE = "selection.json"


@dataclass(frozen=True, eq=False)
class Budget:
    """When to stop. deadline_s: value of time.monotonic(), or None."""

    deadline_s: float | None

    @classmethod
    def of(cls, config: RunConfig) -> Budget:
        """Return the budget that starts now."""
        minutes = config.stop.max_minutes
        return cls(None if minutes is None else time.monotonic() + 60.0 * minutes)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Parameters of a model whose settings are all fixed, and how the solver ended."""

    model: Any
    specs: Mapping[str, ParamSpec]
    params: ParamArrays
    report: SolverReport


def needs_selection(prepared: Prepared, config: RunConfig) -> bool:
    """Return whether the model has settings to choose and is allowed to."""
    model = prepared.components.model
    if not config.selection or not prepared.components.uses_solver or not isinstance(model, HasSelection):
        return False
    return bool(model.open_settings()) if hasattr(model, "open_settings") else True


def select_settings(
    prepared: Prepared, config: RunConfig, session: Session, threads: int, budget: Budget
) -> tuple[Prepared, Mapping[str, Any]]:
    """Return the fit with every open setting of the model chosen on training data, and the table of what was tried.

    The choice is stored once it is made; a resumed run takes it from there. Interrupted before, it is made again, with the same outcome.
    """
    if not needs_selection(prepared, config):
        return prepared, {}
    folder = session.folder
    if folder is not None and folder.has(SELECTION_FILE):
        stored = folder.read_json(SELECTION_FILE)
        reference = ComponentRef.from_json(stored.pop("model"))
        # The class of the model at hand, so that one which no plugin registers can be resumed too.
        return _with_model(prepared, _rebuilt(prepared.components.model, reference), config), stored
    session.enter("select", "choosing settings on training data")
    if folder is not None:
        folder.cut_history("select", -1)
    context = SolverContext(
        init=prepared.init,
        stream=Stream(config.seed, "select"),
        report=session.report,
        max_steps=config.stop.max_steps,
        deadline_s=budget.deadline_s,
        threads=threads,
        backend=config.backend,
    )
    model, table = prepared.components.model.select(prepared.train, context)
    table = dict(table)
    if folder is not None:
        folder.write_json(SELECTION_FILE, {**table, "model": reference_to(model, "models").to_json()})
    return _with_model(prepared, model, config), table


def _rebuilt(model: Any, reference: ComponentRef) -> Any:
    return replace(model, **{name: value for name, value in reference.settings.items() if not isinstance(value, ComponentRef)})


def _with_model(prepared: Prepared, model: Any, config: RunConfig) -> Prepared:
    """Return the fit with another model, and with that model's parameters at their initial values."""
    specs = model.param_specs(prepared.train.info())
    given = {name: value for name, value in prepared.init.items() if name in specs and value.shape == tuple(specs[name].shape)}
    init = initial_params(specs, Stream(config.seed, "init"), given)
    return replace(prepared, components=replace(prepared.components, model=model), specs=specs, init=init)


def optimise(prepared: Prepared, config: RunConfig, session: Session, threads: int, budget: Budget) -> Fitted:
    """Return the fitted parameters, from the model's own solver or from training with a learning rule.

    Raises
    ------
    PluginError
        If the solver returns parameters that do not fit the model's specs.
    """
    session.enter("fit", "model's own solver" if prepared.components.uses_solver else f"rule {prepared.components.rule.name}")
    context = SolverContext(
        init=prepared.init,
        stream=Stream(config.seed, "fit"),
        report=session.report,
        checkpoint=session.checkpoint,
        resume=_last_checkpoint(session),
        max_steps=config.stop.max_steps,
        deadline_s=budget.deadline_s,
        threads=threads,
        backend=config.backend,
    )
    components = prepared.components
    if components.uses_solver:
        assert isinstance(components.model, HasSolver), "resolve chose the solver because there is one"
        params, report = components.model.solve(prepared.train, context)
    else:
        params, report = _train(prepared, config, context)
    return Fitted(components.model, prepared.specs, _checked(params, prepared), report)


def _last_checkpoint(session: Session) -> Mapping[str, np.ndarray] | None:
    """Return the solver state to go on from; log points after it are dropped, as they will come again."""
    if session.folder is None:
        return None
    found = session.folder.load_checkpoint()
    session.folder.cut_history("fit", found[0] if found is not None else -1)
    return None if found is None else found[1]


def _train(prepared: Prepared, config: RunConfig, context: SolverContext) -> tuple[ParamArrays, SolverReport]:
    """Train with the learning rule."""
    from fitspike.learning.trainer import TrainSettings, train

    batch, optimiser, stop, components = config.batch, config.optimiser, config.stop, prepared.components
    settings = TrainSettings(
        n_bins=batch.n_bins,
        n_trials=batch.n_trials,
        n_free_trials=batch.n_free_trials,
        carry=batch.carry,
        optimiser=optimiser.name,
        learning_rate=optimiser.learning_rate,
        optimiser_options=optimiser.options,
        schedule=optimiser.schedule,
        final_fraction=optimiser.final_fraction,
        clip_norm=optimiser.clip_norm,
        patience=stop.patience,
        min_improvement=stop.min_improvement,
        validation_fraction=stop.validation_fraction,
        log_every=stop.log_every,
        precision=optimiser.precision,
        device="cpu" if config.device == "auto" else config.device,
    )
    return train(
        components.model, prepared.specs, prepared.train, components.losses, components.rule, components.transforms, settings, context
    )


def _checked(params: ParamArrays, prepared: Prepared) -> dict[str, np.ndarray]:
    """Return the parameters as arrays after checking names and shapes, which a plugin may get wrong."""
    arrays = {name: np.asarray(value) for name, value in params.items()}
    wrong = [f"{name} is missing" for name in prepared.specs if name not in arrays]
    wrong += [f"{name} is not in param_specs" for name in arrays if name not in prepared.specs]
    wrong += [
        f"{name} has shape {value.shape}, expected {tuple(prepared.specs[name].shape)}"
        for name, value in arrays.items()
        if name in prepared.specs and value.shape != tuple(prepared.specs[name].shape)
    ]
    if wrong:
        raise PluginError(f"model {prepared.components.model.name!r} returned parameters that do not fit its specs: {'; '.join(wrong)}.")
    return arrays
