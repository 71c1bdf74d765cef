"""The T2T tokeniser: soft splits with Performer blocks between them (T2T-ViT, section 3.1; Performer, equation 5).

Shapes: B batch; P patches of a soft split; K values of a patch; d = 64 token width; m = 32 random features.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKEN_DIM = 64
RANDOM_FEATURES = 32
PERFORMER_EPS = 1e-8
NORM_EPS = 1e-5


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    # "meta", through which shapes alone go to be counted, has none.
    return nullcontext() if device.type == "meta" else torch.autocast(device_type=device.type, enabled=False)


class Performer(nn.Module):
    """One block of linear attention by positive random features; (B, P, K) -> (B, P, d).

    The skip connection comes from the values, since input and output differ in width. Random features and their
    normaliser stay in fp32: `exp` overflows and the epsilon underflows in half precision.
    """

    w: Tensor

    def __init__(self, patch_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(patch_dim, eps=NORM_EPS)
        self.kqv = nn.Linear(patch_dim, 3 * TOKEN_DIM)
        self.proj = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        self.norm2 = nn.LayerNorm(TOKEN_DIM, eps=NORM_EPS)
        self.fc1 = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        self.fc2 = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        self.register_buffer("w", _orthogonal_features(RANDOM_FEATURES, TOKEN_DIM))

    def _features(self, x: Tensor) -> Tensor:
        """exp(w.x - |x|^2 / 2) / sqrt(m), (B, P, d) -> (B, P, m) in fp32."""
        half_norm = x.square().sum(dim=-1, keepdim=True) / 2
        features: Tensor = torch.exp(x @ self.w.float().T - half_norm) / RANDOM_FEATURES**0.5
        return features

    def _attend(self, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
        """y = q' (k'^T v) / (q' . sum k' + eps), in fp32 whatever the autocast says."""
        with _without_autocast(key.device):
            keys, queries = self._features(key.float()), self._features(query.float())
            normaliser = queries @ keys.sum(dim=1).unsqueeze(-1) + PERFORMER_EPS  # (B, P, 1)
            attended: Tensor = queries @ (keys.transpose(1, 2) @ value.float()) / normaliser
        return attended

    def forward(self, patches: Tensor) -> Tensor:
        key, query, value = self.kqv(self.norm1(patches)).chunk(3, dim=-1)
        tokens = value + self.proj(self._attend(key, query, value).to(value.dtype))
        output: Tensor = tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        return output


class TokensToToken(nn.Module):
    """(B, 3, S, S) -> (B, N, D): soft split, Performer, 3x3 soft split, Performer, 3x3 soft split, projection."""

    def __init__(self, kernel: int, stride: int, padding: int, dim: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.attention1 = Performer(3 * kernel * kernel)
        self.attention2 = Performer(TOKEN_DIM * 9)
        self.project = nn.Linear(TOKEN_DIM * 9, dim)

    def forward(self, image: Tensor) -> Tensor:
        patches = soft_split(image, self.kernel, self.stride, self.padding)
        side = (image.shape[-1] + 2 * self.padding - self.kernel) // self.stride + 1
        for performer in (self.attention1, self.attention2):
            tokens = performer(patches).transpose(1, 2).unflatten(2, (side, side))  # (B, d, side, side)
            patches = soft_split(tokens, 3, 2, 1)
            side = (side - 1) // 2 + 1
        output: Tensor = self.project(patches)
        return output


def soft_split(image: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Overlapping patches of (B, C, S, S): (B, P, C * kernel * kernel), their values by channel, row and column."""
    if torch.is_grad_enabled():
        return F.unfold(image, kernel, stride=stride, padding=padding).transpose(1, 2)
    # The same values by one copy of windows. `F.unfold` is a kernel for each image on a GPU, hundreds for a batch, but
    # its gradient is cheaper than that of windows, and a compiler makes one kernel of it.
    windows = F.pad(image, (padding,) * 4).unfold(2, kernel, stride).unfold(3, kernel, stride)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def sinusoid_positions(count: int, dim: int) -> Tensor:
    """Fixed position table (1, count, dim): sine on even channels, cosine on odd (Transformer, section 3.5)."""
    position = torch.arange(count, dtype=torch.float64).unsqueeze(1)
    channel = torch.arange(dim, dtype=torch.float64)
    angle = position / torch.pow(torch.tensor(10000.0, dtype=torch.float64), 2 * (channel // 2) / dim)
    table = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    return table.float().unsqueeze(0)


def _orthogonal_features(count: int, dim: int) -> Tensor:
    """Random projection (count, dim) with orthogonal rows of norm sqrt(count), which lowers the variance."""
    rows = nn.init.orthogonal_(torch.empty(count, dim))
    features: Tensor = rows * count**0.5
    return features
