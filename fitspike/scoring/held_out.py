"""Score a fitted model on data it has not seen: one pass over the data, chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.errors import InvalidInputError, counted
from fitspike.models.base import HasIntensity
from fitspike.params import to_tensors
from fitspike.rng import Stream
from fitspike.scoring.blocks import BlockPlan, BlockSums, block_times_ns, data_hash, null_rate, plan_batches, plan_blocks, reference_sums
from fitspike.scoring.bootstrap import FEW_BLOCKS, Uncertain, over_neurons
from fitspike.scoring.co_smoothing import co_smoothing_sums, leading_blocks, neuron_groups
from fitspike.scoring.likelihood import likelihood_scores
from fitspike.scoring.psth import PsthScore, PsthSums
from fitspike.scoring.rescaling import RescaledEvents, RescalingTest, bin_integral, ks_test, rescaled_intervals
from fitspike.scoring.settings import ScoreSettings
from fitspike.types import ParamArrays

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes, SpikeChunk


@dataclass(frozen=True, eq=False)
class Score:
    """Scores of one model on one data set.

    values: each score with its uncertainty. per_neuron: arrays (n_neurons,). blocks: the sums that everything was computed from, for
    pairing with another model's. notes: sentences on what was left out and why.
    """

    values: Mapping[str, Uncertain]
    per_neuron: Mapping[str, np.ndarray]
    neuron_ids: tuple[str, ...]
    n_spikes: int
    n_bins: int
    dt_ms: float
    blocks: BlockSums
    blocks_text: str
    data_hash: str
    notes: tuple[str, ...] = ()
    rescaling: RescalingTest | None = None
    psth: PsthScore | None = None
    settings: ScoreSettings = field(default_factory=ScoreSettings)

    def __getitem__(self, name: str) -> float:
        """Return a score's value by name."""
        return self.values[name].value

    def to_json(self, *, per_neuron: bool = False) -> dict[str, Any]:
        """Return plain values: each score NAME with NAME_se and NAME_interval, counts, notes; NaN becomes None."""
        out: dict[str, Any] = {}
        for name, one in self.values.items():
            out |= {name: _plain(one.value), f"{name}_se": _plain(one.se), f"{name}_interval": [_plain(one.low), _plain(one.high)]}
        out |= {
            "n_spikes": self.n_spikes,
            "n_neurons": len(self.neuron_ids),
            "n_bins": self.n_bins,
            "dt_ms": self.dt_ms,
            "n_blocks": self.blocks.n_blocks,
            "blocks": self.blocks_text,
            "n_bootstrap": self.settings.n_bootstrap,
            "data_hash": self.data_hash,
            "notes": list(self.notes),
        }
        if per_neuron:
            out["neuron_ids"] = list(self.neuron_ids)
            out["per_neuron"] = {name: [_plain(value) for value in values.tolist()] for name, values in self.per_neuron.items()}
        return out


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class TrainingRate:
    """Mean spike count per training bin (n_neurons,) and the number of those bins: the mean-rate model."""

    mean_count: np.ndarray
    n_bins: int


def score_model(
    model: Any,
    params: ParamArrays,
    binned: BinnedSpikes,
    training: TrainingRate,
    *,
    is_binary: bool,
    settings: ScoreSettings | None = None,
    stream: Stream | None = None,
    held_out_neurons: np.ndarray | None = None,
) -> Score:
    """Return the scores of a model on binned spikes, of which only scored bins (outside warm-ups) count.

    Parameters
    ----------
    model : Model
        Log-likelihoods come from its `log_likelihood`; time rescaling, PSTH and co-smoothing need its `intensity`.
    params : mapping of arrays
        Constrained parameters.
    training : TrainingRate
        The mean-rate model of the training data.
    is_binary : bool
        Whether the emission allows one spike per bin at most.
    held_out_neurons : ndarray of int, optional
        The neurons to hide in co-smoothing (default: all, dealt into groups).

    Raises
    ------
    InvalidInputError
        Without scored bins or if the log-likelihood is not finite; the text names the neurons.
    """
    settings, stream = settings or ScoreSettings(), stream or Stream(0, "score")
    plan = plan_blocks(binned, settings.block_s)
    if not plan.n_blocks:
        raise InvalidInputError("there is nothing to score: no trial has a bin outside its warm-up. Give more data or another split.")
    tensors = to_tensors(params)
    rate = null_rate(training.mean_count, training.n_bins, is_binary=is_binary)
    null, saturated, n_spikes, n_bins = reference_sums(binned, plan, rate, is_binary=is_binary)
    found = _pass_over_data(model, tensors, binned, plan, settings, is_binary, stream)
    _check_finite(found.log_likelihood, binned)
    sums = BlockSums(found.log_likelihood, null, saturated, n_spikes, n_bins, *block_times_ns(binned, plan))
    values, per_neuron = likelihood_scores(sums, settings.n_bootstrap, stream.child("bootstrap"))
    notes = list(found.notes)
    if sums.n_blocks < FEW_BLOCKS:
        notes.append(f"Standard errors rest on {sums.n_blocks} blocks only; take them as rough.")
    if values["bits_per_spike"].value < 0:
        notes.append(_worse_than_mean_rate(values["bits_per_spike"].value, per_neuron["bits_per_spike"], binned.neurons.ids))
    silent = per_neuron["n_spikes"] == 0
    if silent.any():
        notes.append(
            f"No held-out spike of {counted(int(silent.sum()), 'neuron')}: in log_likelihood and pseudo_r2, not in bits per spike."
        )
    if found.rescaling is not None:
        test, draws = found.rescaling, stream.child("neurons")
        values["time_rescaling_inside_band"] = over_neurons(test.is_inside, settings.n_bootstrap, draws, mean=True)
        values["time_rescaling_ks_median"] = over_neurons(test.statistic, settings.n_bootstrap, draws)
        per_neuron |= {
            "time_rescaling_ks": found.rescaling.statistic,
            "time_rescaling_band": found.rescaling.band,
            "time_rescaling_p": found.rescaling.p_value,
        }
    if found.psth is not None:
        values["psth_correlation"] = found.psth.median
        values["psth_correlation_ceiling"] = over_neurons(found.psth.ceiling, settings.n_bootstrap, stream.child("neurons"))
        per_neuron |= {"psth_correlation": found.psth.correlation, "psth_correlation_ceiling": found.psth.ceiling}
    co = _co_smoothing(model, tensors, binned, plan, rate, settings, is_binary, stream, held_out_neurons, notes)
    values |= co[0]
    per_neuron |= co[1]
    return Score(
        values,
        per_neuron,
        tuple(map(str, binned.neurons.ids)),
        int(n_spikes.sum()),
        int(n_bins.sum()),
        binned.dt_ms,
        sums,
        plan.describe(),
        data_hash(binned),
        tuple(notes),
        found.rescaling,
        found.psth,
        settings,
    )


@dataclass(frozen=True, eq=False)
class _Pass:
    log_likelihood: np.ndarray
    rescaling: RescalingTest | None
    psth: PsthScore | None
    notes: list[str]


def _worse_than_mean_rate(pooled: float, per_neuron: np.ndarray, ids: np.ndarray) -> str:
    worst = int(np.nanargmin(per_neuron))
    return (
        f"The mean rates of the training part predict these data better than the model does ({pooled:.3g} bits per spike; worst: neuron "
        f"{ids[worst]}, {per_neuron[worst]:.3g}). Where the learning curve still falls, take more steps or a higher learning rate; where "
        "it has jumped up, a lower one. Otherwise the model is too rich for the data (raise penalties, leave terms out), or rates drift."
    )


def _pass_over_data(
    model: Any, params: Any, binned: BinnedSpikes, plan: BlockPlan, settings: ScoreSettings, is_binary: bool, stream: Stream
) -> _Pass:
    """Run the model clamped over all chunks once; sum log-likelihoods per block and collect what the other scores need."""
    import torch

    has_intensity = isinstance(model, HasIntensity)
    psth = PsthSums.make(binned, settings.psth_window_ms) if has_intensity else None
    total = np.zeros((plan.n_blocks, binned.n_neurons))
    block_at = {(int(k), int(b)): i for i, (k, b) in enumerate(zip(plan.trial, plan.first_bin, strict=True))}
    integral = np.zeros((binned.n_trials, binned.n_neurons))
    events: list[RescaledEvents] = []
    for trials, edges in plan_batches(binned, plan, settings.chunk_values):
        carry = intensity_carry = None
        current = np.array([block_at.get((int(k), 0), -1) for k in trials])
        for first, stop in zip(edges[:-1], edges[1:], strict=True):
            chunk = binned.chunk(trials, first, stop - first)
            with torch.no_grad():
                nats, carry = model.log_likelihood(params, chunk, carry, stream.child("log_likelihood"))
            nats = nats.detach().cpu().numpy()
            current = np.array([block_at.get((int(k), first), now) for k, now in zip(trials, current, strict=True)])
            if plan.by_trial:  # a block may start inside a chunk, after its warm-up; the mask leaves the warm-up out
                current = np.array([block_at[int(k), int(binned.warmup_bins[k])] for k in trials])
            inside = current >= 0
            np.add.at(total, current[inside], nats[inside])
            if has_intensity:
                with torch.no_grad():
                    expected, intensity_carry = model.intensity(params, chunk, intensity_carry)
                values = expected.detach().cpu().numpy().astype(np.float64)
                events.append(_rescaled(chunk, bin_integral(values, is_binary=is_binary), integral))
                if psth is not None:
                    psth.add(chunk, values)
    if not has_intensity:
        note = f"Time rescaling, PSTH correlation and co-smoothing need expected counts; model {model.name!r} has no `intensity`."
        return _Pass(total, None, None, [note])
    joined = RescaledEvents(*(np.concatenate([getattr(e, name) for e in events]) for name in RescaledEvents.__annotations__))
    gaps = rescaled_intervals(joined, integral, binned.n_neurons, is_binary=is_binary, stream=stream.child("rescaling"))
    return _Pass(total, ks_test(gaps), None if psth is None else psth.finish(binned.dt_ms), [])


def _rescaled(chunk: SpikeChunk, integral: np.ndarray, so_far: np.ndarray) -> RescaledEvents:
    """Return the chunk's scored events in rescaled time and add the chunk's integral (n_trials, n_bins, n_neurons) to `so_far`."""
    masked = integral * chunk.mask_numpy[:, :, None]
    before = np.cumsum(masked, axis=1) - masked + so_far[chunk.trial][:, None, :]
    so_far[chunk.trial] += masked.sum(axis=1)
    rows = [np.arange(int(p[0]), int(p[-1])) for p in chunk.row_pointer]
    row = np.repeat(np.arange(chunk.n_trials), [len(r) for r in rows])
    bins = np.concatenate([np.repeat(np.arange(chunk.n_bins), np.diff(p)) for p in chunk.row_pointer])
    at = np.concatenate(rows)
    keep = chunk.mask_numpy[row, bins]
    row, bins, at = row[keep], bins[keep], at[keep]
    neuron = np.asarray(chunk.event_neuron)[at].astype(np.int64)
    count = np.ones(len(at), np.int64) if chunk.event_count is None else np.asarray(chunk.event_count)[at].astype(np.int64)
    trial = np.asarray(chunk.trial)[row].astype(np.int32)
    kind = np.min_scalar_type(chunk.n_neurons)  # events of a whole recording are held at once
    return RescaledEvents(
        trial, neuron.astype(kind), count.astype(np.uint16), before[row, bins, neuron], integral[row, bins, neuron].astype(np.float32)
    )


def _co_smoothing(
    model: Any,
    params: Any,
    binned: BinnedSpikes,
    plan: BlockPlan,
    rate: np.ndarray,
    settings: ScoreSettings,
    is_binary: bool,
    stream: Stream,
    held_out: np.ndarray | None,
    notes: list[str],
) -> tuple[dict[str, Uncertain], dict[str, np.ndarray]]:
    """Return the co-smoothing score and its values per neuron, or nothing where it is switched off or impossible."""
    if settings.co_smoothing_bins == 0 or not isinstance(model, HasIntensity) or binned.n_neurons < 2:
        return {}, {}
    groups = neuron_groups(binned.n_neurons, settings.n_neuron_groups, held_out, stream.child("groups"))
    part = leading_blocks(binned, plan, settings.co_smoothing_bins)
    try:
        sums = co_smoothing_sums(
            model,
            params,
            binned,
            part,
            rate,
            groups=groups,
            n_samples=settings.n_samples,
            is_binary=is_binary,
            stream=stream.child("co_smoothing"),
        )
    except InvalidInputError as error:
        notes.append(f"No score: {error}")
        return {}, {}
    known = np.isfinite(sums.model).all(axis=0)
    kept = BlockSums(
        *(a[:, known] for a in (sums.model, sums.null, sums.saturated, sums.n_spikes)), sums.n_bins, sums.start_ns, sums.stop_ns
    )
    scores, per_neuron = likelihood_scores(kept, settings.n_bootstrap, stream.child("co_smoothing_bootstrap"))
    values = np.full(binned.n_neurons, np.nan)
    values[known] = per_neuron["bits_per_spike"]
    n_hidden = f"{len(groups)} groups of neurons hidden in turn" if len(groups) > 1 else f"{len(groups[0])} held-out neurons hidden"
    notes.append(
        f"Co-smoothing: {n_hidden}, {settings.n_samples} sampled histories, "
        f"{int(part.stop_bin.sum() - part.first_bin.sum())} bins in {part.n_blocks} blocks."
    )
    return {"co_smoothing": scores["bits_per_spike"]}, {"co_smoothing": values}


def _check_finite(log_likelihood: np.ndarray, binned: BinnedSpikes) -> None:
    bad = ~np.isfinite(log_likelihood).all(axis=0)
    if bad.any():
        names = ", ".join(map(str, np.asarray(binned.neurons.ids)[bad][:5]))
        raise InvalidInputError(
            f"the held-out log-likelihood of {int(bad.sum())} neurons is not finite ({names}). The parameters or the signals hold NaN or "
            "extreme values; look at params.npz and at `fitspike inspect` of the data."
        )
