"""fit(): from a recording to a fitted, judged and stored model. Each step is one function, and none returns to an earlier one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fitspike.citation import collect
from fitspike.config import ConfigError, RunConfig, parse_config
from fitspike.errors import FitFailed, FitInterrupted, counted
from fitspike.fitting.estimate import estimate
from fitspike.fitting.folder import open_folder, read_fitted, write_start
from fitspike.fitting.judge import Judgement, judge
from fitspike.fitting.optimise import Budget, Fitted, needs_selection, optimise, select_settings
from fitspike.fitting.prepare import Prepared, prepare, raise_with_others
from fitspike.fitting.request import Callback, Request, as_settings
from fitspike.fitting.resolve import blaming_plugins
from fitspike.fitting.session import Session
from fitspike.fitting.threads import available_threads, use_threads
from fitspike.plugin.lifecycle import RunInfo
from fitspike.plugin.registry import get_registry
from fitspike.progress import Progress
from fitspike.results.components import reference_to
from fitspike.results.provenance import RunProvenance, collect_provenance
from fitspike.results.result import FitResult
from fitspike.results.run_dir import RunFolder
from fitspike.results.save import write_ending, write_fitted, write_judged
from fitspike.results.status import FitStatus
from fitspike.types import ParamArrays

logger = logging.getLogger("fitspike")


def fit(
    recording: Any,
    model: Any = None,
    *,
    settings: Mapping[str, Any] | None = None,
    neuron: Any = None,
    loss: Any = "nll",
    rule: Any = "auto",
    transforms: Any = (),
    dt_ms: float | None = None,
    one_per_bin: bool = False,
    emission: str = "auto",
    select: Mapping[str, Any] | None = None,
    split: Any = None,
    init: ParamArrays | str | Path | None = None,
    selection: bool = True,
    batch: Mapping[str, Any] | None = None,
    optimiser: Mapping[str, Any] | None = None,
    stop: Mapping[str, Any] | None = None,
    score: Mapping[str, Any] | None = None,
    simulation: Mapping[str, Any] | None = None,
    report: bool = True,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Any = "auto",
    callbacks: Sequence[Callback] = (),
    raise_on_failure: bool = True,
) -> FitResult:
    """Fit a model to a recording, score it on held-out data and store the result.

    Parameters
    ----------
    recording : path, several paths, neo Block, pynapple TsGroup, arrays (times_s, neuron_ids), or Recording
    model : registered name, table with "name" and settings, or object; default: coupled-glm, or spiking-network with
        `neuron` or a learning rule that needs it
    settings : settings of a model given by name
    neuron : neuron model, for models made of neurons: name, table or object
    loss : name, object, or mapping name -> weight, table, or (object, weight)
    rule : learning rule; "auto" is the model's own solver for the likelihood, else back-propagation through time
    transforms : update transforms, in the order in which they act; one alone needs no list
    dt_ms : bin width; default: the recording's native bins, else 1 ms
    one_per_bin : count several spikes of a neuron in a bin as one, for emissions that know no more; how many is noted in the result
    emission : "bernoulli", "hazard", "poisson", "threshold" or "auto" (Poisson where bins hold several spikes)
    select : arguments of `Recording.select`, such as {"where": "contamination < 0.05"}
    split : SplitSettings or a text such as "time:0.2", "trial:every=5,offset=4", "none"
    init : initial constrained parameters by name, or the folder of a run whose parameters these are
    selection : whether model settings left at "auto" are chosen on blocked folds of the training data
    batch, optimiser, stop, score, simulation : tables of the configuration, see docs/config.md
    report : draw figures and report.html into the run folder
    threads : of numba, BLAS and torch; default: the cores given to the process
    out : folder of the run; default: nothing is stored
    resume : go on in the folder `out` where an interrupted run stopped; the parameters are those of a run never interrupted
    progress : "auto", "live", "lines" or "off"; always on standard error
    callbacks : functions of (step, metrics), called at log points
    raise_on_failure : raise FitFailed if the fit diverged or was interrupted; False returns the result with its status,
        unless there is none yet

    Raises
    ------
    FitspikeError
        With every problem of the arguments and the data, before anything is computed.
    FitFailed
        If the fit ended without a usable optimum; `result` holds what there is.
    """
    values, objects = as_settings(
        recording,
        model,
        settings=settings,
        neuron=neuron,
        loss=loss,
        rule=rule,
        transforms=transforms,
        select=select,
        split=split,
        sections={
            "init": str(init) if isinstance(init, str | Path) else None,
            "dt_ms": dt_ms,
            "one_per_bin": one_per_bin,
            "emission": emission,
            "selection": selection,
            "batch": batch,
            "optimiser": optimiser,
            "stop": stop,
            "score": score,
            "simulation": simulation,
            "report": report,
            "device": device,
            "backend": backend,
            "threads": threads,
            "seed": seed,
        },
    )
    folder = None if out is None else Path(out)
    params = None if isinstance(init, str | Path) else init
    try:
        config = parse_config(values, "arguments of fit")
    except ConfigError as error:
        raise_with_others(error, Request(error.rest, objects, params, folder, resume))
    request = Request(config, objects, params, folder, resume, progress, tuple(callbacks))
    return run_fit(request, raise_on_failure=raise_on_failure)


def run_fit(request: Request, *, raise_on_failure: bool = True) -> FitResult:
    """Return the result of a checked request; see `fit`."""
    threads = request.config.threads or available_threads()
    with use_threads(threads), Progress(request.progress, "fitting") as progress:
        prepared = prepare(request)
        folder = open_folder(request)
        provenance = collect_provenance(prepared.recording, seed=request.config.seed, threads=threads, command=request.command)
        if folder is not None:
            if request.resume and not folder.has("run.toml"):
                progress.say(f"{folder.path} holds no run yet: beginning one")
            write_start(folder, request, prepared, provenance)
        session = _open_session(request, prepared, folder, progress)
        with session:
            try:
                with blaming_plugins(prepared.components, "fitting"):
                    result = _run(request, prepared, session, provenance, threads)
            except FitInterrupted as error:
                if raise_on_failure or error.result is None:
                    raise
                return error.result
            except KeyboardInterrupt as error:
                raise _interrupted(session, None) from error
            except Exception as error:
                _note_failure(session, error)
                raise
        return _outcome(result, session, raise_on_failure)


def _open_session(request: Request, prepared: Prepared, folder: RunFolder | None, progress: Progress) -> Session:
    config, components = request.config, prepared.components
    run = RunInfo(
        model=reference_to(components.model, "models").qualified_name,
        n_neurons=prepared.train.n_neurons,
        n_trials=prepared.train.n_trials,
        n_bins=prepared.train.n_bins_total,
        dt_ms=prepared.train.dt_ms,
        seed=config.seed,
        loss={name: weight for name, (_, weight) in components.losses.items()},
        rule="solver" if components.uses_solver else components.rule.name,
        run_dir=None if folder is None else folder.path,
        settings=config.to_dict(),
    )
    return Session(folder, progress, run, get_registry().lifecycle(), request.callbacks, config.stop.checkpoint_s)


def _run(request: Request, prepared: Prepared, session: Session, provenance: RunProvenance, threads: int) -> FitResult:
    """Select, optimise, judge, store."""
    config = request.config
    session.lifecycle.notify("fitspike_fit_start", run=session.run)
    _announce(prepared, config, session)
    budget = Budget.of(config)
    prepared, table = select_settings(prepared, config, session, threads, budget)
    fitted = read_fitted(session.folder, prepared, prepared.components.model) if session.folder is not None else None
    is_new = fitted is None
    if fitted is None:
        fitted = optimise(prepared, config, session, threads, budget)
    result = _result(request, prepared, fitted, provenance, table, session)
    if result.status is FitStatus.INTERRUPTED:
        raise _interrupted(session, result)
    if session.folder is not None and is_new:
        write_fitted(session.folder, result)
        session.end_of_fit(result.status)
    if not result.status.is_usable:
        return result
    session.enter("score", "held-out scores and free simulation")
    judgement = judge(prepared, fitted, config, session.stop_if_asked)
    result = _with_judgement(result, judgement, prepared)
    if session.folder is not None:
        write_judged(session.folder, result)
        write_ending(session.folder, result)
        if config.report:
            session.enter("report", "figures and report")
            _write_report(session.folder)
    return result


def _announce(prepared: Prepared, config: RunConfig, session: Session) -> None:
    """Say what is about to be done, how long it may take and what is unusual about the data."""
    train = prepared.train
    session.progress.say(
        f"{prepared.components.model.name}: {counted(train.n_neurons, 'neuron')}, {counted(train.n_spikes, 'spike')} in "
        f"{counted(train.n_bins_total, 'bin')} of "
        f"{train.dt_ms:g} ms to train on; split {prepared.data.split}"
    )
    expected = estimate(prepared, config).describe()
    if needs_selection(prepared, config):
        expected += ", after the choice of open settings, which fits to parts of the data many times"
    session.progress.say(f"estimate: {expected}")
    logger.info("estimate: %s", expected)
    for note in prepared.notes:
        logger.info("note: %s", note)


def _result(
    request: Request, prepared: Prepared, fitted: Fitted, provenance: RunProvenance, table: Mapping[str, Any], session: Session
) -> FitResult:
    components = prepared.components
    used = (fitted.model, getattr(fitted.model, "neuron", None), *(loss for loss, _ in components.losses.values()), components.rule)
    return FitResult(
        params=fitted.params,
        specs=fitted.specs,
        model=reference_to(fitted.model, "models"),
        data=prepared.data,
        status=FitStatus.of(fitted.report.status),
        message=fitted.report.message,
        provenance=provenance,
        extras=fitted.report.extras,
        history=session.full_history(),
        selection=table,
        citation_list=collect(*used, *components.transforms),
        notes=prepared.notes,
        run_dir=None if session.folder is None else session.folder.path,
        config=request.config.to_dict(),
        live_model=fitted.model,
    )


def _with_judgement(result: FitResult, judgement: Judgement, prepared: Prepared) -> FitResult:
    score = judgement.score
    return replace(
        result,
        scores={} if score is None else score.to_json(),
        blocks=None if score is None else score.blocks,
        score_details={} if score is None else score.per_neuron,
        simulation=judgement.simulation,
        statistics=judgement.statistics,
        notes=(*result.notes, *(score.notes if score is not None else ()), *judgement.notes),
    )


def _write_report(folder: RunFolder) -> None:
    from fitspike.plotting.report import write_report

    write_report(folder.path, with_figures=True)


def _outcome(result: FitResult, session: Session, raise_on_failure: bool) -> FitResult:
    """Write the last status, tell plugins, and return the result or raise FitFailed."""
    text = f"{result.message} {result.status.advice}".strip()
    if session.folder is not None:
        state = "finished" if result.status.is_usable else "failed"
        session.folder.set_status(state, stage="done", step=session.last_step, message=text, status=result.status.name)
    session.lifecycle.notify("fitspike_fit_end", run=session.run, result=result)
    if raise_on_failure and not result.status.is_usable:
        raise FitFailed(f"the fit ended with status {result.status.name}: {text}", result)
    return result


def _interrupted(session: Session, result: FitResult | None) -> FitInterrupted:
    """Return the error of an interrupted run after writing its status."""
    where = "nothing was stored, as the fit has no folder (out=...)"
    if session.folder is not None:
        session.save_latest()
        where = f"continue with `fitspike fit --resume --out {session.folder.path}`"
        session.folder.set_status(
            "interrupted", stage=session.stage, step=session.last_step, message=where, status=FitStatus.INTERRUPTED.name
        )
    error = FitInterrupted(f"the fit was interrupted in stage {session.stage!r} at step {session.last_step}; {where}.", result)
    session.lifecycle.notify("fitspike_fit_end", run=session.run, result=error)
    return error


def _note_failure(session: Session, error: BaseException) -> None:
    """Write an error that ended the run into its status."""
    logger.info("failed in stage %s: %s", session.stage, error)
    if session.folder is not None:
        session.folder.set_status("failed", stage=session.stage, step=session.last_step, message=str(error))
    session.lifecycle.notify("fitspike_fit_end", run=session.run, result=error)
