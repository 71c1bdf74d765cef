"""ONNX Runtime against the eager reference, stage by stage as the engine drives them; and which one is chosen."""

import gc
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.bundle import Bundle, read_bundle, write_graphs
from models.config import ReuseConfig
from models.dvt import load_bundle
from service.backends.base import BackendError, Capacity, StageBackend
from service.backends.choose import open_backend
from service.backends.eager import EagerBackend
from service.backends.onnx import OnnxBackend
from tests.service.tiny_bundles import tiny_config, write_tiny_bundle

CAPACITY = Capacity(images=8, state_bytes=1 << 20, max_batch=8)
ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def images(count: int) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8))


def logits_of(backend: StageBackend, pixels: list[NDArray[np.uint8]], exits: int) -> list[NDArray[np.float32]]:
    """Every image through every stage, in one batch."""
    slots = [backend.begin(image) for image in pixels]
    collected = []
    for stage in range(1, exits + 1):
        output = backend.run(stage, slots)
        collected.append(output.logits)
        output.keep(range(len(pixels)))
    for slot in slots:
        backend.release(slot)
    return collected


def assert_agree(bundle: Bundle) -> None:
    pixels, exits = images(4), bundle.config.exits
    with torch.inference_mode():
        expected = load_bundle(bundle.path)(torch.from_numpy(np.stack(pixels)))
    for backend in (OnnxBackend(bundle, 1, CAPACITY), EagerBackend(bundle, "cpu", 1, CAPACITY)):
        for ours, theirs in zip(logits_of(backend, pixels, exits), expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_both_backends_give_the_models_own_logits(bundle: Bundle) -> None:
    assert_agree(bundle)


@pytest.mark.parametrize(("features", "relations"), [(True, False), (False, True)])
def test_both_backends_hand_on_just_what_is_reused(tmp_path: Path, features: bool, relations: bool) -> None:
    reuse = ReuseConfig(features, relations, feature_hidden=8, feature_dim=4, relation_expansion=1)
    assert_agree(write_tiny_bundle(tmp_path / "tiny", tiny_config(2, reuse)))


@pytest.mark.parametrize("kind", [OnnxBackend, EagerBackend])
def test_images_of_different_batches_go_on_together(bundle: Bundle, kind: type[StageBackend]) -> None:
    backend: StageBackend = (
        OnnxBackend(bundle, 1, CAPACITY) if kind is OnnxBackend else EagerBackend(bundle, "cpu", 1, CAPACITY)
    )
    pixels = images(5)
    alone = [logits_of(backend, [image], 3) for image in pixels]
    slots = [backend.begin(image) for image in pixels]
    backend.run(1, slots[:3]).keep([1, 2])
    backend.run(1, slots[3:]).keep([1])
    order = (4, 1, 2)
    states = [slots[number] for number in order]
    output = backend.run(2, states)
    for row, number in enumerate(order):
        np.testing.assert_allclose(output.logits[row], alone[number][1][0], atol=1e-5)
    again = backend.run(2, states)  # As after a failed batch: the states are as they were.
    np.testing.assert_array_equal(again.logits, output.logits)


def test_a_slot_is_counted_with_the_image_and_the_old_and_new_state_of_the_costliest_hand_over(bundle: Bundle) -> None:
    image, width, maps = 3 * 16 * 16, 16, 4
    after = [4 * ((n + 1) * width + maps * (n + 1) ** 2) for n in (4, 9)]
    for backend in (OnnxBackend(bundle, 1, CAPACITY), EagerBackend(bundle, "cpu", 1, CAPACITY)):
        assert backend.slot_bytes == image + sum(after)


def test_weights_stay_alive_as_long_as_the_sessions(bundle: Bundle) -> None:
    backend = OnnxBackend(bundle, 1, CAPACITY)
    before = logits_of(backend, images(2), 3)
    gc.collect()
    litter = [np.full(shape, np.nan, np.float32) for shape in range(1, 3000)]
    for ours, expected in zip(logits_of(backend, images(2), 3), before, strict=True):
        np.testing.assert_array_equal(ours, expected)
    del litter


def test_auto_takes_onnx_where_the_bundle_has_it(bundle: Bundle, tmp_path: Path) -> None:
    assert open_backend(bundle, "auto", "cpu", 1, CAPACITY).name == "onnx"
    bare = write_tiny_bundle(tmp_path / "bare", with_graphs=False)
    assert open_backend(bare, "auto", "cpu", 1, CAPACITY).name == "eager"
    with pytest.raises(BackendError, match="dvt export"):
        open_backend(bare, "onnx", "cpu", 1, CAPACITY)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
def test_a_device_that_is_not_there_is_named(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="--device cpu"):
        open_backend(bundle, "auto", "cuda", 1, CAPACITY)


def test_graphs_of_another_model_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "tiny")
    bundle = read_bundle(tmp_path / "tiny")
    assert bundle.onnx is not None
    graphs = [path.read_bytes() for path in bundle.onnx]
    swapped = write_graphs(bundle, [graphs[1], graphs[0], graphs[2]])
    with pytest.raises(BackendError, match=r"stage1\.onnx cannot be loaded .*dvt export"):
        open_backend(swapped, "onnx", "cpu", 1, CAPACITY)
    damaged = write_graphs(read_bundle(bundle.path), [b"no graph", graphs[1], graphs[2]])
    with pytest.raises(BackendError, match="dvt export"):
        open_backend(damaged, "onnx", "cpu", 1, CAPACITY)


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
