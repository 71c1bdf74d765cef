"""A T2T tokeniser in half precision: what its Performers must compute in float32, every backend on PyTorch does."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from models.bundle import Bundle, write_bundle
from models.dvt import DVT, load_bundle
from models.tokens_to_token import Performer
from service.backends.base import Capacity, Precision
from service.backends.compiled import CompiledBackend
from service.backends.cudagraph import CudaGraphBackend
from service.backends.eager import EagerBackend
from service.backends.torch_backend import TorchBackend
from service.backends.torch_stages import TorchStages
from tests.models.small_cascades import NOTHING, SIZE_PX, T2T_STAGES, small_config
from tests.service.backends.kinds import BOUNDS

HALF = pytest.mark.parametrize("precision", ["bfloat16", "float16"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One stage; keys and queries so long that most random features lie beneath float16's smallest number."""
    torch.manual_seed(0)
    model = DVT(small_config(T2T_STAGES[:1], NOTHING, depth=1)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Performer):
                module.kqv.weight[:128] *= 0.8
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return write_bundle(tmp_path_factory.mktemp("bundles") / "t2t", model.config, weights, readme="For tests.\n")


def pixels() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (4, 3, SIZE_PX, SIZE_PX), dtype=np.uint8)


@HALF
@torch.inference_mode()
def test_features_and_normaliser_are_float32_behind_layers_in_half_precision(
    bundle: Bundle, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[torch.dtype] = []
    features: list[Tensor] = []
    attend, of = Performer._attend, Performer._features

    def attend_seen(self: Performer, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
        taken.append(key.dtype)
        return attend(self, key, query, value)

    def features_seen(self: Performer, x: Tensor) -> Tensor:
        found = of(self, x)
        wide = x.double()
        expected = torch.exp(wide @ self.w.double().T - wide.square().sum(-1, keepdim=True) / 2) / 32**0.5
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
        features.append(found)
        return found

    monkeypatch.setattr(Performer, "_attend", attend_seen)
    monkeypatch.setattr(Performer, "_features", features_seen)
    stages = TorchStages(bundle, torch.device("cpu"), precision)
    stages.compute(1, torch.from_numpy(pixels()), {})
    assert taken == [getattr(torch, precision)] * 2  # Both Performers of a tokeniser.
    assert [each.dtype for each in features] == [torch.float32] * 4  # Keys and queries of each.
    assert min(float(each.min()) for each in features) < torch.finfo(torch.float16).smallest_normal


@HALF
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(EagerBackend, id="eager"),
        pytest.param(CudaGraphBackend, id="cudagraph"),
        pytest.param(partial(CompiledBackend, compiler="eager"), id="compiled"),
    ],
)
def test_every_backend_agrees_with_the_model_in_float32(
    kind: Callable[..., TorchBackend], bundle: Bundle, precision: Precision
) -> None:
    backend = kind(bundle, "cpu", 1, Capacity(images=4, state_bytes=1 << 24, max_batch=4), precision)
    slots = [backend.begin(image) for image in pixels()]
    with torch.inference_mode():
        (expected,) = load_bundle(bundle.path)(torch.from_numpy(pixels()))
    largest = max(1.0, float(expected.abs().max()))
    np.testing.assert_allclose(backend.run(1, slots).logits, expected, rtol=0, atol=BOUNDS[precision] * largest)
