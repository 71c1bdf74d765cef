"""Ways to attend with reused relations, against each other: with the N x N sum in memory, and without.

Shapes: B images; H heads; g, G grid sides of the stage before and of this one; n = g * g + 1 and N = G * G + 1 tokens,
class token included; d head width. `P` (N, n) resizes tokens; `relations` (B, H, n, n) are what is reused, before that.

A stage that hands its logits on must write them in any case; the last one need not: there a fused way can gain most.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.gpu.roofline import Product
from benchmarks.gpu.ways import Case, Way, as_served, compiled, precision_dtype
from models.reuse import resize_matrix, resize_relations
from service.backends.base import Precision

# Images that are computed in float64 too.
_CHECKED = 2
# One axis of a token grid takes from at most two cells of a smaller one, so a token from at most four tokens.
_SOURCES = 4
# Of the kernel: queries of a program, keys of a step, warps.
_TILINGS = ((64, 64, 4), (64, 128, 4), (128, 64, 8))


@dataclass(frozen=True)
class Geometry:
    """What tells one attention from another; `hands_on`: the logits are wanted too."""

    upstream_grid: int
    grid: int
    heads: int
    width: int
    hands_on: bool

    @property
    def name(self) -> str:
        logits = ", logits handed on" if self.hands_on else ""
        return f"{self.upstream_grid} to {self.grid}, {self.heads} heads of {self.width}{logits}"

    def product(self, images: int) -> Product:
        """Attention's two products alone, all inputs read once: the least, whatever the resize takes."""
        N, n = self.grid**2 + 1, self.upstream_grid**2 + 1
        handed_on = N * N if self.hands_on else 0
        return Product(
            4 * images * self.heads * N * N * self.width,
            images * self.heads * (4 * N * self.width + n * n + handed_on),
        )


@dataclass(frozen=True)
class Operands:
    """Queries (not scaled), keys and values (B, H, N, d), views of one projection's output as in the model; relations
    (B, H, n, n), the resize of one axis (G, g), P (N, n), and what in its rows is not zero: columns `sources` and
    `weights`, both (N, 4)."""

    query: Tensor
    key: Tensor
    value: Tensor
    relations: Tensor
    axis: Tensor
    resize: Tensor
    sources: Tensor
    weights: Tensor

    @property
    def scale(self) -> float:
        return float(self.query.shape[-1] ** -0.5)

    def in_float64(self) -> "Operands":
        """The first few images."""
        few = {name: getattr(self, name)[:_CHECKED].double() for name in ("query", "key", "value", "relations")}
        constant = {name: getattr(self, name).double() for name in ("axis", "resize", "weights")}
        return replace(self, **few, **constant)


def draw(geometry: Geometry, images: int, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Operands:
    """Random operands, made on the device."""
    axis = resize_matrix(geometry.upstream_grid, geometry.grid)
    with_class_token = torch.block_diag(torch.ones(1, 1), torch.kron(axis, axis))  # type: ignore[no-untyped-call]  # torch's own
    N, n = with_class_token.shape
    random = torch.Generator(device).manual_seed(seed)
    qkv = torch.randn(images, N, 3, geometry.heads, geometry.width, generator=random, device=device)
    relations = torch.randn(images, geometry.heads, n, n, generator=random, device=device)
    query, key, value = qkv.to(dtype).permute(2, 0, 3, 1, 4).unbind(0)
    weights, sources = with_class_token.topk(_SOURCES, dim=1)
    return Operands(
        query,
        key,
        value,
        relations.to(dtype),
        axis.to(device, dtype),
        with_class_token.to(device, dtype),
        sources.to(device, torch.int32),
        weights.to(device, dtype),
    )


def exact(operands: Operands, *, hands_on: bool) -> tuple[Tensor, ...]:
    """The definition, in float64."""
    wide = operands.in_float64()
    logits = wide.query @ wide.key.transpose(-2, -1) * wide.scale + wide.resize @ wide.relations @ wide.resize.T
    return _handed_out(torch.softmax(logits, dim=-1) @ wide.value, logits, hands_on=hands_on)


def summed(operands: Operands, *, hands_on: bool) -> tuple[Tensor, ...]:
    """As the model is written: (B, H, N, N) logits and additions both lie in memory."""
    reused = resize_relations(operands.relations, operands.axis)
    logits = (operands.query * operands.scale) @ operands.key.transpose(-2, -1) + reused
    return _handed_out(torch.softmax(logits, dim=-1) @ operands.value, logits, hands_on=hands_on)


def summed_densely(operands: Operands, *, hands_on: bool) -> tuple[Tensor, ...]:
    """The same, resized by the dense P R P^T: more operations in fewer steps."""
    reused = operands.resize @ operands.relations @ operands.resize.T
    logits = (operands.query * operands.scale) @ operands.key.transpose(-2, -1) + reused
    return _handed_out(torch.softmax(logits, dim=-1) @ operands.value, logits, hands_on=hands_on)


def widened(operands: Operands) -> tuple[Tensor, ...]:
    """[Q, P R] [K, P]^T: the additions are n more dimensions of each head, so that a fused kernel does the rest."""
    rows, columns = operands.resize @ operands.relations, operands.resize.expand(*operands.relations.shape[:2], -1, -1)
    query = torch.cat((operands.query * operands.scale, rows), dim=-1)
    key = torch.cat((operands.key, columns), dim=-1)
    return (_tokens(F.scaled_dot_product_attention(query, key, operands.value, scale=1.0)),)


def masked(operands: Operands, *, hands_on: bool) -> tuple[Tensor, ...]:
    """The additions as the mask of a fused kernel, which spares the logits unless they are wanted."""
    reused = resize_relations(operands.relations, operands.axis)
    mixed = F.scaled_dot_product_attention(
        operands.query, operands.key, operands.value, attn_mask=reused, scale=operands.scale
    )
    if not hands_on:
        return (_tokens(mixed),)
    return _tokens(mixed), (operands.query * operands.scale) @ operands.key.transpose(-2, -1) + reused


def flexible(operands: Operands, *, rows_in_memory: bool) -> tuple[Tensor, ...]:
    """`flex_attention`: additions gathered inside the kernel, 16 entries of R for each logit, or 4 of P R (N, n) that
    was made before. Compiled it is one kernel; as it is written, a slow definition."""
    relations, sources, weights = operands.relations, operands.sources, operands.weights
    rows = operands.resize @ relations if rows_in_memory else None

    def add(score: Tensor, image: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        for j in range(_SOURCES):
            column, weight = sources[key, j], weights[key, j]
            if rows is not None:
                score = score + weight * rows[image, head, query, column]
                continue
            for i in range(_SOURCES):
                entry = relations[image, head, sources[query, i], column]
                score = score + weights[query, i] * weight * entry
        return score

    mixed = flex_attention(operands.query, operands.key, operands.value, score_mod=add, scale=operands.scale)
    assert isinstance(mixed, Tensor)
    return (_tokens(mixed),)


def _tokens(mixed: Tensor) -> Tensor:
    """(B, H, N, d) as the tokens (B, N, H * d) that the projection takes."""
    return mixed.transpose(1, 2).flatten(2)


def _handed_out(mixed: Tensor, logits: Tensor, *, hands_on: bool) -> tuple[Tensor, ...]:
    return (_tokens(mixed), logits) if hands_on else (_tokens(mixed),)


def ways(geometry: Geometry, compiler: str = "inductor") -> dict[str, Callable[[Operands], Way[Operands]]]:
    """By name, those that give what the geometry asks for."""

    def in_memory(operands: Operands) -> tuple[Tensor, ...]:
        return as_served(operands.query, lambda: summed(operands, hands_on=geometry.hands_on))

    def in_memory_densely(operands: Operands) -> tuple[Tensor, ...]:
        return as_served(operands.query, lambda: summed_densely(operands, hands_on=geometry.hands_on))

    named: dict[str, Callable[[Operands], Way[Operands]]] = {
        "sum in memory": lambda _: in_memory,
        "sum in memory, compiled": lambda _: compiled(in_memory, compiler),
        "sum in memory, dense resize": lambda _: in_memory_densely,
        "mask": lambda _: lambda operands: masked(operands, hands_on=geometry.hands_on),
    }
    if not geometry.hands_on:
        named["extra head dimensions"] = lambda _: widened
        named["flex_attention, 16 gathers"] = lambda _: compiled(partial(flexible, rows_in_memory=False), compiler)
        named["flex_attention, 4 gathers"] = lambda _: compiled(partial(flexible, rows_in_memory=True), compiler)
    return named | dict(_kernels(geometry))


def _kernels(geometry: Geometry) -> Iterator[tuple[str, Callable[[Operands], Way[Operands]]]]:
    for block_m, block_n, warps in _TILINGS:

        def make(first: Operands, block_m: int = block_m, block_n: int = block_n, warps: int = warps) -> Way[Operands]:
            from benchmarks.gpu.attention_kernel import Tiling, attend, padded

            tiling, constant = Tiling(block_m, block_n, warps), padded(first.resize)
            return lambda given: attend(
                given.query, given.key, given.value, given.relations, constant, tiling, hands_on=geometry.hands_on
            )

        yield f"Triton, {block_m} x {block_n}", make


def case(geometry: Geometry, images: int, device: torch.device, precision: Precision) -> Case[Operands]:
    """All ways for a batch."""
    return Case(
        geometry.name,
        images,
        precision,
        geometry.product(images),
        lambda seed: draw(geometry, images, device, precision_dtype(precision), seed),
        lambda operands: exact(operands, hands_on=geometry.hands_on),
        ways(geometry),
    )
