"""A soft split and its Performer without unfolding: the same numbers, in white corners of photos too."""

import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import IMAGENET_MEAN, IMAGENET_STD
from models.graph_performer import SoftSplit, _patch_variance, write_performer
from models.graph_writer import GraphWriter
from models.tokens_to_token import Performer

SIDE = 40


def performer(patch_dim: int) -> Performer:
    torch.manual_seed(0)
    block = Performer(patch_dim)
    with torch.no_grad():
        for parameter in block.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 400
            parameter.add_(torch.randn_like(parameter), alpha=fan_in**-0.5)
    return block.eval()


@torch.inference_mode()
def graph_and_eager(image: Tensor, split: SoftSplit) -> tuple[Tensor, Tensor]:
    block = performer(split.channels * split.kernel**2)
    weights = {f"block.{name}": tensor.numpy() for name, tensor in block.state_dict().items()}
    graph = GraphWriter({name: array.shape for name, array in weights.items()})
    taken = graph.input("image", 1, tuple(image.shape[1:]))
    graph.output("tokens", write_performer(graph, "block", taken, split), (64, split.places, split.places))
    options = ort.SessionOptions()
    options.add_external_initializers(list(weights), [ort.OrtValue.ortvalue_from_numpy(a) for a in weights.values()])
    session = ort.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
    patches = F.unfold(image, split.kernel, stride=split.stride, padding=split.padding).transpose(1, 2)
    expected = block(patches).transpose(1, 2).unflatten(2, (split.places, split.places))
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0]), expected


@pytest.mark.parametrize(
    "split",
    [
        SoftSplit(3, SIDE, kernel=14, stride=8, padding=3),
        SoftSplit(3, SIDE, kernel=11, stride=6, padding=5),
        SoftSplit(3, SIDE, kernel=7, stride=4, padding=2),
        SoftSplit(64, SIDE, kernel=3, stride=2, padding=1),
    ],
)
def test_a_performer_needs_no_patches(split: SoftSplit) -> None:
    image = torch.randn(2, split.channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    found, expected = graph_and_eager(image, split)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("level", [0, 255])
def test_where_a_photo_is_flat_its_small_variance_is_not_lost(level: int) -> None:
    """Between its channels alone there is some, 0.02 with a mean square of up to 6: float32 moments lose 2e-5 of it."""
    pixels = torch.randint(0, 256, (1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)).float()
    pixels[:, :, :, SIDE // 2 :] = level
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    image, split = (pixels / 255 - mean) / std, SoftSplit(3, SIDE, kernel=11, stride=6, padding=5)
    graph = GraphWriter({})
    variance = _patch_variance(graph, graph.input("image", 1, tuple(image.shape[1:])), split)
    graph.output("variance", variance, (1, split.places**2))
    session = ort.InferenceSession(graph.to_bytes(), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])[0, 0]
    patches = F.unfold(image.double(), split.kernel, stride=split.stride, padding=split.padding)[0]
    torch.testing.assert_close(found.double(), patches.var(dim=0, correction=0), rtol=1e-6, atol=0)
