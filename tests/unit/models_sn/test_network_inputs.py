"""What drives a network from outside: encoders against torch layers and by hand, bumps over trial time, repeats filtered once."""

import numpy as np
import pytest
import torch

import fitspike
from fitspike.errors import InvalidInputError
from fitspike.models.encoders import ConvEncoder, ModuleEncoder
from fitspike.models.network_inputs import external_current
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.srm import SRM
from fitspike.params import initial_params, to_tensors
from fitspike.recording.recording import Recording
from fitspike.recording.tables import Signal
from fitspike.rng import Stream

N_BINS, HEIGHT, WIDTH = 12, 9, 7


def movie_recording(n_trials=4, seed=0, same=True):
    rng = np.random.default_rng(seed)
    counts = [(rng.random((N_BINS, 3)) < 0.2).astype(int) for _ in range(n_trials)]
    frames = rng.normal(size=(N_BINS, HEIGHT * WIDTH))
    values = np.tile(frames, (n_trials, 1)) if same else rng.normal(size=(n_trials * N_BINS, HEIGHT * WIDTH))
    return Recording.from_counts(counts, dt_ms=40.0, conditions=["movie"] * n_trials, signals={"movie": Signal(values, 25.0, 0, "1")})


def parameters(model, binned, scale=1.0):
    params = to_tensors(initial_params(model.param_specs(binned.info()), Stream(0, "init")))
    rng = np.random.default_rng(1)
    return {name: value + scale * torch.as_tensor(0.1 * rng.normal(size=value.shape)) for name, value in params.items()}


def test_conv_encoder_is_two_torch_layers_on_stacked_frames():
    encoder = ConvEncoder(HEIGHT, WIDTH, n_frames=3, n_filters=(4, 5), kernel=3)
    values = torch.as_tensor(np.random.default_rng(0).normal(size=(2, N_BINS + 2, HEIGHT * WIDTH)))
    specs = encoder.param_specs(HEIGHT * WIDTH)
    params = {name: torch.as_tensor(value) for name, value in initial_params(specs, Stream(0, "x")).items()}
    found = encoder.features(params, values)
    layers = []
    for number, n_in in ((1, 3), (2, 4)):
        conv = torch.nn.Conv2d(n_in, encoder.n_filters[number - 1], 3, padding=1).double()
        conv.load_state_dict({"weight": params[f"weight_{number}"], "bias": params[f"bias_{number}"]})
        layers += [conv, torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, padding=1)]
    network = torch.nn.Sequential(*layers)
    for k, t in ((0, 0), (1, 7)):
        stack = values[k, t : t + 3].reshape(1, 3, HEIGHT, WIDTH)  # the frame of bin t is the last
        torch.testing.assert_close(found[k, t], network(stack).flatten())
    assert found.shape == (2, N_BINS, encoder.n_features(HEIGHT * WIDTH)) == (2, N_BINS, 3 * 2 * 5)


def test_sizes_of_the_published_encoder():
    """27 x 27 pixels, 10 frames: 1568 features and 32,976 parameters (science note, section 1.2)."""
    encoder = ConvEncoder(27, 27)
    assert encoder.n_features(729) == 1568
    assert sum(int(np.prod(spec.shape)) for spec in encoder.param_specs(729).values()) == 32_976


def test_encoder_reads_the_frames_before_a_chunk():
    binned = movie_recording().bin()
    model = SpikingNetwork(encoder=ConvEncoder(HEIGHT, WIDTH, n_frames=3, n_filters=(2, 2), kernel=3))
    params = parameters(model, binned)
    whole, _ = external_current(model, params, binned.chunk([0, 1], 0, N_BINS), None)
    first, past = external_current(model, params, binned.chunk([0, 1], 0, 5), None)
    second, _ = external_current(model, params, binned.chunk([0, 1], 5, N_BINS - 5), past)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


@pytest.mark.parametrize("same", [True, False])
def test_repeats_are_filtered_once_and_give_the_same(same):
    binned = movie_recording(same=same).bin()
    model = SpikingNetwork(signal_before_ms=120.0, n_signal=3)
    params = parameters(model, binned)
    together, _ = external_current(model, params, binned.chunk([0, 1, 0, 3], 0, N_BINS), None)
    for row, trial in enumerate([0, 1, 0, 3]):
        alone, _ = external_current(model, params, binned.chunk([trial], 0, N_BINS), None)
        torch.testing.assert_close(together[row], alone[0])


def test_a_torch_module_encodes_and_is_fitted():
    def make(n_channels):
        return torch.nn.Sequential(torch.nn.Linear(n_channels, 4), torch.nn.Tanh())

    recording = movie_recording(8)
    model = SpikingNetwork(encoder=ModuleEncoder(make), neuron=SRM(post_spike_tau_ms=()))
    result = fitspike.fit(
        recording, model=model, split="none", stop={"max_steps": 5}, report=False, progress="off", simulation={"max_seconds": 0}
    )
    assert result.params["encoder/0.weight"].shape == (4, HEIGHT * WIDTH)
    started = make(HEIGHT * WIDTH)
    assert started[0].weight.shape == result.params["encoder/0.weight"].shape
    before = model.param_specs(recording.bin().info())["encoder/0.weight"].init
    assert np.abs(result.params["encoder/0.weight"] - before).max() > 1e-3


def test_a_torch_module_encodes_without_chance_and_keeps_its_buffers_and_frozen_parameters():
    def make(n_channels):
        module = torch.nn.Sequential(
            torch.nn.Linear(n_channels, 4), torch.nn.LayerNorm(4), torch.nn.Dropout(0.5), torch.nn.Unflatten(2, (4, 1)), Squeeze()
        )
        module[0].requires_grad_(False)
        return module

    class Squeeze(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(x.squeeze(3).transpose(1, 2)).transpose(1, 2)

    encoder = ModuleEncoder(make)
    specs = encoder.param_specs(3)
    params = {name: torch.as_tensor(np.asarray(spec.init), dtype=torch.float32) for name, spec in specs.items()}
    values = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    assert encoder.n_features(3) == 4
    first = encoder.features(params, values)
    torch.testing.assert_close(encoder.features(params, values), first, rtol=0, atol=0)
    torch.testing.assert_close(encoder.features(params, values[:1]), first[:1])
    assert not specs["0.weight"].trainable and specs["1.weight"].trainable


def test_time_bumps_are_the_conditions_own_and_sum_to_one():
    counts = [np.zeros((N_BINS, 2), int)] * 4
    binned = Recording.from_counts(counts, dt_ms=10.0, conditions=["a", "b", "a", "b"]).bin()
    model = SpikingNetwork(time_bumps=4)
    params = to_tensors(initial_params(model.param_specs(binned.info()), Stream(0, "init")))
    assert params["evoked"].shape == (2, 2, 4)
    params["evoked"][1, 1] = 3.0
    current, _ = external_current(model, params, binned.chunk(range(4), 0, N_BINS), None)
    expected = torch.zeros(4, N_BINS, 2)
    expected[1::2, :, 1] = 3.0
    torch.testing.assert_close(current, expected.double())
    params["evoked"][:] = 0.0
    params["evoked"][0, 0, 0] = 1.0  # the first bump peaks at the start and is 0 from a third of the trial on
    current, _ = external_current(model, params, binned.chunk([0], 0, N_BINS), None)
    assert current[0, 0, 0] > 0.9 and current[0, 4:, 0].abs().max() < 1e-9
    late, _ = external_current(model, params, binned.chunk([0], 2, 2), None)
    torch.testing.assert_close(late[0], current[0, 2:4])


def test_wrong_encoders_are_refused():
    recording = movie_recording()
    info = recording.bin().info()
    with pytest.raises(InvalidInputError, match="frames of 5 x 5 = 25 channels; the model's signals have 63"):
        SpikingNetwork(encoder=ConvEncoder(5, 5)).param_specs(info)
    with pytest.raises(InvalidInputError, match="no signal to encode"):
        SpikingNetwork(encoder=ConvEncoder(5, 5), signals=()).param_specs(info)
    with pytest.raises(InvalidInputError, match="must be odd"):
        ConvEncoder(5, 5, kernel=4)
    with pytest.raises(InvalidInputError, match="is no encoder"):
        SpikingNetwork(encoder="conv")
    with pytest.raises(InvalidInputError, match="at least 2"):
        SpikingNetwork(time_bumps=1)
    short = ModuleEncoder(lambda n: torch.nn.Linear(n, 3), n_past_bins=1)
    with pytest.raises(InvalidInputError, match="Correct the module, or n_past_bins"):
        short.n_features(4)


def test_free_lags_beside_hidden_neurons_come_with_a_warning():
    assert "not told apart" in SpikingNetwork(n_hidden=2, n_coupling=3).caveats()[0]
    assert SpikingNetwork(n_hidden=2).caveats() == () == SpikingNetwork(n_coupling=3).caveats()
