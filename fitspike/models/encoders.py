"""Stimulus encoders: what turns raw signals, such as the frames of a movie, into features that drive every neuron of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch

from fitspike.citation import Citation
from fitspike.errors import InvalidInputError, Problems
from fitspike.params import ParamSpec
from fitspike.rng import Stream
from fitspike.types import Params

PREFIX = "encoder/"
"""Parameters of an encoder are called encoder/NAME in a model."""


@runtime_checkable
class StimulusEncoder(Protocol):
    """A frozen settings object. `n_past_bins` says how many bins before a bin its features depend on."""

    name: str
    n_past_bins: int

    def param_specs(self, n_channels: int) -> Mapping[str, ParamSpec]:
        """Return the specs of the encoder's own parameters for a signal of that many channels."""
        ...

    def n_features(self, n_channels: int) -> int:
        """Return how many features each bin has."""
        ...

    def features(self, params: Params, values: torch.Tensor) -> torch.Tensor:
        """Return the features (n_stimuli, n_bins, n_features) of signals (n_stimuli, n_past_bins + n_bins, n_channels)."""
        ...


@dataclass(frozen=True)
class ConvEncoder:
    """Convolutional network on movie frames: two layers of convolution, rectification and pooling by the largest.

    A bin sees `n_frames` frames, its own the last, as channels. Each layer: `kernel` x `kernel` filters that keep the size, rectification,
    largest of 3 x 3 pixels at every second pixel (the architecture of Bellec et al. 2021, NeurIPS 34, with 16 and 32 filters).

    height, width : of a frame in pixels; the signal has height * width channels, rows of the image one after the other
    """

    name: ClassVar[str] = "conv"
    citation: ClassVar[Citation] = Citation(
        "Bellec, Wang, Modirshanechi, Brea, Gerstner 2021, Fitting summary statistics of neural data with a differentiable spiking network "
        "simulator, Advances in Neural Information Processing Systems 34"
    )
    height: int
    width: int
    n_frames: int = 10
    n_filters: tuple[int, int] = (16, 32)
    kernel: int = 7

    def __post_init__(self) -> None:
        problems = Problems("conv encoder")
        for name in ("height", "width", "n_frames", "kernel"):
            if getattr(self, name) < 1:
                problems.add(f"{name}={getattr(self, name)} must be at least 1.")
        if self.kernel % 2 == 0:
            problems.add(f"kernel={self.kernel} must be odd, so that filters have a centre.")
        if len(self.n_filters) != 2 or min(self.n_filters) < 1:
            problems.add(f"n_filters={self.n_filters}; give two positive numbers.")
        problems.raise_if_any()

    @property
    def n_past_bins(self) -> int:
        """Return how many earlier frames a bin sees."""
        return self.n_frames - 1

    def n_features(self, n_channels: int) -> int:
        """Return pixels times filters after both poolings."""
        size = [math.ceil(math.ceil(side / 2) / 2) for side in (self.height, self.width)]
        return size[0] * size[1] * self.n_filters[1]

    def param_specs(self, n_channels: int) -> Mapping[str, ParamSpec]:
        """Return weights (n_filters, n_inputs, kernel, kernel), uniform within sqrt(6 / (fan in + fan out)), and biases."""
        if n_channels != self.height * self.width:
            raise InvalidInputError(
                f"the conv encoder expects frames of {self.height} x {self.width} = {self.height * self.width} channels; the model's "
                f"signals have {n_channels}. Name the movie alone in `signals`, or correct height and width."
            )
        specs: dict[str, ParamSpec] = {}
        n_in = self.n_frames
        for number, n_out in enumerate(self.n_filters, start=1):
            shape = (n_out, n_in, self.kernel, self.kernel)
            specs[f"weight_{number}"] = ParamSpec(
                shape, "1", init=_glorot(shape), axes=("filter", "input", "row", "column"), doc=f"filters of layer {number}"
            )
            specs[f"bias_{number}"] = ParamSpec((n_out,), "1", axes=("filter",), doc=f"bias of layer {number}")
            n_in = n_out
        return specs

    def features(self, params: Params, values: torch.Tensor) -> torch.Tensor:
        """Return the pooled maps of every bin, flattened; see the class."""
        n_stimuli, n_known, _ = values.shape
        n_bins = n_known - self.n_past_bins
        frames = values.reshape(n_stimuli, n_known, self.height, self.width)
        maps = frames.unfold(1, self.n_frames, 1).permute(0, 1, 4, 2, 3).reshape(-1, self.n_frames, self.height, self.width)
        for number in (1, 2):
            maps = torch.conv2d(maps, params[f"weight_{number}"], params[f"bias_{number}"], padding=self.kernel // 2)
            maps = torch.nn.functional.max_pool2d(torch.relu(maps), 3, stride=2, padding=1)
        return maps.reshape(n_stimuli, n_bins, -1)


def _glorot(shape: tuple[int, ...]) -> Callable[[Stream], np.ndarray]:
    area = int(np.prod(shape[2:]))
    bound = float(np.sqrt(6.0 / ((shape[0] + shape[1]) * area)))
    return lambda stream: stream.numpy().uniform(-bound, bound, shape)


@dataclass(frozen=True)
class ModuleEncoder:
    """Any torch module as an encoder.

    make(n_channels) returns a module that maps signals (n_stimuli, n_past_bins + n_bins, n_channels) to features (n_stimuli, n_bins,
    n_features). Its parameters are fitted with the network's, started where the module starts them, but for those that require no gradient;
    these and buffers stay as they are. The module runs in evaluation mode: no dropout, no statistics of batches.

    A run with a module is resumed and repeated from Python with the same `make`, not from its run.toml.
    """

    name: ClassVar[str] = "module"
    make: Callable[[int], torch.nn.Module]
    n_past_bins: int = 0
    _made: dict[int, torch.nn.Module] = field(default_factory=dict, repr=False, compare=False)

    def _module(self, n_channels: int) -> torch.nn.Module:
        if n_channels not in self._made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self._made[n_channels] = self.make(n_channels).eval()
        return self._made[n_channels]

    def n_features(self, n_channels: int) -> int:
        """Return what the module makes of a few bins."""
        module = self._module(n_channels)
        like = next(module.parameters(), torch.zeros(()))
        with torch.no_grad():
            made = module(like.new_zeros(1, self.n_past_bins + 2, n_channels))
        if made.ndim != 3 or tuple(made.shape[:2]) != (1, 2):
            raise InvalidInputError(
                f"the encoder's module made {tuple(made.shape)} of a signal of shape {(1, self.n_past_bins + 2, n_channels)}; expected "
                "(1, 2, n_features). Correct the module, or n_past_bins."
            )
        return int(made.shape[2])

    def param_specs(self, n_channels: int) -> Mapping[str, ParamSpec]:
        """Return a spec per parameter of the module."""
        return {
            name: ParamSpec(
                tuple(value.shape),
                "1",
                init=value.detach().double().numpy().copy(),
                trainable=value.requires_grad,
                doc="parameter of the encoder's module",
            )
            for name, value in self._module(n_channels).named_parameters()
        }

    def features(self, params: Params, values: torch.Tensor) -> torch.Tensor:
        """Return the module's output."""
        return torch.func.functional_call(self._module(values.shape[2]), dict(params), (values,))
