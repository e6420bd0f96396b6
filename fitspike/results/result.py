"""The result of a fit: parameters, how it went, how good it is; saved in a run folder and read back without the plugins that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.citation import Citation, collect
from fitspike.errors import InvalidInputError, PluginError, RunFolderError, counted
from fitspike.models.base import HasConnectivity, HasPopulations
from fitspike.params import ParamSpec, to_tensors
from fitspike.results.components import ComponentRef
from fitspike.results.files import read_toml
from fitspike.results.provenance import RunProvenance
from fitspike.results.run_dir import RunFolder
from fitspike.results.save import save_result, specs_from_json
from fitspike.results.simulation import FreeTrials, simulate_recording
from fitspike.results.status import FitStatus
from fitspike.results.training_data import TrainingData
from fitspike.rng import Stream
from fitspike.scoring import BlockSums, Score, ScoreSettings, score_model
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.models.connectivity import Connectivity
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.recording import Recording


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted model.

    params: constrained values by name. model: which model, with all settings fixed. data: what it was fitted to. extras: what the solver
    keeps beside the parameters (standard errors, cross-validation tables). history: one mapping per log point. scores: held-out scores by
    name, with _se and _interval; empty if nothing was held out. statistics: arrays of data and free simulation that the figures are drawn
    from. notes: warnings of the fit. run_dir: where it is stored, or None.
    """

    params: ParamArrays
    specs: Mapping[str, ParamSpec]
    model: ComponentRef
    data: TrainingData
    status: FitStatus
    message: str
    provenance: RunProvenance
    extras: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    blocks: BlockSums | None = None
    score_details: Mapping[str, np.ndarray] = field(default_factory=dict)
    simulation: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)
    citation_list: tuple[Citation, ...] = ()
    notes: tuple[str, ...] = ()
    run_dir: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    live_model: Any = None
    """The model object, where there is one: after a fit, or given to `load`."""

    def __repr__(self) -> str:
        bits = self.scores.get("bits_per_spike")
        score = "no held-out score" if bits is None else f"{bits:.4g} bits per spike"
        place = "" if self.run_dir is None else f", in {self.run_dir}"
        return f"<FitResult: {self.model.name} of {counted(self.data.n_neurons, 'neuron')}, {self.status.name}, {score}{place}>"

    def build_model(self) -> Any:
        """Return the model object.

        Raises
        ------
        PluginError
            If the plugin that makes it is not installed; the text names it and its version.
        """
        return self.live_model if self.live_model is not None else self.model.build()

    @property
    def is_binary(self) -> bool:
        """Return whether the model allows one spike per bin and neuron at most."""
        return is_binary(self.build_model())

    def simulate(
        self,
        *,
        n_trials: int | None = None,
        duration_s: float | None = None,
        seed: int = 0,
        signals_from: Recording | None = None,
        conditions: Sequence[str] | None = None,
    ) -> Recording:
        """Return free activity of the fitted model as a recording.

        Parameters
        ----------
        n_trials, duration_s : optional
            Default: one trial as long as the median training trial; with conditions, one trial of each. With `signals_from` its trials,
            of which the first `n_trials` are used, and of each the first `duration_s` of what it scores.
        signals_from : Recording, optional
            Signals, trial times and conditions; needed if the model was fitted with signals.
        conditions : names, optional
            Conditions to repeat in turn. With `signals_from` its trials say the conditions.

        Raises
        ------
        PluginError
            If the model's plugin is missing.
        InvalidInputError
            If signals are needed and not given, or an argument is wrong.
        """
        model = self.build_model()
        if n_trials is not None and n_trials < 1:
            raise InvalidInputError(f"n_trials={n_trials} must be positive.")
        if duration_s is not None and not 0 < duration_s < np.inf:
            raise InvalidInputError(f"duration_s={duration_s} must be positive.")
        if signals_from is not None:
            if conditions is not None:
                raise InvalidInputError("conditions are those of signals_from. Choose its trials: signals_from.select(conditions=[...]).")
            source = _first_part(self.data.prepare(signals_from), n_trials, duration_s)
        else:
            source = self._free_trials(n_trials, duration_s, conditions)
        return simulate_recording(model, self.params, source, self.data, Stream(seed, "simulate"))

    def _free_trials(self, n_trials: int | None, duration_s: float | None, conditions: Sequence[str] | None) -> FreeTrials:
        if self.data.signals:
            raise InvalidInputError(
                f"the model was fitted with signals ({', '.join(self.data.signals)}); give a recording that has them: "
                "`simulate(signals_from=...)`, or --signals-from on the command line."
            )
        known = self.data.condition_names
        names = list(known) if conditions is None else list(conditions)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InvalidInputError(f"conditions {', '.join(unknown)} were not fitted. Known: {', '.join(known) or 'none'}.")
        number = max(1, len(names)) if n_trials is None else n_trials
        median = float(np.median(self.data.bins_per_trial)) if self.data.bins_per_trial else 0.0
        n_bins = round(median if duration_s is None else duration_s * 1000 / self.data.dt_ms)
        if n_bins < 1:
            raise InvalidInputError(f"duration_s={duration_s} is shorter than a bin of {self.data.dt_ms:g} ms.")
        index = np.array([known.index(name) for name in names], dtype=np.int64) if names else np.array([-1])
        return FreeTrials(number, n_bins, self.data.dt_ms, self.data.n_neurons, np.resize(index, number))

    def score(self, recording: Recording, *, settings: ScoreSettings | None = None, seed: int = 0) -> Score:
        """Return the scores on a recording of the same neurons, all of it but warm-ups: give data that the fit has not seen.

        Raises
        ------
        RecordingError
            If neurons, signals or conditions do not match those of the fit.
        """
        model = self.build_model()
        binned = self.data.prepare(recording)
        return score_model(
            model, self.params, binned, self.data.rate, is_binary=is_binary(model), settings=settings, stream=Stream(seed, "score")
        )

    def connectivity(self) -> Connectivity:
        """Return the couplings between the recorded neurons [post, pre].

        Raises
        ------
        InvalidInputError
            If the model has no couplings.
        """
        model = self.build_model()
        if not isinstance(model, HasConnectivity):
            what = "no connectivity"
            if isinstance(model, HasPopulations):
                what = "no couplings between recorded neurons; those between populations are in result.params and the report"
            raise InvalidInputError(f"model {self.model.name!r} has {what}. Use 'coupled-glm' or another model with couplings.")
        return model.connectivity(to_tensors(self.params), self.extras)

    def citations(self) -> tuple[Citation, ...]:
        """Return the papers behind what the fit used."""
        return self.citation_list if self.citation_list or self.live_model is None else collect(self.live_model)

    def plot(self, what: Sequence[str] = (), folder: Path | None = None) -> list[Path]:
        """Draw figures from the stored numbers into a folder (default: `figures` of the run folder) and return their paths.

        `what` names the figures (default: all that the numbers allow).
        """
        from fitspike.plotting.figures import draw

        if self.run_dir is None:
            raise InvalidInputError("figures are drawn from the files of a run folder. Use result.save(folder), or fit(..., out=folder).")
        return draw(self.run_dir, what, folder)

    def save(self, path: str | Path) -> Path:
        """Write the result into a new run folder and return its path.

        Raises
        ------
        RunFolderError
            If the folder is not empty or cannot be written.
        """
        return save_result(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, model: Any = None) -> FitResult:
        """Return the result in a run folder; no plugin is needed until something is simulated or scored.

        Parameters
        ----------
        path : run folder
        model : Model, optional
            The model object, for a model that no plugin registers.

        Raises
        ------
        RunFolderError
            If there is no complete result, or it was written by a newer format.
        """
        folder = RunFolder.open(Path(path))
        if not folder.has("params.npz"):
            state = folder.status.get("state")
            if state == "finished":
                raise RunFolderError(
                    f"{path} has lost its parameters: params.npz is missing. Restore it, or fit again into another folder."
                )
            raise RunFolderError(
                f"{path} has no parameters yet: the fit is {state} in stage {folder.status.get('stage')!r}. Wait for it, or continue it "
                f"with `fitspike fit --resume --out {path}`."
            )
        described = folder.read_json("specs.json")
        ended = folder.read_json("fit.json")
        extras: dict[str, Any] = folder.read_json("extras.json") if folder.has("extras.json") else {}
        if folder.has("extras.npz"):
            extras |= folder.read_arrays("extras.npz")
        details = folder.read_arrays("score_blocks.npz") if folder.has("score_blocks.npz") else {}
        return cls(
            params=folder.read_arrays("params.npz"),
            specs=specs_from_json(described["params"]),
            model=ComponentRef.from_json(described["model"]),
            data=TrainingData.from_json(described["data"]),
            status=FitStatus.of(ended["status"]),
            message=ended["message"],
            provenance=RunProvenance.from_json(folder.read_json("provenance.json")),
            extras=extras,
            history=folder.history(),
            scores=folder.read_json("score.json") if folder.has("score.json") else {},
            blocks=BlockSums.from_arrays(_under("block/", details)) if details else None,
            score_details=_under("neuron/", details),
            simulation=folder.read_json("simulation.json") if folder.has("simulation.json") else {},
            statistics=folder.read_arrays("statistics.npz") if folder.has("statistics.npz") else {},
            selection=folder.read_json("selection.json") if folder.has("selection.json") else {},
            citation_list=tuple(Citation(**one) for one in ended["citations"]),
            notes=tuple(ended["notes"]),
            run_dir=Path(path),
            live_model=model,
            config=read_toml(Path(path) / "run.toml") if folder.has("run.toml") else {},
        )


def _first_part(binned: BinnedSpikes, n_trials: int | None, duration_s: float | None) -> BinnedSpikes:
    """Return the first trials, each cut after `duration_s` of its scored time; InvalidInputError if no trial is that long."""
    used = range(binned.n_trials if n_trials is None else min(n_trials, binned.n_trials))
    length, warmup = binned.bins_per_trial[list(used)], binned.warmup_bins[list(used)]
    if duration_s is not None:
        n_bins = round(duration_s * 1000 / binned.dt_ms)
        longest = int((length - warmup).max(initial=0))
        if not 1 <= n_bins <= longest:
            raise InvalidInputError(
                f"duration_s={duration_s:g}, but trials of signals_from last up to {longest * binned.dt_ms / 1000:g} s, in bins of "
                f"{binned.dt_ms:g} ms. Choose a duration between, or leave it out."
            )
        length = np.minimum(length, warmup + n_bins)
    return binned.pieces([(k, 0, int(length[k]), int(warmup[k])) for k in used])


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def is_binary(model: Any) -> bool:
    """Return whether a model's emission allows one spike per bin and neuron at most.

    Raises
    ------
    PluginError
        If the model does not say which emission it uses.
    """
    from fitspike.neurons.emissions import get_emission

    if hasattr(model, "emission_object"):
        return bool(model.emission_object().is_binary)
    name = getattr(model, "emission", "auto")
    if name == "auto":
        if not model.emissions:
            raise PluginError(f"model {model.name!r} lists no emission in `emissions`; it has to name at least one.")
        name = model.emissions[0]
    return bool(get_emission(name).is_binary)


def simulate(run: FitResult | str | Path, **options: Any) -> Recording:
    """Return free activity of a fitted model, given a result or a run folder; options as `FitResult.simulate`."""
    result = run if isinstance(run, FitResult) else FitResult.load(run)
    return result.simulate(**options)


def score(run: FitResult | str | Path, recording: Recording, **options: Any) -> Score:
    """Return the held-out scores of a fitted model on a recording, given a result or a run folder; options as `FitResult.score`."""
    result = run if isinstance(run, FitResult) else FitResult.load(run)
    return result.score(recording, **options)
