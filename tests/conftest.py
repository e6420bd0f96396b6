"""What all tests share: real recordings where there are any, small made ones, fresh buffers full of NaN, no settings of the user."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from fitspike.recording.recording import Recording, Signal
from fitspike.rng import Stream

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real recordings; skip where there is none."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FITSPIKE_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real recordings are missing: no folder {folder}; set FITSPIKE_DATA")
    return folder


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let no plugin switch and no configuration file of the user's reach a test."""
    for name in ("FITSPIKE_PLUGINS", "FITSPIKE_PLUGIN_TRACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-config"))


@pytest.fixture(autouse=True)
def buffers_full_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill fresh float buffers with NaN, so that memory read before it is written shows."""

    def filled(make):
        def fresh(*args, **kwargs):
            buffer = make(*args, **kwargs)
            if isinstance(buffer, np.ndarray):
                if buffer.dtype.kind in "fc":
                    buffer[...] = np.nan
            elif buffer.is_floating_point():
                buffer.detach().fill_(float("nan"))
            return buffer

        return fresh

    modules = [np] + ([sys.modules["torch"]] if "torch" in sys.modules else [])
    with_nan = {(module, name): filled(getattr(module, name)) for module in modules for name in ("empty", "empty_like")}
    real = {(module, name): getattr(module, name) for module, name in with_nan}
    compile_kernel = Dispatcher.compile

    def compile_with_real_buffers(self, *args, **kwargs):
        """numba knows numpy's functions by identity, so that a kernel cannot be compiled while they are replaced."""
        replaced = {(module, name): getattr(module, name) for module, name in real}
        for (module, name), function in real.items():
            setattr(module, name, function)
        try:
            return compile_kernel(self, *args, **kwargs)
        finally:
            for (module, name), function in replaced.items():
                setattr(module, name, function)

    monkeypatch.setattr(Dispatcher, "compile", compile_with_real_buffers)
    for (module, name), function in with_nan.items():
        monkeypatch.setattr(module, name, function)


@pytest.fixture
def small_recording() -> Recording:
    """Return 5 neurons (one silent) firing at 2 to 20 Hz for 20 s, with a stimulus of 2 channels at 100 Hz and cues every 2 s."""
    generator = Stream(0, "tests/small recording").numpy()
    trains = [np.sort(generator.uniform(0, 20, generator.poisson(20 * rate))) for rate in (2.0, 5.0, 10.0, 20.0)]
    stimulus = Signal(generator.standard_normal((2000, 2)).astype(np.float32), 100.0, unit="cm", channels=("x", "y"))
    cues = np.arange(1, 20, 2) * 1_000_000_000
    recording = Recording.from_trains([*trains, []], start_s=0, stop_s=20, signals={"stimulus": stimulus}, events={"cue": cues})
    columns = {
        "contamination": [0.01, 0.2, 0.04, np.nan, 0.0],
        "quality": ["good", "mua", "good", "good", "mua"],
        "population": list("EEIII"),
    }
    return recording.attach(neuron_columns=columns)


@pytest.fixture
def trial_recording() -> Recording:
    """Return 3 neurons in 12 trials of two conditions that differ in length (0.4 to 0.6 s); trial 7 holds no spike."""
    generator = Stream(0, "tests/trial recording").numpy()
    lengths = np.tile([0.4, 0.5, 0.6], 4)
    trains = [
        [np.sort(generator.uniform(0, length, 0 if k == 7 else generator.poisson(length * 20))) for _ in range(3)]
        for k, length in enumerate(lengths)
    ]
    columns = {"repeat": np.repeat(np.arange(6), 2)}
    return Recording.from_trials(trains, durations_s=lengths, conditions=["left", "right"] * 6, trial_columns=columns)
