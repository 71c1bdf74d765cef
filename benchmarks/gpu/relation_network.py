"""Ways to compute the two-layer network that adapts relations at the small grid, before they are resized.

Shapes: B images; C relation maps; E = expansion * C hidden maps; n tokens of the stage before, class token included.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.roofline import Product
from benchmarks.gpu.ways import Case, Way, as_served, compiled, precision_dtype
from service.backends.base import Precision

# Images that are computed in float64 too.
_CHECKED = 1
# Of the kernel: positions of a program, hidden maps of a step, warps.
_TILINGS = ((128, 32, 4), (128, 64, 8), (256, 32, 8))


@dataclass(frozen=True)
class Geometry:
    """What tells one network from another."""

    upstream_grid: int
    maps: int
    expansion: int

    @property
    def name(self) -> str:
        return f"{self.upstream_grid} x {self.upstream_grid}, {self.maps} maps, {self.expansion * self.maps} hidden"

    def product(self, images: int) -> Product:
        """Both layers, with nothing between them in memory."""
        positions, weights = images * (self.upstream_grid**2 + 1) ** 2, 2 * self.expansion * self.maps**2
        return Product(2 * positions * weights, 2 * positions * self.maps + weights)


@dataclass(frozen=True)
class Operands:
    """Relations (B, C, n, n); weights (E, C) and (C, E) with their biases."""

    relations: Tensor
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor


def draw(geometry: Geometry, images: int, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Operands:
    """Random operands, made on the device; weights as the model begins with."""
    random = torch.Generator(device).manual_seed(seed)
    C, E, n = geometry.maps, geometry.expansion * geometry.maps, geometry.upstream_grid**2 + 1

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return (std * torch.randn(shape, generator=random, device=device)).to(dtype)

    return Operands(normal(images, C, n, n), normal(E, C, std=C**-0.5), normal(E), normal(C, E, std=E**-0.5), normal(C))


def exact(operands: Operands) -> tuple[Tensor, ...]:
    """The definition, in float64."""
    few = operands.relations[:_CHECKED].double().flatten(2)
    hidden = F.gelu(operands.weight1.double() @ few + operands.bias1.double().unsqueeze(1))
    adapted = operands.weight2.double() @ hidden + operands.bias2.double().unsqueeze(1)
    return (adapted.reshape(*adapted.shape[:2], *operands.relations.shape[2:]),)


def convolved(operands: Operands) -> tuple[Tensor, ...]:
    """As the model is written: two convolutions of 1 x 1."""
    hidden = F.conv2d(operands.relations, operands.weight1[:, :, None, None], operands.bias1)
    return (F.conv2d(F.gelu(hidden), operands.weight2[:, :, None, None], operands.bias2),)


def multiplied(operands: Operands) -> tuple[Tensor, ...]:
    """The same as products of matrices, which need no other layout."""
    flat = operands.relations.flatten(2)
    hidden = F.gelu(operands.weight1 @ flat + operands.bias1.unsqueeze(1))
    adapted = operands.weight2 @ hidden + operands.bias2.unsqueeze(1)
    return (adapted.reshape(*adapted.shape[:2], *operands.relations.shape[2:]),)


def ways(compiler: str = "inductor") -> dict[str, Callable[[Operands], Way[Operands]]]:
    """By name."""

    def as_written(operands: Operands) -> tuple[Tensor, ...]:
        return as_served(operands.relations, lambda: convolved(operands))

    def as_products(operands: Operands) -> tuple[Tensor, ...]:
        return as_served(operands.relations, lambda: multiplied(operands))

    named: dict[str, Callable[[Operands], Way[Operands]]] = {
        "convolutions": lambda _: as_written,
        "convolutions, compiled": lambda _: compiled(as_written, compiler),
        "products": lambda _: as_products,
        "products, compiled": lambda _: compiled(as_products, compiler),
    }
    return named | dict(_kernels())


def _kernels() -> Iterator[tuple[str, Callable[[Operands], Way[Operands]]]]:
    for block_p, block_e, warps in _TILINGS:

        def make(_: Operands, block_p: int = block_p, block_e: int = block_e, warps: int = warps) -> Way[Operands]:
            from benchmarks.gpu.relation_kernel import Tiling, adapt

            tiling = Tiling(block_p, block_e, warps)

            def whole(given: Operands) -> tuple[Tensor, ...]:
                flat = given.relations.flatten(2)
                adapted = adapt(flat, given.weight1, given.bias1, given.weight2, given.bias2, tiling)
                return (adapted.view_as(given.relations),)

            return whole

        yield f"Triton, {block_p} x {block_e}", make


def case(geometry: Geometry, images: int, device: torch.device, precision: Precision) -> Case[Operands]:
    """All ways for a batch."""
    return Case(
        geometry.name,
        images,
        precision,
        geometry.product(images),
        lambda seed: draw(geometry, images, device, precision_dtype(precision), seed),
        exact,
        ways(),
    )
