"""What can only be seen on a CUDA device, beside the conformance suite: `make gpu-test`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.bundle import Bundle, read_bundle
from models.dvt import load_bundle
from models.policy import MEASURES, ExitMeasure, Measure
from service.backends.base import BRIEF_CLASSES, Capacity, StageBackend
from service.backends.choose import Named, Wanted, open_backend
from service.backends.cuda import cuda_devices
from service.backends.torch_readout import brief_of, readout
from tests.service import briefs
from tests.service.backends.kinds import BOUNDS, CAPACITY, FLOAT32, HALF, Kind, images

SHIPPED = Path(__file__).parents[3] / "checkpoints" / "imagenette-hybrid"

pytestmark = pytest.mark.gpu

on_torch = pytest.mark.parametrize(
    "kind", [kind for kind in (*FLOAT32, *HALF) if "-cuda" in str(kind.id) and not str(kind.id).startswith("onnx")]
)


def test_the_driver_is_asked_for_devices() -> None:
    assert cuda_devices() == torch.cuda.device_count()


def test_auto_measures(bundle: Bundle) -> None:
    chosen = open_backend(bundle, Wanted("auto", "auto", 1, CAPACITY))
    assert chosen.why.startswith("measured at full depth: cudagraph")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", ["eager", "compiled", "cudagraph", "compiled-cudagraph"])
def test_two_devices_begin_side_by_side_and_compute_the_same(name: Named, bundle: Bundle) -> None:
    chosen = open_backend(bundle, Wanted(name, "cuda:1,cuda:0", 1, CAPACITY))
    assert [str(device) for device in chosen.devices] == ["cuda:1", "cuda:0"]

    def logits(backend: StageBackend) -> list[NDArray[np.float32]]:
        slots, found = [backend.begin(image) for image in images(5)], []
        for stage in range(1, backend.stages + 1):
            output = backend.run(stage, slots)
            output.keep(range(len(slots)))
            found.append(output.logits)
        return found

    with ThreadPoolExecutor(2) as pool:
        second, first = pool.map(logits, (chosen.backend, *chosen.others))
    for ours, theirs in zip(second, first, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUNDS["float32"] * float(np.abs(theirs).max()))


@on_torch
def test_memory_does_not_grow(kind: Kind, bundle: Bundle) -> None:
    backend = kind.open(bundle, CAPACITY)

    def use(seed: int) -> None:
        slots = [backend.begin(image) for image in images(1 + seed % CAPACITY.max_batch, seed)]
        for stage in range(1, backend.stages + 1):
            backend.run(stage, slots, seed % backend.lanes).keep(range(len(slots)))
        for slot in slots:
            backend.release(slot)

    for seed in range(2 * CAPACITY.max_batch):
        use(seed)
    torch.cuda.synchronize()
    before_bytes = torch.cuda.memory_allocated()
    for seed in range(200):
        use(seed)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before_bytes


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("classes", [1, 10, 100, 1000, 5000])
def test_what_an_exit_says_in_a_graph_is_what_the_policy_says(measure: Measure, classes: int) -> None:
    """Equal logits included, and such as are no numbers. Devices sort rows of such lengths in different ways."""
    logits = np.random.default_rng(0).normal(size=(64, classes)).astype(np.float32).round(1)
    logits[3, 0], logits[5, -1] = np.nan, np.inf
    given = torch.from_numpy(logits).to("cuda")
    k = min(classes, BRIEF_CLASSES)
    readout(given, 1.3, measure, k)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream()):  # type: ignore[no-untyped-call]  # torch's own
        packed = readout(given, 1.3, measure, k)
    graph.replay()
    ours, theirs = brief_of(packed.cpu().numpy(), classes), briefs.brief_of(logits, ExitMeasure(measure, (1.3,)), 1, k)
    finite = np.isfinite(theirs.confidences)
    np.testing.assert_array_equal(ours.classes[finite], theirs.classes[finite])
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-12)
    np.testing.assert_allclose(ours.confidences, theirs.confidences, rtol=1e-12, atol=1e-14)


@on_torch
def test_the_shipped_bundle_answers_as_on_the_cpu(kind: Kind) -> None:
    shipped = read_bundle(SHIPPED)
    side = shipped.config.input.size_px
    backend = kind.open(shipped, Capacity(images=8, state_bytes=1 << 26, max_batch=8))
    pixels = [np.random.default_rng(seed).integers(0, 256, (3, side, side), dtype=np.uint8) for seed in range(8)]
    with torch.inference_mode():
        expected = [logits.numpy() for logits in load_bundle(shipped.path)(torch.from_numpy(np.stack(pixels)))]
    slots = [backend.begin(image) for image in pixels]
    for stage, reference in enumerate(expected, start=1):
        output = backend.run(stage, slots)
        largest = max(1.0, float(np.abs(reference).max()))
        np.testing.assert_allclose(output.logits, reference, rtol=0, atol=BOUNDS[kind.precision] * largest)
        output.keep(range(len(slots)))
