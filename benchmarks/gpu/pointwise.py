"""LayerNorm and GELU around the two products of a block's MLP: as they are written, and fused by torch.compile.

Shapes: B images; N tokens, class token included; I width of the MLP's input, reused features with it; M hidden width;
D width.

No LayerNorm by hand: over so few columns it is one reduction a row, which Inductor makes one kernel of that reads each
element once and writes it once, conversion to half precision included; by hand it could be no less. GELU can only be
saved its way through memory as the epilogue of the product before it, which Inductor does where it may choose a product
of its own (`max-autotune`). cuBLAS has such an epilogue too, but with the tanh approximation: another function than the
model's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.roofline import Product
from benchmarks.gpu.ways import Case, Way, as_served, compiled, precision_dtype
from service.backends.base import Precision

# Images that are computed in float64 too.
_CHECKED = 4
_TUNED = "max-autotune-no-cudagraphs"


@dataclass(frozen=True)
class Geometry:
    """What tells one MLP from another."""

    tokens: int
    taken: int
    hidden: int
    width: int
    norm_eps: float

    @property
    def name(self) -> str:
        return f"{self.tokens} tokens, {self.taken} to {self.hidden} to {self.width}"

    def product(self, images: int) -> Product:
        """Both products, with nothing between them in memory."""
        rows, weights = images * self.tokens, self.hidden * (self.taken + self.width)
        return Product(2 * rows * weights, rows * (self.taken + self.width) + weights)


@dataclass(frozen=True)
class Operands:
    """Tokens (B, N, I) and LayerNorm's weight and bias in float32, as they are kept in any precision; weights (M, I)
    and (D, M) with their biases."""

    tokens: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    norm_eps: float
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor


def draw(geometry: Geometry, images: int, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Operands:
    """Random operands, made on the device; weights as the model begins with."""
    random = torch.Generator(device).manual_seed(seed)
    kept = torch.promote_types(dtype, torch.float32)

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return std * torch.randn(shape, generator=random, device=device, dtype=kept)

    taken, hidden, width = geometry.taken, geometry.hidden, geometry.width
    return Operands(
        normal(images, geometry.tokens, taken),
        1 + normal(taken, std=0.1),
        normal(taken, std=0.1),
        geometry.norm_eps,
        normal(hidden, taken, std=taken**-0.5).to(dtype),
        normal(hidden).to(dtype),
        normal(width, hidden, std=hidden**-0.5).to(dtype),
        normal(width).to(dtype),
    )


def exact(operands: Operands) -> tuple[Tensor, ...]:
    """The definition, in float64."""
    tokens, norm_weight, norm_bias, weight1, bias1, weight2, bias2 = (
        each.double()
        for each in (
            operands.tokens[:_CHECKED],
            operands.norm_weight,
            operands.norm_bias,
            operands.weight1,
            operands.bias1,
            operands.weight2,
            operands.bias2,
        )
    )
    normed = F.layer_norm(tokens, norm_weight.shape, norm_weight, norm_bias, operands.norm_eps)
    return (F.linear(F.gelu(F.linear(normed, weight1, bias1)), weight2, bias2),)


def written(operands: Operands) -> tuple[Tensor, ...]:
    """As the model is written, under autocast where that is half precision."""

    def compute() -> tuple[Tensor, ...]:
        normed = F.layer_norm(
            operands.tokens, operands.norm_weight.shape, operands.norm_weight, operands.norm_bias, operands.norm_eps
        )
        hidden = F.gelu(F.linear(normed, operands.weight1, operands.bias1))
        return (F.linear(hidden, operands.weight2, operands.bias2),)

    return as_served(operands.weight1, compute)


def ways(compiler: str = "inductor", *, tuned: bool) -> dict[str, Callable[[Operands], Way[Operands]]]:
    """By name. `tuned`: with what takes Inductor half a minute a shape to choose."""
    named: dict[str, Callable[[Operands], Way[Operands]]] = {
        "as written": lambda _: written,
        "compiled": lambda _: compiled(written, compiler),
    }
    if tuned:
        named["compiled, products chosen too"] = lambda _: compiled(written, compiler, _TUNED)
    return named


def case(geometry: Geometry, images: int, device: torch.device, precision: Precision, *, tuned: bool) -> Case[Operands]:
    """All ways for a batch."""
    return Case(
        geometry.name,
        images,
        precision,
        geometry.product(images),
        lambda seed: draw(geometry, images, device, precision_dtype(precision), seed),
        exact,
        ways(tuned=tuned),
    )
