"""Reuse between stages: the constant resize operators, features and relations (DVT, section 3.2; figures 4 and 5).

Shapes: B batch; D width; L layers, H heads, C = L * H relation maps; g, G grid sides of the upstream and of this
stage; n = g * g, N = G * G tokens without the class token, which comes first wherever it is counted (n + 1, N + 1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resize_matrix(upstream_grid: int, grid: int) -> Tensor:
    """One-dimensional resize (G, g): nearest upsample to 2g, then average pooling to G.

    The published model resizes this way (7 -> 14 -> 10, 10 -> 20 -> 14). It is linear and fixed, so applying it to
    the identity gives its matrix. Rows sum to 1.
    """
    identity = torch.eye(upstream_grid).unsqueeze(0)
    doubled = F.interpolate(identity, scale_factor=2.0, mode="nearest")
    return F.adaptive_avg_pool1d(doubled, grid).squeeze(0).T.contiguous()


def resize_last_axis(maps: Tensor, resize: Tensor) -> Tensor:
    """Resize tokens in the last axis of (..., n) to (..., N), one image axis at a time; no class token."""
    grid, upstream_grid = resize.shape
    # Rows are laid out anew for each axis: one large product is quicker than thousands of tiny ones.
    wide = maps.reshape(-1, upstream_grid) @ resize.T  # (... * g, G)
    columns = wide.reshape(-1, upstream_grid, grid).transpose(1, 2)  # (..., G, g)
    both = columns.reshape(-1, upstream_grid) @ resize.T  # (... * G, G), transposed
    return both.reshape(*maps.shape[:-1], grid, grid).transpose(-1, -2).flatten(-2)


def resize_relations(relations: Tensor, resize: Tensor) -> Tensor:
    """Both token axes of (B, C, n + 1, n + 1) to (B, C, N + 1, N + 1); class-token rows and columns are kept.

    This is `P R P^T` with `P = [[1, 0], [0, U]]` and U the Kronecker square of `resize`, without ever forming U.
    """
    for _ in range(2):
        of_tokens = resize_last_axis(relations[..., 1:], resize)
        relations = torch.cat((relations[..., :1], of_tokens), dim=-1).transpose(-1, -2)
    return relations


class FeatureReuse(nn.Module):
    """Upstream features (B, n + 1, D) as extra MLP input channels (B, N + 1, `feature_dim`) of one block."""

    resize: Tensor

    def __init__(self, dim: int, hidden: int, feature_dim: int, eps: float, resize: Tensor) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, feature_dim)
        self.register_buffer("resize", resize, persistent=False)

    def forward(self, upstream: Tensor) -> Tensor:
        """The class token's row is zeros: only image tokens have a place to be resized to."""
        adapted = self.fc2(F.gelu(self.fc1(self.norm(upstream[:, 1:]))))  # (B, n, E)
        resized = resize_last_axis(adapted.transpose(1, 2), self.resize).transpose(1, 2)  # (B, N, E)
        return F.pad(resized, (0, 0, 1, 0))


class RelationReuse(nn.Module):
    """Upstream attention logits (B, C, n + 1, n + 1) as additions (B, C, N + 1, N + 1) to this stage's own.

    The two-layer network over the maps runs at the small grid, before the resize: that is what keeps it cheap.
    """

    resize: Tensor

    def __init__(self, maps: int, expansion: int, resize: Tensor) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(maps, expansion * maps, kernel_size=1)
        self.fc2 = nn.Conv2d(expansion * maps, maps, kernel_size=1)
        self.register_buffer("resize", resize, persistent=False)

    def forward(self, relations: Tensor) -> Tensor:
        return resize_relations(self.fc2(F.gelu(self.fc1(relations))), self.resize)
