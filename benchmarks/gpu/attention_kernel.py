"""Attention with reused relations as one Triton kernel: no N x N tensor in memory, unless logits are handed on.

Shapes: B images; H heads; N, n tokens of this stage and the one before, class token included; d head width.

A program takes `block_m` queries of one head. It makes P R for its rows once, (block_m, n), and the added logits of
each block of keys as a product with that block's rows of P: on tensor cores, though P is sparse. For 197 tokens from
101, in blocks of 64 and padded to 256 and 128:
- computing: a head's attention is 16 blocks of 64 x 64 at 2 * 2 * 64^3 operations, 17 MFLOP; the additions 4 times
  2 * 64 * 128^2 for P R and 16 times 2 * 64 * 64 * 128 after it, 25 MFLOP. 1024 heads at 790 TFLOP/s: 55 us;
- moving: queries, keys, values and output 101 KB, relations 20 KB. 1024 heads at 3 TB/s: 41 us. With the additions as
  a mask in memory, P R written and read, then P R P^T written and read, it is some 360 KB: 123 us;
- gathering 4 entries of P R for each logit instead: 4 * 64 * 64 reads of a block take an H100's 32 banks of shared
  memory 512 cycles where they never collide, the product 256 at 4096 operations a cycle; 16 entries of R take 2048.
So the dense product is the sensible one. Nothing of this is a measurement.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = tl.constexpr(1.4426950408889634)
# The least that a product on tensor cores takes in each direction.
_LEAST_SIDE = 16
_MOST_TILE = 128


@dataclass(frozen=True)
class Tiling:
    """Queries of a program, keys of a step, warps of a program, steps in the pipeline of loads."""

    block_m: int = 64
    block_n: int = 64
    warps: int = 4
    stages: int = 2


def padded(resize: Tensor) -> Tensor:
    """P (N, n) with zeros, so that the kernel loads whole tiles of it in wide pieces. A constant of the stage."""
    N, n = resize.shape
    columns = max(_LEAST_SIDE, triton.next_power_of_2(n))
    return F.pad(resize, (0, columns - n, 0, triton.cdiv(N, _MOST_TILE) * _MOST_TILE - N))


def attend(
    query: Tensor, key: Tensor, value: Tensor, relations: Tensor, resize: Tensor, tiling: Tiling, *, hands_on: bool
) -> tuple[Tensor, ...]:
    """Tokens (B, N, H * d), and where the stage hands them on the logits (B, H, N, N).

    Queries (not scaled), keys and values (B, H, N, d) are views of one tensor, with the same strides; relations are
    (B, H, n, n), P is `padded`. Sums, softmax and the running output are float32, what comes out has the inputs' type.
    """
    B, H, N, d = query.shape
    n = relations.shape[3]
    assert max(tiling.block_m, tiling.block_n) <= _MOST_TILE
    assert query.stride() == key.stride() == value.stride() and query.stride(3) == 1
    assert relations.stride(2) == n and relations.stride(3) == 1 and resize.is_contiguous()
    tokens = query.new_empty(B, N, H * d)
    logits = query.new_empty(B, H, N, N) if hands_on else None
    grid = (triton.cdiv(N, tiling.block_m), B * H)
    _attend[grid](
        query,
        key,
        value,
        relations,
        resize,
        tokens,
        tokens if logits is None else logits,
        *query.stride()[:3],
        *relations.stride()[:2],
        d**-0.5,
        H=H,
        N=N,
        REUSED=n,
        D=d,
        BLOCK_M=tiling.block_m,
        BLOCK_N=tiling.block_n,
        BLOCK_R=resize.shape[1],
        BLOCK_D=max(_LEAST_SIDE, triton.next_power_of_2(d)),
        HANDS_ON=hands_on,
        # Three products of shortened float32, which together are as close as float32 itself, but on tensor cores.
        PRECISION="tf32x3" if query.dtype == torch.float32 else "tf32",
        num_warps=tiling.warps,
        num_stages=tiling.stages,
    )
    return (tokens,) if logits is None else (tokens, logits)


@triton.jit
def _attend(
    query,
    key,
    value,
    relations,
    resize,
    tokens,
    logits,
    stride_b,
    stride_h,
    stride_n,
    stride_rb,
    stride_rh,
    scale,
    H: tl.constexpr,
    N: tl.constexpr,
    REUSED: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HANDS_ON: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    image = (tl.program_id(1) // H).to(tl.int64)
    head = tl.program_id(1) % H
    inputs = image * stride_b + head * stride_h
    width = tl.arange(0, BLOCK_D)
    reused = tl.arange(0, BLOCK_R)
    has_rows = rows < N
    is_reused = reused < REUSED
    is_width = width < D

    q = tl.load(
        query + inputs + rows[:, None] * stride_n + width[None, :],
        mask=has_rows[:, None] & is_width[None, :],
        other=0.0,
    )
    of_rows = tl.load(resize + rows[:, None] * BLOCK_R + reused[None, :])
    r = tl.load(
        relations + image * stride_rb + head * stride_rh + reused[:, None] * REUSED + reused[None, :],
        mask=is_reused[:, None] & is_reused[None, :],
        other=0.0,
    )
    resized = tl.dot(of_rows, r, input_precision=PRECISION).to(r.dtype)

    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for first in range(0, N, BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        has_columns = columns < N
        taken = inputs + columns[:, None] * stride_n + width[None, :]
        k = tl.load(key + taken, mask=has_columns[:, None] & is_width[None, :], other=0.0)
        v = tl.load(value + taken, mask=has_columns[:, None] & is_width[None, :], other=0.0)
        of_columns = tl.load(resize + columns[:, None] * BLOCK_R + reused[None, :])
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.dot(resized, tl.trans(of_columns), scores, input_precision=PRECISION)
        if HANDS_ON:
            out = (image * H + head) * (N * N) + rows[:, None] * N + columns[None, :]
            tl.store(logits + out, scores.to(logits.dtype.element_ty), mask=has_rows[:, None] & has_columns[None, :])
        scores = tl.where(has_columns[None, :], scores * _LOG2_E, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        kept = tl.exp2(peak - higher)
        shares = tl.exp2(scores - higher[:, None])
        total = total * kept + tl.sum(shares, 1)
        mixed = tl.dot(shares.to(v.dtype), v, mixed * kept[:, None], input_precision=PRECISION)
        peak = higher
    tl.store(
        tokens + image * (N * H * D) + rows[:, None] * (H * D) + head * D + width[None, :],
        (mixed / total[:, None]).to(tokens.dtype.element_ty),
        mask=has_rows[:, None] & is_width[None, :],
    )
