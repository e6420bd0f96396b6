"""The device and the kernel backend that a fit asks for, checked before it begins."""

from __future__ import annotations

from fitspike.errors import BackendError, UnknownNameError, counted, did_you_mean
from fitspike.kernels import dispatch

_STEP = "step"
"""Not a kernel's backend: models made of neurons are driven bin by bin with it."""


def check_device(device: str) -> None:
    """Raise an error of fitspike if a device by name is unknown or not there; "auto" and "cpu" always are."""
    if device in ("auto", "cpu"):
        return
    import torch

    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdigit() or device == "cuda"):
        raise UnknownNameError(f"no device {device!r}{did_you_mean(device, ('auto', 'cpu', 'cuda'))} Known: auto, cpu, cuda, cuda:NUMBER.")
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= n_devices:
        raise BackendError(
            f"device {device!r} is not there: PyTorch {torch.__version__} sees {counted(n_devices, 'CUDA device')}. "
            "Use device='auto' or 'cpu'; `fitspike info` lists the devices."
        )


def check_backend(backend: str) -> None:
    """Raise UnknownNameError if no kernel has a backend of that name. Whether it can run a call is found out at the call."""
    known = {one.backend for op in dispatch.operations() for one in dispatch.implementations(op)} | {"auto", _STEP}
    if backend not in known:
        raise UnknownNameError(f"no kernel has a backend {backend!r}{did_you_mean(backend, known)} Known: {', '.join(sorted(known))}.")
