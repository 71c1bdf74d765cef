"""Which backend computes a bundle here. Imports only the one that is chosen, so that ONNX never loads torch."""

import importlib.util
from typing import Literal

from models.bundle import Bundle
from service.backends.base import BackendError, Capacity, StageBackend


def open_backend(
    bundle: Bundle,
    backend: Literal["auto", "onnx", "eager"],
    device: Literal["auto", "cpu", "cuda"],
    threads: int,
    capacity: Capacity,
) -> StageBackend:
    """The backend asked for; `auto` prefers ONNX Runtime. Raises `BackendError` with the way out."""
    if backend == "auto":
        backend = _preferred(bundle, device)
    if backend == "onnx":
        if device == "cuda":
            raise BackendError("the onnx backend computes on the CPU only; use --device cpu, or --backend eager")
        if importlib.util.find_spec("onnxruntime") is None:
            raise BackendError("onnxruntime is not installed: pip install onnxruntime")
        from service.backends.onnx import OnnxBackend

        return OnnxBackend(bundle, threads, capacity)
    if importlib.util.find_spec("torch") is None:
        raise BackendError("torch is not installed: `make setup` installs it, or use --backend onnx")
    from service.backends.eager import EagerBackend

    return EagerBackend(bundle, _torch_device(device), threads, capacity)


def _preferred(bundle: Bundle, device: str) -> Literal["onnx", "eager"]:
    has_torch = importlib.util.find_spec("torch") is not None
    if device == "cuda":
        return "eager"
    if bundle.onnx is not None and importlib.util.find_spec("onnxruntime") is not None:
        return "onnx"
    if has_torch:
        return "eager"
    raise BackendError(
        f"{bundle.path} cannot be computed here: it needs its ONNX graphs (`dvt export`) and onnxruntime, or torch"
    )


def _torch_device(device: Literal["auto", "cpu", "cuda"]) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("there is no CUDA device here (torch.cuda.is_available() is false); use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
