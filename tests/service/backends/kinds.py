"""Every backend that can be opened here, and those for a GPU, by name: what the conformance suite runs over.

What needs CUDA is run on the CPU as far as it goes: `cudagraph` with its buckets and buffers but no capture, ONNX
Runtime's I/O binding with its tables in this machine's memory. Stages that are computed elsewhere are so here, by what
computes them there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from deploy.ray_serve.remote_stages import RemoteStages
from models.bundle import Bundle
from service.backends.base import Capacity, Precision, StageBackend
from service.backends.compiled import CompiledBackend
from service.backends.cudagraph import CompiledCudaGraphBackend, CudaGraphBackend
from service.backends.eager import EagerBackend
from service.backends.layout import state_layout
from service.backends.onnx import OnnxBackend
from service.backends.onnx_device import CUDA, Device, OnnxDeviceBackend
from service.backends.torch_backend import TorchBackend

# Largest difference of a logit, over the largest logit of the reference; see docs/backends.md.
BOUNDS: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}

CAPACITY = Capacity(images=16, state_bytes=1 << 20, max_batch=6)

HERE = Device("cpu", "CPUExecutionProvider")


@dataclass(frozen=True)
class Kind:
    """How to open one backend, and the precision that it computes in."""

    open: Callable[[Bundle, Capacity], StageBackend]
    precision: Precision = "float32"


def _torch(kind: Callable[..., StageBackend], device: str, precision: Precision = "float32", **options: Any) -> Kind:
    return Kind(lambda bundle, capacity: kind(bundle, device, 1, capacity, precision, **options), precision)


def _remote(bundle: Bundle, capacity: Capacity) -> RemoteStages:
    from benchmarks.ray_scripted import InProcess
    from deploy.ray_serve.compute import OnnxStage

    stages = [OnnxStage(bundle, number, 1) for number in range(1, bundle.config.exits + 1)]
    return RemoteStages("onnx", state_layout(bundle.config), InProcess(stages), capacity, lanes=1)


_serves = pytest.mark.skipif(find_spec("pydantic") is None, reason="needs what the service stands on")
_gpu, _slow = pytest.mark.gpu, pytest.mark.slow
_onnx_gpu = pytest.mark.skipif(
    CUDA.provider not in ort.get_available_providers(), reason="needs onnxruntime-gpu in place of onnxruntime"
)

FLOAT32 = [
    pytest.param(_torch(EagerBackend, "cpu"), id="eager"),
    pytest.param(Kind(lambda bundle, capacity: OnnxBackend(bundle, 1, capacity, lanes=2)), id="onnx"),
    pytest.param(Kind(lambda bundle, capacity: OnnxDeviceBackend(bundle, HERE, 1, capacity)), id="onnx-binding"),
    pytest.param(Kind(_remote), id="remote-stages", marks=_serves),
    pytest.param(_torch(CompiledBackend, "cpu", compiler="aot_eager"), id="compiled-graph"),
    pytest.param(_torch(CudaGraphBackend, "cpu", lanes=2), id="cudagraph-buffers"),
    pytest.param(_torch(CompiledBackend, "cpu"), id="compiled", marks=_slow),
    pytest.param(_torch(EagerBackend, "cuda", lanes=2), id="eager-cuda", marks=_gpu),
    pytest.param(_torch(CompiledBackend, "cuda", lanes=2), id="compiled-cuda", marks=_gpu),
    pytest.param(_torch(CudaGraphBackend, "cuda", lanes=2), id="cudagraph-cuda", marks=_gpu),
    pytest.param(_torch(CompiledCudaGraphBackend, "cuda", lanes=2), id="compiled-cudagraph-cuda", marks=_gpu),
    pytest.param(
        Kind(lambda bundle, capacity: OnnxDeviceBackend(bundle, CUDA, 1, capacity)),
        id="onnx-cuda",
        marks=[_gpu, _onnx_gpu],
    ),
]

HALF = [
    pytest.param(_torch(CudaGraphBackend, "cpu", "bfloat16", lanes=2), id="cudagraph-buffers-bfloat16"),
    pytest.param(_torch(CudaGraphBackend, "cpu", "float16", lanes=2), id="cudagraph-buffers-float16"),
    pytest.param(
        _torch(CompiledCudaGraphBackend, "cpu", "bfloat16", lanes=2, compiler="aot_eager"),
        id="compiled-cudagraph-buffers-bfloat16",
    ),
    pytest.param(_torch(CudaGraphBackend, "cuda", "bfloat16", lanes=2), id="cudagraph-cuda-bfloat16", marks=_gpu),
    pytest.param(_torch(CudaGraphBackend, "cuda", "float16", lanes=2), id="cudagraph-cuda-float16", marks=_gpu),
    pytest.param(
        _torch(CompiledCudaGraphBackend, "cuda", "bfloat16", lanes=2),
        id="compiled-cudagraph-cuda-bfloat16",
        marks=_gpu,
    ),
]


TORCH = [kind for kind in (*FLOAT32, *HALF) if str(kind.id).startswith(("eager", "compiled", "cudagraph"))]


class BrokenRuntimeError(RuntimeError):
    """What `break_once` makes a backend raise."""


def break_once(backend: StageBackend, stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage's next batch is computed, and then the runtime raises; later ones work again."""
    if isinstance(backend, TorchBackend):
        monkeypatch.setattr(backend, "_compute", _raises_once(backend._compute))
        return
    if isinstance(backend, RemoteStages):
        monkeypatch.setattr(backend._cluster, "compute", _raises_once(backend._cluster.compute))
        return
    assert isinstance(backend, (OnnxBackend, OnnxDeviceBackend))
    sessions = backend._sessions.of_stage
    broken = (*sessions[: stage - 1], _BrokenOnce(sessions[stage - 1]), *sessions[stage:])
    monkeypatch.setattr(backend, "_sessions", replace(backend._sessions, of_stage=broken))


def _raises_once(function: Callable[..., Any]) -> Callable[..., Any]:
    calls = []

    def wrapped(*arguments: object) -> object:
        result = function(*arguments)
        calls.append(arguments)
        if len(calls) == 1:
            raise BrokenRuntimeError("scripted")
        return result

    return wrapped


class _BrokenOnce:
    """A session of ONNX Runtime whose first run raises at its end."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.run = _raises_once(session.run)
        self.run_with_iobinding = _raises_once(session.run_with_iobinding)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def images(count: int, seed: int = 1) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8))
