"""Transformer parts of one stage: attention that takes and hands on relations, MLP with reused features, block.

Shapes: B batch; N tokens, class token included; D width; H heads, d = D / H; E reused feature channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.reuse import FeatureReuse


class Attention(nn.Module):
    """Multi-head self-attention whose pre-softmax logits can be added to and looked at (DVT, equation 5)."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, reused: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D) and reused logits (B, H, N, N) to tokens (B, N, D) and this layer's logits (B, H, N, N).

        The logits are those after the reused ones were added: what the next stage takes.
        """
        batch, count, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, N, d)
        logits = (query * self.scale) @ key.transpose(-2, -1)
        if reused is not None:
            logits = logits + reused
        mixed = torch.softmax(logits, dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).flatten(2)), logits


class Mlp(nn.Module):
    """Two linear layers with exact (erf) GELU."""

    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_dim, hidden)
        self.fc2 = nn.Linear(hidden, out_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return output


class Block(nn.Module):
    """Pre-norm transformer block; reused features are extra input channels of its MLP."""

    def __init__(
        self, dim: int, heads: int, mlp_ratio: int, qkv_bias: bool, eps: float, feature_reuse: FeatureReuse | None
    ) -> None:
        super().__init__()
        mlp_in = dim + (feature_reuse.fc2.out_features if feature_reuse is not None else 0)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(mlp_in, eps=eps)
        self.mlp = Mlp(mlp_in, mlp_ratio * dim, dim)
        self.feature_reuse = feature_reuse

    def forward(self, tokens: Tensor, features: Tensor | None, relations: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D), upstream features (B, n + 1, D), reused logits (B, H, N, N) -> tokens, logits."""
        attended, logits = self.attn(self.norm1(tokens), relations)
        tokens = tokens + attended
        wide = tokens
        if self.feature_reuse is not None:
            assert features is not None
            wide = torch.cat((tokens, self.feature_reuse(features)), dim=-1)
        return tokens + self.mlp(self.norm2(wide)), logits


class PatchEmbed(nn.Module):
    """DeiT's tokeniser: one convolution, (B, 3, S, S) -> (B, N, D)."""

    def __init__(self, kernel: int, stride: int, padding: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=kernel, stride=stride, padding=padding)

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.proj(image).flatten(2).transpose(1, 2)
        return output
