"""Which backend computes a bundle, and why; what is told where one cannot."""

import gc
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import Bundle, read_bundle, write_graphs
from service.backends import choose
from service.backends.base import BackendError, Capacity, StageBackend
from service.backends.choose import Wanted, image_seconds, open_backend, quickest
from service.backends.eager import EagerBackend
from service.backends.onnx import OnnxBackend
from tests.service.backends.kinds import CAPACITY, images
from tests.service.cascades import SIZE_PX, FakeBackend, sure_at
from tests.service.tiny_bundles import write_tiny_bundle

ROOT = Path(__file__).parent.parent.parent.parent

on_cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Without ONNX graphs."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "bare", with_graphs=False)


def refusal(bundle: Bundle, wanted: Wanted) -> str:
    with pytest.raises(BackendError) as caught:
        open_backend(bundle, wanted)
    return str(caught.value)


def test_on_a_cpu_auto_takes_onnx_where_the_bundle_has_it_and_says_so(bundle: Bundle, bare: Bundle) -> None:
    chosen = open_backend(bundle, Wanted("auto", "cpu", 1, CAPACITY))
    assert isinstance(chosen.backend, OnnxBackend)
    assert chosen.why == "the bundle has ONNX graphs; PyTorch is not loaded to compare"
    chosen = open_backend(bare, Wanted("auto", "cpu", 1, CAPACITY))
    assert isinstance(chosen.backend, EagerBackend)
    assert chosen.why == "nothing else can compute this bundle here"


@pytest.mark.parametrize(
    ("cpus", "threads", "lanes", "found"),
    [(1, 0, 0, 1), (4, 0, 0, 4), (4, 2, 0, 2), (4, 3, 0, 1), (2, 8, 0, 1), (4, 0, 2, 2), (4, 1, 7, 7)],
)
def test_on_a_cpu_onnx_has_a_lane_for_every_so_many_threads(
    bundle: Bundle, cpus: int, threads: int, lanes: int, found: int
) -> None:
    assert open_backend(bundle, Wanted("onnx", "cpu", cpus, CAPACITY, "float32", threads, lanes)).backend.lanes == found


def test_auto_computes_in_the_precision_that_was_asked_for(bundle: Bundle) -> None:
    half = open_backend(bundle, Wanted("auto", "cpu", 1, CAPACITY, "bfloat16")).backend
    whole = open_backend(bundle, Wanted("eager", "cpu", 1, CAPACITY)).backend
    assert half.name == "eager"
    assert half.slot_bytes < whole.slot_bytes


@on_cpu_only
def test_a_device_that_no_backend_can_use_leaves_the_cpu_and_is_told(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "cuda_devices", lambda: 1)
    chosen = open_backend(bundle, Wanted("auto", "auto", 1, CAPACITY))
    assert isinstance(chosen.backend, OnnxBackend)
    assert "there is a CUDA device, but cudagraph cannot (PyTorch has no CUDA device here" in chosen.why
    assert "onnx cannot (this ONNX Runtime has no CUDAExecutionProvider" in chosen.why


@on_cpu_only
@pytest.mark.parametrize(
    ("wanted", "way_out"),
    [
        (Wanted("auto", "cuda", 1, CAPACITY), "--device cpu"),
        (Wanted("eager", "cuda", 1, CAPACITY), "--device cpu"),
        (Wanted("onnx", "cuda", 1, CAPACITY), "install onnxruntime-gpu in place of onnxruntime"),
        (Wanted("onnx", "tensorrt", 1, CAPACITY), "has no TensorrtExecutionProvider"),
        (Wanted("eager", "tensorrt", 1, CAPACITY), "--backend onnx"),
        (Wanted("cudagraph", "cpu", 1, CAPACITY), "needs a CUDA device"),
        (Wanted("onnx", "cpu", 1, CAPACITY, "bfloat16"), "DVT_PRECISION"),
        (Wanted("eager", "cpu", 1, CAPACITY, lanes=2), "DVT_LANES"),
        (Wanted("onnx", "cpu", 1, Capacity(1, 1000, 1)), "DVT_STATE_BYTES"),
    ],
)
def test_what_cannot_be_had_is_named_with_the_way_out(bundle: Bundle, wanted: Wanted, way_out: str) -> None:
    assert way_out in refusal(bundle, wanted)


def test_a_bundle_without_graphs_says_how_to_make_them(bare: Bundle) -> None:
    assert "dvt export" in refusal(bare, Wanted("onnx", "cpu", 1, CAPACITY))


def test_compiled_is_there_when_it_is_asked_for(bundle: Bundle) -> None:
    chosen = open_backend(bundle, Wanted("compiled", "cpu", 1, CAPACITY))
    assert (chosen.backend.name, chosen.why) == ("compiled", "asked for")


def named(name: str) -> Callable[[], StageBackend]:
    return lambda: FakeBackend(sure_at({}), name=name)


def cannot() -> StageBackend:
    raise RuntimeError("no such device")


def test_the_quickest_candidate_is_taken_and_the_others_are_told() -> None:
    seconds = {"slow": 0.002, "quick": 0.001}
    candidates = {"slow": named("slow"), "lost": cannot, "quick": named("quick")}
    chosen = quickest(candidates, lambda backend: seconds[backend.name])
    assert chosen.backend.name == "quick"
    assert chosen.why == "measured at full depth: slow 2 ms an image, lost cannot (no such device), quick 1 ms an image"


def test_a_candidate_that_fails_while_it_is_measured_does_not_count() -> None:
    def measure(backend: StageBackend) -> float:
        if backend.name == "breaks":
            raise MemoryError("full")
        return 1.0

    assert quickest({"breaks": named("breaks"), "works": named("works")}, measure).backend.name == "works"


def test_without_any_candidate_every_reason_is_told() -> None:
    with pytest.raises(BackendError, match=r"^one cannot \(no such device\); two cannot \(no such device\)$"):
        quickest({"one": cannot, "two": cannot}, lambda backend: 1.0)


def test_measuring_runs_every_stage_with_full_batches_and_leaves_no_slot_taken() -> None:
    backend = FakeBackend(sure_at({}), buckets=(1, 2))
    assert image_seconds(backend, SIZE_PX) > 0
    assert [(stage, len(kinds)) for stage, kinds in backend.batches] == [(1, 2)] * 4 + [(2, 2)] * 4 + [(3, 2)] * 4
    assert backend.held == {}


def test_weights_stay_alive_as_long_as_the_sessions(bundle: Bundle) -> None:
    backend = OnnxBackend(bundle, 1, CAPACITY)
    slots = [backend.begin(image) for image in images(2)]
    before = backend.run(1, slots).logits
    gc.collect()
    litter = [np.full(shape, np.nan, np.float32) for shape in range(1, 3000)]
    np.testing.assert_array_equal(backend.run(1, slots).logits, before)
    del litter


def test_graphs_of_another_model_are_refused(bundle: Bundle, features_only: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "tiny")
    mine = read_bundle(tmp_path / "tiny")
    assert mine.onnx is not None
    assert features_only.onnx is not None
    graphs = [path.read_bytes() for path in mine.onnx]
    wanted = Wanted("onnx", "cpu", 1, CAPACITY)
    swapped = write_graphs(mine, [graphs[1], graphs[0], graphs[2]])
    assert "stage1.onnx cannot be loaded" in refusal(swapped, wanted)
    damaged = write_graphs(mine, [b"no graph", graphs[1], graphs[2]])
    assert "dvt export" in refusal(damaged, wanted)
    others = [features_only.onnx[0].read_bytes(), graphs[1], graphs[2]]
    assert "stage 1's graph gives" in refusal(write_graphs(mine, others), wanted)


def test_serving_through_onnx_never_imports_torch_nor_onnx_nor_training(bundle: Bundle) -> None:
    code = f"""
import sys
import service.main, service.cli
from service.settings import load_settings
opened = service.main.open_bundle(load_settings({{"DVT_BUNDLE": {str(bundle.path)!r}, "DVT_THREADS": "1"}}).settings)
assert opened.backend.name == "onnx"
found = sorted({{"torch", "onnx", "training", "matplotlib", "onnxscript"}} & set(sys.modules))
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
