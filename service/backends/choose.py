"""Which backend computes a bundle here, and why. Imports only what is tried, so that ONNX never loads torch.

`auto` measures those that are worth trying on the device and takes the quickest; docs/backends.md names them. Of
several devices it measures on the first, and has the same on the others.
"""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from models.bundle import Bundle
from service.backends.base import BackendError, Capacity, Precision, StageBackend
from service.backends.cuda import cuda_devices
from service.backends.devices import Device, Kind, parse_devices

Named = Literal["onnx", "eager", "compiled", "cudagraph", "compiled-cudagraph"]

Open = Callable[[], StageBackend]

_TIMED_RUNS = 3
# While one batch is computed the next is gathered and launched. Two keep a device busy.
CUDA_LANES = 2


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for. `precision` is for the backends of PyTorch; ONNX computes in float32. `device`: one
    or several, as `parse_devices` reads them; with `alone` the first of them that there is.

    `cpus` may be used. `threads` of a batch's computation and `lanes`, batches at once, may be 0: what suits.
    """

    backend: Literal["auto"] | Named
    device: str
    cpus: int
    capacity: Capacity
    precision: Precision = "float32"
    threads: int = 0
    lanes: int = 0
    alone: bool = False


@dataclass(frozen=True)
class Chosen:
    """A backend by its name (`DVT_BACKEND`), and for the log why it is this one. `others`: the same on the devices
    after the first, in the order of `devices`."""

    name: str
    backend: StageBackend
    why: str
    devices: tuple[Device, ...] = (Device("cpu"),)
    others: tuple[StageBackend, ...] = ()


def open_backend(bundle: Bundle, wanted: Wanted) -> Chosen:
    """On every device that is wanted. Raises `BackendError`, or `ValueError` where `device` is none; both with the way
    out."""
    asked = parse_devices(wanted.device)
    if asked.kind == "cpu":
        return _open_on(Device("cpu"), bundle, wanted)
    if asked.kind == "auto":
        return _open_anywhere(bundle, wanted, cuda_devices())
    first, *others = _devices(asked.kind, asked.numbers, cuda_devices())
    chosen = _open_on(first, bundle, wanted)
    for device in () if wanted.alone else others:
        try:
            chosen = _beside(chosen, device, bundle, wanted)
        except Exception as error:  # Whatever a runtime raises for a device that it cannot use.
            raise BackendError(f"{device} cannot be used ({error}); name others (DVT_DEVICE)") from error
    return chosen


def _open_anywhere(bundle: Bundle, wanted: Wanted, there: int) -> Chosen:
    """On all CUDA devices that can be used, with none on the CPU."""
    chosen: Chosen | None = None
    unfit: dict[Device, Exception] = {}
    for device in (Device("cuda", number) for number in range(there)):
        if wanted.alone and chosen is not None:
            break
        try:
            chosen = _open_on(device, bundle, wanted) if chosen is None else _beside(chosen, device, bundle, wanted)
        except Exception as error:  # As above; and nobody has asked for just this device.
            unfit[device] = error
    if chosen is not None:
        told = [f"{device} is left out ({error})" for device, error in unfit.items()]
        return replace(chosen, why="; ".join((chosen.why, *told)))
    on_cpu = _open_on(Device("cpu"), bundle, wanted)
    told = [f"there is a CUDA device, but {error}" for error in unfit.values()]
    return replace(on_cpu, why="; ".join((on_cpu.why, *told[:1])))


def _devices(kind: Kind, numbers: Sequence[int], there: int) -> list[Device]:
    """Those of the numbers, or all; at least one, since of a machine without any its backend says best what is missing.
    Raises `BackendError`."""
    missing = [number for number in numbers if number >= there]
    if there and missing:
        raise BackendError(
            f"there is no {kind}:{missing[0]} here: this process sees {there} CUDA device(s), numbered from 0 "
            "(DVT_DEVICE; CUDA_VISIBLE_DEVICES limits them)"
        )
    return [Device(kind, number) for number in numbers or range(max(1, there))]


def _beside(chosen: Chosen, device: Device, bundle: Bundle, wanted: Wanted) -> Chosen:
    """The same on one more device."""
    backend = _open(chosen.name, device, bundle, wanted)
    return replace(chosen, devices=(*chosen.devices, device), others=(*chosen.others, backend))


def quickest(candidates: Mapping[str, Open], measure: Callable[[StageBackend], float]) -> Chosen:
    """The candidate with the smallest `measure`; one that cannot be opened or measured does not count.

    A single candidate is not measured. Raises `BackendError` where none can be opened.
    """
    best: Chosen | None = None
    best_s = float("inf")
    told = []
    for name, open_candidate in candidates.items():
        try:
            backend = open_candidate()
            if len(candidates) == 1:
                return Chosen(name, backend, "nothing else can compute this bundle here")
            seconds = measure(backend)
        except Exception as error:  # Whatever a runtime raises here, another candidate may do.
            told.append(f"{name} cannot ({error})")
            continue
        told.append(f"{name} {1e3 * seconds:.3g} ms an image")
        if seconds < best_s:
            best, best_s = Chosen(name, backend, ""), seconds
    if best is None:
        raise BackendError("; ".join(told))
    return replace(best, why=f"measured at full depth: {', '.join(told)}")


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
    return replace(_choose_on(device, bundle, wanted), devices=(device,))


def _choose_on(device: Device, bundle: Bundle, wanted: Wanted) -> Chosen:
    if wanted.backend != "auto":
        return Chosen(wanted.backend, _open(wanted.backend, device, bundle, wanted), "asked for")
    has_graphs = bundle.onnx is not None and _is_installed("onnxruntime") and wanted.precision == "float32"
    has_torch = _is_installed("torch")
    if device.kind == "cpu" and has_graphs:
        # To compare it with PyTorch would cost every start seconds and hundreds of megabytes that stay.
        why = "the bundle has ONNX graphs" + ("; PyTorch is not loaded to compare" if has_torch else "")
        return Chosen("onnx", _open("onnx", device, bundle, wanted), why)
    names: list[Named] = []
    if has_torch and device.kind != "tensorrt":
        names += ["cudagraph", "eager"] if device.kind == "cuda" else ["eager"]
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


def _open(name: str, device: Device, bundle: Bundle, wanted: Wanted) -> StageBackend:
    if name == "onnx":
        return _open_onnx(device, bundle, wanted)
    if not _is_installed("torch"):
        raise BackendError("torch is not installed: `make setup` installs it, or use --backend onnx")
    import torch

    if device.kind == "tensorrt":
        raise BackendError(f"TensorRT computes ONNX graphs, the {name} backend has none; use --backend onnx")
    if device.kind == "cuda" and not torch.cuda.is_available():
        raise BackendError("PyTorch has no CUDA device here (torch.cuda.is_available() is false); use --device cpu")
    if device.kind == "cpu":
        _one_lane(name, wanted)
    threads, lanes = wanted.threads or wanted.cpus, wanted.lanes or (CUDA_LANES if device.kind == "cuda" else 1)
    arguments = (bundle, str(device), threads, wanted.capacity, wanted.precision)
    if name == "eager":
        from service.backends.eager import EagerBackend

        return EagerBackend(*arguments, lanes=lanes)
    if name == "compiled":
        from service.backends.compiled import CompiledBackend

        return CompiledBackend(*arguments, lanes=lanes)
    if device.kind == "cpu":
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
    if device.kind == "cpu":
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
    through = replace(CUDA if device.kind == "cuda" else TENSORRT, number=device.number)
    return OnnxDeviceBackend(bundle, through, threads, wanted.capacity)


def _one_lane(name: str, wanted: Wanted) -> None:
    if wanted.lanes > 1:
        raise BackendError(
            f"{name} computes one batch at a time, {wanted.lanes} lanes were asked for (DVT_LANES); "
            "several are for the onnx backend on a CPU, and for PyTorch on a GPU"
        )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
