"""Makes the recording of `big_recording.py` and saves it."""

from __future__ import annotations

import time

from _workers import answer, given

import fitspike
from fitspike.rng import Stream

data = given()
duration_ns = int(float(data["duration_s"]) * 1e9)
random = Stream(0, "big recording").numpy()
rate_hz = random.gamma(2.0, size=int(data["n_neurons"]))
rate_hz *= float(data["rate_hz"]) / rate_hz.mean()
trains = [random.integers(0, duration_ns, random.poisson(hz * duration_ns * 1e-9)) for hz in rate_hz]
began = time.perf_counter()
recording = fitspike.Recording.from_trains(trains, unit="ns", stop_s=duration_ns * 1e-9)
make_s = time.perf_counter() - began
recording.save(str(data["path"]))
answer(make_s=make_s, n_spikes=recording.n_spikes)
