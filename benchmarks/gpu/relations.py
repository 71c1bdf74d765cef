"""Three ways to attend with reused relations, against each other: the sum in memory, extra head dimensions, a mask.

Shapes: B images; H heads; N, n tokens of this stage and the one before, class token included; d head width.
`P` (N, n) resizes tokens; `relations` (B, H, n, n) are what is reused, before the resize.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.ceilings import device_seconds
from benchmarks.gpu.document import WayMeasured
from models.reuse import resize_matrix

Attend = Callable[["Operands"], Tensor]


@dataclass(frozen=True)
class Operands:
    """Queries (scaled), keys and values (B, H, N, d), relations (B, H, n, n), and P (N, n)."""

    query: Tensor
    key: Tensor
    value: Tensor
    relations: Tensor
    resize: Tensor

    def resized(self) -> Tensor:
        """P R P^T, (B, H, N, N)."""
        return self.resize @ self.relations @ self.resize.T


def draw(images: int, heads: int, width: int, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Operands:
    """Random operands of the last stage, 14 x 14 tokens after 10 x 10."""
    one_axis = resize_matrix(10, 14)
    of_tokens = torch.kron(one_axis, one_axis)
    resize = torch.block_diag(torch.ones(1, 1), of_tokens)  # type: ignore[no-untyped-call]  # torch's own
    N, n = resize.shape
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    return Operands(
        normal(images, heads, N, width) * width**-0.5,
        normal(images, heads, N, width),
        normal(images, heads, N, width),
        normal(images, heads, n, n),
        resize.to(device, dtype),
    )


def summed(operands: Operands) -> Tensor:
    """As the model is written: (B, H, N, N) logits and additions both lie in memory."""
    logits = operands.query @ operands.key.transpose(-2, -1) + operands.resized()
    return torch.softmax(logits, dim=-1) @ operands.value


def widened(operands: Operands) -> Tensor:
    """[Q, P R] [K, P]^T: the additions are n more dimensions of each head, so that a fused kernel does the rest."""
    rows, columns = operands.resize @ operands.relations, operands.resize.expand(*operands.relations.shape[:2], -1, -1)
    query, key = torch.cat((operands.query, rows), dim=-1), torch.cat((operands.key, columns), dim=-1)
    return F.scaled_dot_product_attention(query, key, operands.value, scale=1.0)


def masked(operands: Operands) -> Tensor:
    """The additions as the mask of a fused kernel, which spares the logits."""
    return F.scaled_dot_product_attention(
        operands.query, operands.key, operands.value, attn_mask=operands.resized(), scale=1.0
    )


WAYS: Mapping[str, Attend] = {"sum in memory": summed, "extra head dimensions": widened, "mask": masked}


def measure(images: int, heads: int, width: int, device: torch.device, dtype: torch.dtype) -> list[WayMeasured]:
    """Each way, checked and timed. Raises `ArithmeticError` for one that computes something else."""
    operands = draw(images, heads, width, device, dtype)
    few = Operands(
        operands.query[:4].double(),
        operands.key[:4].double(),
        operands.value[:4].double(),
        operands.relations[:4].double(),
        operands.resize.double(),
    )
    expected = summed(few)
    measured = []
    for way, attend in WAYS.items():
        try:
            found = attend(operands)[:4].double()
        except (RuntimeError, torch.OutOfMemoryError):
            measured.append(WayMeasured(way, None, None))
            continue
        error = float((found - expected).norm() / expected.norm())
        if not error < 0.05:
            raise ArithmeticError(f"{way} is {error:.3g} from float64: it computes something else")
        measured.append(WayMeasured(way, error, device_seconds(partial(attend, operands), device)))
    return measured
