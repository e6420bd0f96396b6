"""The checks of a summary statistic: chunks, masks, neuron order, gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fitspike.losses.distances import DISTANCES
from fitspike.plugin.conformance.report import Mismatch, NotChecked, Outcome, Report, expect, instance_of
from fitspike.plugin.conformance.toys import toy_binned
from fitspike.plugin.kinds import KINDS
from fitspike.recording.binned import BinnedSpikes, SpikeChunk
from fitspike.statistics.base import Expected, Statistic
from fitspike.units import check_parameter_unit

_N = 3


def check_statistic(statistic: Any) -> Outcome:
    """Check a statistic, given as a class or an object, and return what passed.

    Raises
    ------
    ConformanceError
        With every failed check.
    """
    report = Report(f"statistic {getattr(statistic, 'name', statistic)!r}")
    statistic = instance_of(report, statistic, KINDS["statistics"])
    if statistic is None:
        return report.outcome()
    report.check("unit and distance", _check_unit, statistic, needs=("members",))
    report.check("value", _check_value, statistic, needs=("members",))
    report.check("chunks in time", _check_time_chunks, statistic, needs=("value",))
    report.check("chunks of trials", _check_trial_chunks, statistic, needs=("value",))
    report.check("masked bins", _check_mask, statistic, needs=("value",))
    report.check("no dependence on neuron order", _check_order, statistic, needs=("value",))
    report.check("recordings without spikes", _check_silence, statistic, needs=("value",))
    report.check("gradient", _check_gradient, statistic, needs=("value",))
    report.check("expected counts", _check_expected, statistic, needs=("value",))
    return report.outcome()


def _accumulate(statistic: Statistic, data: BinnedSpikes, chunks: Iterable[SpikeChunk]) -> torch.Tensor:
    acc = statistic.init(data.info())
    for chunk in chunks:
        acc = statistic.update(acc, chunk.dense("float64"), chunk)
    return statistic.finalise(acc)


def _whole(data: BinnedSpikes) -> list[SpikeChunk]:
    return list(data.chunks(int(data.bins_per_trial.max()), batch_trials=data.n_trials, carry=True))


def _expect_equal(found: torch.Tensor, expected: torch.Tensor, text: str) -> None:
    # 1e-9: sums of the same numbers in another order, in float64
    is_equal = found.shape == expected.shape and bool(
        torch.allclose(found.double(), expected.double(), rtol=1e-9, atol=1e-9, equal_nan=True)
    )
    expect(is_equal, text)


def _check_unit(statistic: Statistic) -> None:
    check_parameter_unit(statistic.unit)
    expect(
        statistic.default_distance in DISTANCES,
        f"default_distance is {statistic.default_distance!r}; expected one of {', '.join(sorted(DISTANCES))}.",
    )


def _check_value(statistic: Statistic) -> None:
    data = toy_binned(_N)
    value = _accumulate(statistic, data, _whole(data))
    expect(isinstance(value, torch.Tensor), f"finalise returns {type(value).__name__}; expected a tensor.")
    expect(bool(torch.isfinite(value).any()), "the statistic of a recording of four trials with spikes holds no finite value.")
    expect(not bool(torch.isinf(value).any()), "the statistic holds infinite values; use NaN where it is not defined.")
    single = _accumulate(statistic, toy_binned(1), _whole(toy_binned(1)))
    expect(isinstance(single, torch.Tensor), "the statistic of a recording of one neuron is no tensor.")


def _check_time_chunks(statistic: Statistic) -> None:
    data = toy_binned(_N)
    whole = _accumulate(statistic, data, _whole(data))
    for n_bins in (7, 50):
        parts = _accumulate(statistic, data, data.chunks(n_bins, batch_trials=data.n_trials, carry=True))
        _expect_equal(parts, whole, f"accumulated over chunks of {n_bins} bins the statistic differs from that of all bins at once.")


def _check_trial_chunks(statistic: Statistic) -> None:
    data = toy_binned(_N)
    whole = _accumulate(statistic, data, _whole(data))
    one_by_one = _accumulate(statistic, data, data.chunks(13, batch_trials=1, carry=True))
    _expect_equal(one_by_one, whole, "accumulated trial by trial the statistic differs from that of all trials at once.")


def _check_mask(statistic: Statistic) -> None:
    data = toy_binned(_N)
    chunk = _whole(data)[0]
    mask = chunk.mask_numpy & (np.arange(chunk.n_bins) >= 20)
    values = []
    for fill in (0.0, 1.0):
        masked = replace(chunk, mask_numpy=mask)
        spikes = torch.where(masked.mask[..., None], chunk.dense("float64"), torch.tensor(fill, dtype=torch.float64))
        values.append(statistic.finalise(statistic.update(statistic.init(data.info()), spikes, masked)))
    _expect_equal(values[0], values[1], "spikes in masked bins (warm-up, past a trial's end) change the statistic; use chunk.mask.")


def _check_order(statistic: Statistic) -> None:
    data, permuted = toy_binned(_N), toy_binned(_N, order=np.array([2, 0, 1]))
    value, again = (_accumulate(statistic, one, _whole(one)) for one in (data, permuted))
    is_same_shape = value.shape == again.shape
    values = [np.sort(x.double().numpy().ravel()) for x in (value, again)]
    expect(
        is_same_shape and np.allclose(*values, rtol=1e-9, atol=1e-9, equal_nan=True),
        "with the neurons in another order the statistic's values are other ones, not the same in another order.",
    )


def _check_silence(statistic: Statistic) -> None:
    data = toy_binned(_N)
    silent = [replace(chunk, row_pointer=np.zeros_like(chunk.row_pointer)) for chunk in _whole(data)]
    value = _accumulate(statistic, data, silent)
    expect(not bool(torch.isinf(value).any()), "without spikes the statistic holds infinite values; use NaN where it is not defined.")


def _check_expected(statistic: Statistic) -> None:
    """Spikes that are certain given their past are their own means: the statistic must be what it is without them."""
    takes = getattr(statistic, "takes_expected", False)
    if not takes:
        raise NotChecked("takes_expected is False")
    data = toy_binned(_N)
    acc, plain = statistic.init(data.info()), statistic.init(data.info())
    for chunk in data.chunks(11, batch_trials=data.n_trials, carry=True):
        spikes = chunk.dense("float64")
        if takes == "binary":
            spikes = spikes.clamp(max=1.0)
        acc = statistic.update(acc, spikes, chunk, expected=Expected(spikes, spikes.square()))
        plain = statistic.update(plain, spikes, chunk)
    _expect_equal(
        statistic.finalise(acc),
        statistic.finalise(plain),
        "given the spikes themselves as expected counts the statistic differs from that of the spikes.",
    )


def _check_gradient(statistic: Statistic) -> None:
    if not getattr(statistic, "is_differentiable", True):
        raise NotChecked("is_differentiable is False")
    data = toy_binned(_N)

    def value(spikes: torch.Tensor, chunk: SpikeChunk) -> torch.Tensor:
        found = statistic.finalise(statistic.update(statistic.init(data.info()), spikes, chunk))
        return found[torch.isfinite(found)].sum()

    short = data.chunk(range(data.n_trials), 0, 30)
    spikes = short.dense("float64").requires_grad_()
    if (found := value(spikes, short)).requires_grad:
        (gradient,) = torch.autograd.grad(found, spikes)
        expect(
            bool(torch.isfinite(gradient).all()),
            "on short data, values that are not defined (NaN) make the gradient of the others NaN. Divide by a safe number first, then "
            "put NaN with torch.where.",
        )
    chunk = _whole(data)[0]
    spikes = chunk.dense("float64").requires_grad_()
    expect(
        value(spikes, chunk).requires_grad,
        "the value carries no gradient of the spikes. If that is meant, set is_differentiable = False, so that losses can refuse it.",
    )
    try:
        torch.autograd.gradcheck(lambda x: value(x, chunk), (spikes,), eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)
    except RuntimeError as error:
        raise Mismatch(f"torch's gradient disagrees with finite differences in float64: {' '.join(str(error).split())[:300]}") from error
