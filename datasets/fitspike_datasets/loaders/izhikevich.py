"""The network of 1000 Izhikevich neurons, 100 of them seen: its true weights."""

from pathlib import Path

from scipy import io

from fitspike.plugin import GroundTruth


def truth(paths: list[Path]) -> GroundTruth:
    """Return the weights among the recorded neurons. The file's SWM is [pre, post] and is turned here; delays are not given."""
    data = io.loadmat(paths[0], squeeze_me=True, struct_as_record=False)["data"]
    settings = {"connection_probability": float(data.pConnection), "n_simulated": 1000, "n_recorded": 100}
    return GroundTruth(weight=data.SWM.T.astype(float), settings=settings)
