"""A leaky readout of hidden neurons, trained against a target signal: regression or classification of what a network does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from fitspike.errors import InvalidInputError, Problems, did_you_mean
from fitspike.kernels.spike_trace import spike_trace
from fitspike.losses.base import LossContext, LossTerms, Traces
from fitspike.params import ParamSpec
from fitspike.rng import Stream

if TYPE_CHECKING:
    from fitspike.recording.binned import BinnedSpikes
    from fitspike.recording.info import DataInfo

ERRORS = ("squared", "cross_entropy")
SCALINGS = ("one_minus_decay", "unit")
CLASSIFIED = ("bin", "decision")


def leaky_readout(name: str, spikes: torch.Tensor, weight: torch.Tensor, decay: torch.Tensor, gain: float) -> torch.Tensor:
    """Return the outputs of a leaky readout without bias, (n_trials, n_bins, n_out), differentiable.

    y_t = decay y_{t-1} + gain weight z_t, which is weight applied to the spikes z filtered; without delay.

    Parameters
    ----------
    name : of the loss that reads
    spikes : Tensor, (n_trials, n_bins, n_neurons)
    weight : Tensor, (n_out, n_neurons)
    decay : Tensor, (1,), per bin; gain : omega in the literature
    """
    current = gain * (spikes @ weight.T)
    return spike_trace(current, decay, current.new_zeros(current.shape[0], current.shape[2], 1))[..., 0]


@dataclass(frozen=True)
class Readout:
    """Error of a leaky readout of the hidden neurons against a target signal, with the recorded neurons clamped: input to a task.

    zbar_t = kappa zbar_{t-1} + omega z_t,    y_t = W zbar_t + b,    kappa = exp(-dt / tau_out)
    squared: 1/2 sum_k (y_k - y*_k)^2;    cross_entropy: -sum_k y*_k log softmax(y)_k

    averaged over trials and bins, each bin with its weight (Bellec et al. 2020, Nature Communications 11:3625). Parameters: weight
    (n_out, n_hidden) and, with `bias`, bias (n_out,). Logged beside the term, for batches that have it: "readout_nmse", summed squared
    error divided by that of the target's mean (not for a constant target), or "readout_error", the fraction of decisions that are wrong
    (not without any); a decision is the largest mean output over successive bins of one target class.

    error : "squared" or "cross_entropy" (targets then are 1 for the class and 0 elsewhere, all 0 where there is none)
    classify : "bin", or "decision": the cross-entropy of the mean output of each decision, averaged over decisions (as in the code of
        Bellec et al. 2018, NeurIPS 31); targets then are 0 or 1
    target : name of the signal (n_bins, n_out)
    target_weight : name of a signal (n_bins, 1) with the weight of each bin; "": 1, or 0 where a class is asked for and there is none
    tau_out_ms : time constant of the readout
    output_scaling : omega, "one_minus_decay" (1 - kappa) or "unit" (1)
    bias : whether there is b, which starts at 0
    weight_init : standard deviation of the initial weights times the root of n_hidden
    """

    name: ClassVar[str] = "readout"
    needs: ClassVar[frozenset[str]] = frozenset({"chunk"})
    error: str = "squared"
    classify: str = "bin"
    target: str = "target"
    target_weight: str = ""
    tau_out_ms: float = 20.0
    output_scaling: str = "one_minus_decay"
    bias: bool = True
    weight_init: float = 1.0

    def __post_init__(self) -> None:
        problems = Problems(f"loss {self.name!r}")
        for name, value, known in (
            ("error", self.error, ERRORS),
            ("classify", self.classify, CLASSIFIED),
            ("output_scaling", self.output_scaling, SCALINGS),
        ):
            if value not in known:
                problems.add(f"{name}={value!r} is unknown{did_you_mean(value, known)} Known: {', '.join(known)}.")
        if self.classify == "decision" and self.error == "squared":
            problems.add("classify='decision' is for error='cross_entropy': a squared error has no decisions. Leave one of them out.")
        if not self.tau_out_ms > 0:
            problems.add(f"tau_out_ms={self.tau_out_ms} must be positive.")
        if not self.weight_init >= 0:
            problems.add(f"weight_init={self.weight_init} must not be negative.")
        problems.raise_if_any()

    def decay(self, dt_ms: float) -> float:
        """Return kappa."""
        return float(np.exp(-dt_ms / self.tau_out_ms))

    def gain(self, dt_ms: float) -> float:
        """Return omega."""
        return 1.0 - self.decay(dt_ms) if self.output_scaling == "one_minus_decay" else 1.0

    def check(self, binned: BinnedSpikes, model: Any) -> None:
        """Raise where the target drives the network or is none of classes, or the bins' weights are none."""
        info = binned.info()
        if self.target in info.signals and hasattr(model, "inputs") and self.target in model.inputs(info):
            raise InvalidInputError(
                f"loss {self.name!r} compares with signal {self.target!r}, which is also an input of {model.name!r}. Set its `signals` to "
                "those that are inputs, or to () for none."
            )
        problems = Problems(f"loss {self.name!r}")
        if self.target in binned.source_signals and self.error == "cross_entropy":
            target = binned.source_signals[self.target].values
            if target.shape[1] < 2:
                problems.add(f"cross_entropy asks for one of several classes, and target {self.target!r} has one channel. Use 'squared'.")
            elif target.min() < 0 or target.sum(1).max() > 1 + 1e-6 or target.max() <= 0:
                problems.add(
                    f"cross_entropy asks for a target of 1 in the channel of the class and 0 elsewhere, or all 0 where there is none; "
                    f"{self.target!r} lies between {target.min():.3g} and {target.max():.3g}, with sums up to {target.sum(1).max():.3g}. "
                    "Use 'squared' for values."
                )
            elif self.classify == "decision" and not np.isin(target, (0, 1)).all():
                problems.add(
                    f"classify='decision' asks for one right class in each bin, and {self.target!r} has values between 0 and 1. Use 'bin'."
                )
        if self.target_weight in binned.source_signals:
            weight = binned.source_signals[self.target_weight].values
            if weight.shape[1] != 1:
                problems.add(f"target_weight={self.target_weight!r} has {weight.shape[1]} channels; expected one, the weight of each bin.")
            elif weight.min() < 0 or weight.max() <= 0:
                problems.add(
                    f"target_weight={self.target_weight!r} lies between {weight.min():.3g} and {weight.max():.3g}; expected weights "
                    "that are not negative, some of them positive."
                )
        problems.raise_if_any()

    def param_specs(self, model: Any, data: DataInfo) -> Mapping[str, ParamSpec]:
        """Return weight and bias."""
        n_hidden = getattr(model, "n_hidden", 0)
        if not n_hidden or not hasattr(model, "clamped"):
            raise InvalidInputError(
                f"loss {self.name!r} reads hidden neurons, and {model.name!r} has none. Use model='spiking-network' with n_hidden."
            )
        for name in filter(None, (self.target, self.target_weight)):
            if name not in data.signals:
                raise InvalidInputError(
                    f"loss {self.name!r} compares with signal {name!r}{did_you_mean(name, data.signals)} The recording has: "
                    f"{', '.join(data.signals) or 'none'}."
                )
        n_out = int(data.signals[self.target])
        scale = self.weight_init / np.sqrt(n_hidden)

        def initial(stream: Stream) -> np.ndarray:
            return scale * stream.numpy().standard_normal((n_out, n_hidden))

        specs = {"weight": ParamSpec((n_out, n_hidden), "1", init=initial, axes=("output", "neuron"), symbol="W_out")}
        if self.bias:
            specs["bias"] = ParamSpec((n_out,), "1", axes=("output",), symbol="b_out")
        return specs

    def __call__(self, context: LossContext) -> LossTerms:
        """Return {"readout": mean error per trial and bin, or per decision}.

        Raises
        ------
        InvalidInputError
            If the chunk is not the whole of its trials: a readout has to see a trial from its beginning.
        """
        chunk = context.chunk
        if not chunk.is_first or int(np.max(context.data.bins_per_trial)) > chunk.n_bins:
            raise InvalidInputError(
                f"loss {self.name!r} reads whole trials, and chunks have {chunk.n_bins} bins. Set n_bins of [batch] to at least "
                f"{int(np.max(context.data.bins_per_trial))}."
            )
        output, target, weight = self._compared(context)
        total = weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        if self.error == "squared":
            value = (weight * 0.5 * (output - target).square().sum(-1)).sum() / total
            metric, found = "nmse", _nmse(output.detach(), target, weight)
        else:
            decided, wanted = _decisions(output, target, weight)
            wrong = (decided.argmax(-1) != wanted).double()
            metric, found = "error", float(wrong.mean()) if len(wrong) else float("nan")
            if self.classify == "bin":
                value = -(weight * (target * torch.log_softmax(output, dim=-1)).sum(-1)).sum() / total
            else:
                value = torch.nn.functional.cross_entropy(decided, wanted) if len(wanted) else output.sum() * 0.0
        if np.isfinite(found):
            context.metrics[f"{self.name}_{metric}"] = found
        return {self.name: value}

    def traces(self, context: LossContext) -> Traces:
        """Return the outputs, or for cross_entropy the probabilities of the classes, beside the target."""
        output, target, weight = self._compared(context)
        is_class = self.error == "cross_entropy"
        return Traces(torch.softmax(output, dim=-1) if is_class else output, target, weight, is_class)

    def _compared(self, context: LossContext) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return outputs and target, (n_trials, n_bins, n_out), and the weight of each bin."""
        output = self.outputs(context)
        target = torch.as_tensor(context.chunk.signal_values[self.target], dtype=output.dtype, device=output.device)
        return output, target, self._bin_weight(context, target)

    def outputs(self, context: LossContext) -> torch.Tensor:
        """Return y, (n_trials, n_bins, n_out)."""
        own, spikes = context.own(self), context.clamped.latents["hidden_spikes"]
        decay = spikes.new_full((1,), self.decay(context.chunk.dt_ms))
        read = context.readout_by or leaky_readout
        output = read(self.name, spikes, own["weight"], decay, self.gain(context.chunk.dt_ms))
        return output + own["bias"] if self.bias else output

    def _bin_weight(self, context: LossContext, target: torch.Tensor) -> torch.Tensor:
        """Return the weight of each bin, (n_trials, n_bins), 0 outside the mask."""
        weight = context.chunk.mask.to(target.device).to(target.dtype)
        if self.error == "cross_entropy":
            weight = weight * target.sum(-1)
        if self.target_weight:
            given = torch.as_tensor(context.chunk.signal_values[self.target_weight], dtype=target.dtype, device=target.device)
            weight = weight * given[..., 0]
        return weight


def _nmse(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> float:
    """Return the summed squared error divided by that of each channel's mean; NaN for a constant target."""
    weight = weight.unsqueeze(-1)
    mean = (weight * target).sum((0, 1)) / weight.sum((0, 1))
    return float((weight * (output - target).square()).sum() / (weight * (target - mean).square()).sum())


def _decisions(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean outputs (n_decisions, n_out) and the right class (n_decisions,): one for each run of successive bins of a class."""
    label = torch.where(weight > 0, target.argmax(-1), -1)  # (n_trials, n_bins)
    is_new = torch.ones_like(label, dtype=torch.bool)
    is_new[:, 1:] = label[:, 1:] != label[:, :-1]
    run, wanted = torch.cumsum(is_new.flatten(), 0) - 1, label.flatten()[is_new.flatten()]
    summed = output.new_zeros(len(wanted), output.shape[-1]).index_add(0, run, (weight.unsqueeze(-1) * output).flatten(0, 1))
    total = output.new_zeros(len(wanted)).index_add(0, run, weight.flatten())
    is_asked = wanted >= 0
    return summed[is_asked] / total[is_asked].unsqueeze(-1), wanted[is_asked]
