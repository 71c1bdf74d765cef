"""The two-layer network over relation maps as one Triton kernel: what lies between the layers never is in memory.

Shapes: B images; C relation maps; E = expansion * C hidden maps; p positions of the small grid, tokens squared.

A program takes `block_p` positions of one image, all C maps of them, and goes through the hidden maps `block_e` at a
time. C is 48, 72 or 84 and tiles are powers of two, so maps are held in two tiles, 32 + 16, 64 + 16 or 64 + 32: one
tile of 64 or 128 would compute a third to 60 % more. For T2T-ViT-12 at 101^2 positions and 256 images:
- moving: 48 maps in and out, 192 bytes a position, 0.17 ms at 3 TB/s; with the hidden maps written, read by GELU,
  written and read again 1,344 bytes, 1.2 ms; with GELU fused into one of the products 768 bytes, 0.67 ms;
- computing: 28 kFLOP a position, 0.09 ms at 790 TFLOP/s;
- GELU: 144 a position, some 20 instructions each by CUDA's erf: 0.26 ms at 132 * 128 lanes and 1.7 GHz. It binds, in
  any way that is not bound by memory. Nothing of this is a measurement.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_SQRT_HALF = tl.constexpr(0.7071067811865476)
# The least that a product on tensor cores takes in each direction.
_LEAST_SIDE = 16


@dataclass(frozen=True)
class Tiling:
    """Positions of a program, hidden maps of a step, warps of a program, steps in the pipeline of loads."""

    block_p: int = 128
    block_e: int = 32
    warps: int = 4
    stages: int = 2


def tiles(maps: int) -> tuple[int, int]:
    """Two powers of two, at least 16 each, that hold so many maps and as few more as can be."""
    main = max(_LEAST_SIDE, 1 << (maps.bit_length() - 1))
    return main, max(_LEAST_SIDE, triton.next_power_of_2(maps - main))


def adapt(relations: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, tiling: Tiling) -> Tensor:
    """Relations (B, C, p) through (E, C), exact GELU and (C, E). Sums and GELU are float32, what comes out is as what
    comes in."""
    B, C, p = relations.shape
    E = weight1.shape[0]
    assert all(each.is_contiguous() for each in (relations, weight1, bias1, weight2, bias2))
    adapted = torch.empty_like(relations)
    main, rest = tiles(C)
    _adapt[(triton.cdiv(p, tiling.block_p), B)](
        relations,
        weight1,
        bias1,
        weight2,
        bias2,
        adapted,
        P=p,
        C=C,
        E=E,
        MAIN=main,
        REST=rest,
        BLOCK_P=tiling.block_p,
        BLOCK_E=tiling.block_e,
        # Three products of shortened float32, which together are as close as float32 itself, but on tensor cores.
        PRECISION="tf32x3" if relations.dtype == torch.float32 else "tf32",
        num_warps=tiling.warps,
        num_stages=tiling.stages,
    )
    return adapted


@triton.jit
def _adapt(
    relations,
    weight1,
    bias1,
    weight2,
    bias2,
    adapted,
    P: tl.constexpr,
    C: tl.constexpr,
    E: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    positions = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    image = tl.program_id(1).to(tl.int64) * (C * P)
    main = tl.arange(0, MAIN)
    rest = MAIN + tl.arange(0, REST)
    has_positions = positions < P
    is_main = main < C
    is_rest = rest < C
    # Positions are the products' rows: maps, of which there are few, can then be narrower than a tensor core is tall.
    at_main = image + main[None, :] * P + positions[:, None]
    at_rest = image + rest[None, :] * P + positions[:, None]
    of_main = has_positions[:, None] & is_main[None, :]
    of_rest = has_positions[:, None] & is_rest[None, :]
    x_main = tl.load(relations + at_main, mask=of_main, other=0.0)
    x_rest = tl.load(relations + at_rest, mask=of_rest, other=0.0)
    y_main = tl.zeros((BLOCK_P, MAIN), tl.float32)
    y_rest = tl.zeros((BLOCK_P, REST), tl.float32)
    for first in range(0, E, BLOCK_E):
        hidden = first + tl.arange(0, BLOCK_E)
        has_hidden = hidden < E
        # Transposed by their addresses: both layers' weights lie with the maps that they take in last.
        w_main = tl.load(
            weight1 + hidden[None, :] * C + main[:, None], mask=has_hidden[None, :] & is_main[:, None], other=0.0
        )
        w_rest = tl.load(
            weight1 + hidden[None, :] * C + rest[:, None], mask=has_hidden[None, :] & is_rest[:, None], other=0.0
        )
        h = tl.dot(x_main, w_main, input_precision=PRECISION)
        h = tl.dot(x_rest, w_rest, h, input_precision=PRECISION)
        h += tl.load(bias1 + hidden, mask=has_hidden, other=0.0).to(tl.float32)[None, :]
        h = 0.5 * h * (1.0 + tl.erf(h * _SQRT_HALF))
        h = h.to(x_main.dtype)
        v_main = tl.load(
            weight2 + main[None, :] * E + hidden[:, None], mask=has_hidden[:, None] & is_main[None, :], other=0.0
        )
        v_rest = tl.load(
            weight2 + rest[None, :] * E + hidden[:, None], mask=has_hidden[:, None] & is_rest[None, :], other=0.0
        )
        y_main = tl.dot(h, v_main, y_main, input_precision=PRECISION)
        y_rest = tl.dot(h, v_rest, y_rest, input_precision=PRECISION)
    y_main += tl.load(bias2 + main, mask=is_main, other=0.0).to(tl.float32)[None, :]
    y_rest += tl.load(bias2 + rest, mask=is_rest, other=0.0).to(tl.float32)[None, :]
    tl.store(adapted + at_main, y_main.to(adapted.dtype.element_ty), mask=of_main)
    tl.store(adapted + at_rest, y_rest.to(adapted.dtype.element_ty), mask=of_rest)
