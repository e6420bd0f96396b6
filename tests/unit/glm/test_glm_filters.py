"""Filters by lag against the drive they cause: one spike, or one pulse of a signal, in an otherwise silent chunk."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitspike.models.base import DataInfo
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.params import to_tensors
from fitspike.recording.chunk import SpikeChunk

N_NEURONS, N_BINS, AT = 3, 60, 20


def chunk_with(spike_of=None, signal=None):
    """Return a chunk with one spike of a neuron at bin AT, and a signal (1, n_bins, 2)."""
    context = SpikeChunk.empty(1, N_BINS, N_NEURONS, 5.0, signals={"speed": np.zeros((1, N_BINS, 2)) if signal is None else signal})
    if spike_of is None:
        return context
    pointer = np.zeros((1, N_BINS + 1), np.int64)
    pointer[0, AT + 1 :] = 1
    return replace(context, row_pointer=pointer, event_neuron=np.array([spike_of], np.uint16))


@pytest.fixture
def fitted():
    model = CoupledGLM(history_ms=50.0, coupling_ms=30.0, condition_time=False, trial_time=False, drift_bumps=0, signals=("speed",),
                       signal_before_ms=40.0, signal_after_ms=15.0, n_signal=3, population_ms=0.0)  # fmt: skip
    data = DataInfo(N_NEURONS, 1, 5.0, np.array([N_BINS]), signals={"speed": 2}, mean_count=np.full(N_NEURONS, 0.01))
    rng = np.random.default_rng(0)
    params = {}
    for name, spec in model.param_specs(data).items():
        value = np.broadcast_to(np.asarray(spec.init if not callable(spec.init) else 0.0, float), spec.shape).copy()
        params[name] = rng.normal(0, 0.5, spec.shape) if spec.trainable and name != "bias" else value
    params["coupling"][np.arange(N_NEURONS), np.arange(N_NEURONS)] = 0
    return model, to_tensors(params)


def drive_over_silence(model, params, chunk):
    """Return the log of the expected counts with `chunk` over those without spikes and signal, (n_bins, n_neurons)."""
    value, _ = model.intensity(params, chunk)
    silent, _ = model.intensity(params, chunk_with())
    return (torch.log(value) - torch.log(silent))[0].numpy()


def test_spike_filters_are_what_a_spike_adds(fitted):
    model, params = fitted
    found = model.filters(params)
    np.testing.assert_allclose(found["history_lag_ms"], np.arange(1, 11) * 5.0)
    for pre in range(N_NEURONS):
        added = drive_over_silence(model, params, chunk_with(spike_of=pre))
        np.testing.assert_allclose(added[AT + 1 : AT + 11, pre], found["history"][pre], atol=1e-9)
        for (post, source), values in zip(found["coupling_pair"], found["coupling"], strict=True):
            if source == pre:
                np.testing.assert_allclose(added[AT + 1 : AT + 7, post], values, atol=1e-9)
    assert len(found["coupling_pair"]) == 6  # every ordered pair, none with itself


def test_signal_filters_are_what_a_pulse_adds(fitted):
    model, params = fitted
    found = model.filters(params)
    lags = np.rint(found["speed_lag_ms"] / 5.0).astype(int)
    assert lags.tolist() == list(range(-3, 9))
    for channel in range(2):
        pulse = np.zeros((1, N_BINS, 2))
        pulse[0, AT, channel] = 1.0
        added = drive_over_silence(model, params, chunk_with(signal=pulse))
        np.testing.assert_allclose(added[AT + lags], found["speed"][:, :, channel].T, atol=1e-9)
