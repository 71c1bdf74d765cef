"""Which backend computes a bundle here, and why. Imports only what is tried, so that ONNX never loads torch.

`auto` measures those that are worth trying on the device and takes the quickest; docs/backends.md names them.
"""

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.bundle import Bundle
from service.backends.base import BackendError, Capacity, Precision, StageBackend
from service.backends.cuda import cuda_devices

Named = Literal["onnx", "eager", "compiled", "cudagraph", "compiled-cudagraph"]
Device = Literal["cpu", "cuda", "tensorrt"]

Open = Callable[[], StageBackend]

_TIMED_RUNS = 3
# While one batch is computed the next is gathered and launched. Two keep a device busy.
_CUDA_LANES = 2


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for. `precision` is for the backends of PyTorch; ONNX computes in float32.

    `cpus` may be used. `threads` of a batch's computation and `lanes`, batches at once, may be 0: what suits.
    """

    backend: Literal["auto"] | Named
    device: Literal["auto"] | Device
    cpus: int
    capacity: Capacity
    precision: Precision = "float32"
    threads: int = 0
    lanes: int = 0


@dataclass(frozen=True)
class Chosen:
    """A backend, and for the log why it is this one."""

    backend: StageBackend
    why: str


def open_backend(bundle: Bundle, wanted: Wanted) -> Chosen:
    """Raises `BackendError` with the way out."""
    if wanted.device != "auto":
        return _open_on(wanted.device, bundle, wanted)
    if cuda_devices() == 0:
        return _open_on("cpu", bundle, wanted)
    try:
        return _open_on("cuda", bundle, wanted)
    except BackendError as error:
        on_cpu = _open_on("cpu", bundle, wanted)
        return Chosen(on_cpu.backend, f"{on_cpu.why}; there is a CUDA device, but {error}")


def quickest(candidates: Mapping[str, Open], measure: Callable[[StageBackend], float]) -> Chosen:
    """The candidate with the smallest `measure`; one that cannot be opened or measured does not count.

    A single candidate is not measured. Raises `BackendError` where none can be opened.
    """
    best: StageBackend | None = None
    best_s = float("inf")
    told = []
    for name, open_candidate in candidates.items():
        try:
            backend = open_candidate()
            if len(candidates) == 1:
                return Chosen(backend, "nothing else can compute this bundle here")
            seconds = measure(backend)
        except Exception as error:  # Whatever a runtime raises here, another candidate may do.
            told.append(f"{name} cannot ({error})")
            continue
        told.append(f"{name} {1e3 * seconds:.3g} ms an image")
        if seconds < best_s:
            best, best_s = backend, seconds
    if best is None:
        raise BackendError("; ".join(told))
    return Chosen(best, f"measured at full depth: {', '.join(told)}")


def image_seconds(backend: StageBackend, size_px: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds an image through all stages, in the largest batches; the fastest of a few, after a first of each."""
    images = min(backend.buckets[-1], backend.slots)
    grey = np.full((3, size_px, size_px), 128, np.uint8)
    slots = [backend.begin(grey) for _ in range(images)]
    total_s = 0.0
    try:
        for stage in range(1, backend.stages + 1):
            timed = []
            for _ in range(1 + _TIMED_RUNS):
                began_s = clock()
                output = backend.run(stage, slots)
                timed.append(clock() - began_s)
            output.keep(range(images))
            total_s += min(timed[1:])
    finally:
        for slot in slots:
            backend.release(slot)
    return total_s / images


def _open_on(device: Device, bundle: Bundle, wanted: Wanted) -> Chosen:
    if wanted.backend != "auto":
        return Chosen(_open(wanted.backend, device, bundle, wanted), "asked for")
    has_graphs = bundle.onnx is not None and _is_installed("onnxruntime") and wanted.precision == "float32"
    has_torch = _is_installed("torch")
    if device == "cpu" and has_graphs:
        # To compare it with PyTorch would cost every start seconds and hundreds of megabytes that stay.
        why = "the bundle has ONNX graphs" + ("; PyTorch is not loaded to compare" if has_torch else "")
        return Chosen(_open("onnx", device, bundle, wanted), why)
    names: list[Named] = []
    if has_torch and device != "tensorrt":
        names += ["cudagraph", "eager"] if device == "cuda" else ["eager"]
    if has_graphs:
        names.append("onnx")
    if not names:
        raise BackendError(
            f"{bundle.path} cannot be computed here: it needs its ONNX graphs (`dvt export`) and onnxruntime, or torch"
        )

    def opener(name: Named) -> Open:
        return lambda: _open(name, device, bundle, wanted)

    size_px = bundle.config.input.size_px
    return quickest({name: opener(name) for name in names}, lambda backend: image_seconds(backend, size_px))


def _open(name: Named, device: Device, bundle: Bundle, wanted: Wanted) -> StageBackend:
    if name == "onnx":
        return _open_onnx(device, bundle, wanted)
    if not _is_installed("torch"):
        raise BackendError("torch is not installed: `make setup` installs it, or use --backend onnx")
    import torch

    if device == "tensorrt":
        raise BackendError(f"TensorRT computes ONNX graphs, the {name} backend has none; use --backend onnx")
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("PyTorch has no CUDA device here (torch.cuda.is_available() is false); use --device cpu")
    if device == "cpu":
        _one_lane(name, wanted)
    threads, lanes = wanted.threads or wanted.cpus, wanted.lanes or (_CUDA_LANES if device == "cuda" else 1)
    arguments = (bundle, device, threads, wanted.capacity, wanted.precision)
    if name == "eager":
        from service.backends.eager import EagerBackend

        return EagerBackend(*arguments, lanes=lanes)
    if name == "compiled":
        from service.backends.compiled import CompiledBackend

        return CompiledBackend(*arguments, lanes=lanes)
    if device == "cpu":
        raise BackendError(f"the {name} backend needs a CUDA device; use --backend onnx, eager or compiled")
    from service.backends.cudagraph import CompiledCudaGraphBackend, CudaGraphBackend

    kind = CudaGraphBackend if name == "cudagraph" else CompiledCudaGraphBackend
    return kind(*arguments, lanes=lanes)


def _open_onnx(device: Device, bundle: Bundle, wanted: Wanted) -> StageBackend:
    if not _is_installed("onnxruntime"):
        raise BackendError("onnxruntime is not installed: pip install onnxruntime")
    if wanted.precision != "float32":
        raise BackendError(
            f"the onnx backend computes in float32, not {wanted.precision} (DVT_PRECISION); "
            "use --backend cudagraph, compiled or eager"
        )
    if device == "cpu":
        from service.backends.onnx import OnnxBackend

        # Best a thread for each batch: those that share one spend much of their time waiting for each other.
        threads = wanted.threads or max(1, wanted.cpus // (wanted.lanes or wanted.cpus))
        lanes = wanted.lanes or max(1, wanted.cpus // threads)
        return OnnxBackend(bundle, threads, wanted.capacity, lanes=lanes)
    if not _is_installed("onnx"):
        raise BackendError(
            "onnx is not installed, which makes the graphs that move state on a device: pip install onnx"
        )
    from service.backends.onnx_device import CUDA, TENSORRT, OnnxDeviceBackend

    _one_lane(f"onnx on {device}", wanted)
    threads = wanted.threads or wanted.cpus
    return OnnxDeviceBackend(bundle, CUDA if device == "cuda" else TENSORRT, threads, wanted.capacity)


def _one_lane(name: str, wanted: Wanted) -> None:
    if wanted.lanes > 1:
        raise BackendError(
            f"{name} computes one batch at a time, {wanted.lanes} lanes were asked for (DVT_LANES); "
            "several are for the onnx backend on a CPU, and for PyTorch on a GPU"
        )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
