"""The Dynamic Vision Transformer: a cascade of stages, each with an exit (DVT, section 3).

Shapes: B batch; S input side; k stage, from 0; n = g * g tokens of a stage's grid; D width; C relation maps.
`images` are uint8 RGB pixels (B, 3, S, S), or floats that are normalised already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bundle import BundleError, read_bundle
from models.config import (
    ConvTokenizer,
    DVTConfig,
    HybridTokenizer,
    PatchTokenizer,
    T2TTokenizer,
    Tokenizer,
)
from models.conv_tokenizer import ConvNorm, ConvTokens
from models.efficientnet import EfficientNetLite0Stem, FeatureTokens
from models.layers import Block, PatchEmbed
from models.reuse import FeatureReuse, RelationReuse, resize_matrix
from models.tokens_to_token import TokensToToken, sinusoid_positions

HEAD_STD = 0.02


@dataclass(frozen=True)
class State:
    """What a stage hands on: features (B, n + 1, D) before the final norm, relations (B, C, n + 1, n + 1).

    A part that no reuse takes is None.
    """

    features: Tensor | None
    relations: Tensor | None

    def detached(self) -> "State":
        """The same values, through which no gradient flows."""
        return State(*(part if part is None else part.detach() for part in (self.features, self.relations)))


@dataclass(frozen=True)
class StageOutput:
    """Logits (B, classes) of a stage's exit and the state for the next stage, None after the last."""

    logits: Tensor
    state: State | None


class Stage(nn.Module):
    """One transformer of the cascade: tokeniser, blocks, exit."""

    def __init__(self, config: DVTConfig, index: int) -> None:
        super().__init__()
        backbone, stage = config.backbone, config.stages[index]
        dim, tokens = backbone.dim, stage.grid**2 + 1
        first, last = index == 0, index == config.exits - 1
        resize = None if first else resize_matrix(config.stages[index - 1].grid, stage.grid)
        self.hands_on_features = config.reuse.features and not last
        self.hands_on_relations = config.reuse.relations and not last
        self.heads = backbone.heads

        self.tokenizer = _build_tokenizer(stage.tokenizer, dim, backbone.norm_eps)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        fixed = backbone.position == "sinusoid"
        positions = sinusoid_positions(tokens, dim) if fixed else torch.zeros(1, tokens, dim)
        self.pos_embed = nn.Parameter(positions, requires_grad=not fixed)
        self.blocks = nn.ModuleList()
        for _ in range(backbone.depth):
            reuse = None
            if config.reuse.features and resize is not None:
                widths = config.reuse.feature_hidden, config.reuse.feature_dim
                reuse = FeatureReuse(dim, *widths, backbone.norm_eps, resize)
            self.blocks.append(
                Block(dim, backbone.heads, backbone.mlp_ratio, backbone.qkv_bias, backbone.norm_eps, reuse)
            )
        self.relation_reuse = None
        if config.reuse.relations and resize is not None:
            self.relation_reuse = RelationReuse(backbone.relation_maps, config.reuse.relation_expansion, resize)
        self.norm = nn.LayerNorm(dim, eps=backbone.norm_eps)
        self.head = nn.Linear(dim, config.classes)

    def forward(self, view: Tensor, upstream: State | None) -> StageOutput:
        """`view` is what `DVT.view` gives for this stage."""
        tokens = self.tokenizer(view)
        cls_token = self.cls_token.expand(tokens.shape[0], -1, -1)
        tokens = torch.cat((cls_token, tokens), dim=1) + self.pos_embed
        features = relations = None
        if upstream is not None:
            features, relations = upstream.features, upstream.relations
        reused: Sequence[Tensor | None] = [None] * len(self.blocks)
        if self.relation_reuse is not None:
            reused = self.relation_reuse(relations).split(self.heads, dim=1)  # layers outermost
        handed_on: list[Tensor] = []
        for block, of_layer in zip(self.blocks, reused, strict=True):
            tokens, logits = block(tokens, features, of_layer)
            if self.hands_on_relations:
                handed_on.append(logits)
        state = None
        if self.hands_on_features or self.hands_on_relations:
            state = State(
                tokens if self.hands_on_features else None,
                torch.cat(handed_on, dim=1) if self.hands_on_relations else None,
            )
        return StageOutput(self.head(self.norm(tokens[:, 0])), state)


class DVT(nn.Module):
    """A cascade. `forward` runs every stage; `forward_stage` runs one, so that only what stays is computed further."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: DVTConfig) -> None:
        super().__init__()
        self.config = config
        hybrid = any(isinstance(stage.tokenizer, HybridTokenizer) for stage in config.stages)
        self.stem = EfficientNetLite0Stem() if hybrid else None
        self.stages = nn.ModuleList(Stage(config, index) for index in range(config.exits))
        self.register_buffer("mean", torch.tensor(config.input.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.input.std).view(1, 3, 1, 1), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normals. A layer keeps the variance of what it takes in (LeCun et al. 1998; He et al. 2015 where a
        rectifier follows, as after the tokeniser's convolutions); heads and learned embeddings start near zero (0.02,
        ViT's habit), biases at zero."""
        for name, module in self.stages.named_modules():
            if isinstance(module, nn.Linear):
                is_head = name.rpartition(".")[2] == "head"
                nn.init.trunc_normal_(module.weight, std=HEAD_STD if is_head else module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, ConvNorm):
                nn.init.kaiming_normal_(module.conv.weight, nonlinearity="relu")
            if isinstance(module, Stage):
                nn.init.trunc_normal_(module.cls_token, std=HEAD_STD)
                if module.pos_embed.requires_grad:
                    nn.init.trunc_normal_(module.pos_embed, std=HEAD_STD)

    def view(self, k: int, images: Tensor) -> Tensor:
        """What stage k's tokeniser takes: the normalised image at its size, or the stem's features of that."""
        if images.dtype == torch.uint8:
            images = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        tokenizer = self.config.stages[k].tokenizer
        if isinstance(tokenizer, (HybridTokenizer, ConvTokenizer)) and tokenizer.image_px != images.shape[-1]:
            size = (tokenizer.image_px, tokenizer.image_px)
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        if isinstance(tokenizer, HybridTokenizer):
            assert self.stem is not None
            images = self.stem(images)
        return images

    def forward_stage(self, k: int, images: Tensor, state: State | None) -> StageOutput:
        """Stage k (from 0) on `images` with the state that stage k - 1 handed on (None for the first)."""
        output: StageOutput = self.stages[k](self.view(k, images), state)
        return output

    def views(self, images: Tensor) -> list[Tensor]:
        """What each stage's tokeniser takes."""
        return [self.view(k, images) for k in range(len(self.stages))]

    def forward_views(self, views: Sequence[Tensor], *, joint: bool = True) -> list[Tensor]:
        """Logits (B, classes) of every exit, from one view a stage. Unless `joint`, an exit's gradient ends at what its
        stage is handed."""
        all_logits: list[Tensor] = []
        state: State | None = None
        for stage, view in zip(self.stages, views, strict=True):
            output: StageOutput = stage(view, state)
            all_logits.append(output.logits)
            state = output.state if joint or output.state is None else output.state.detached()
        return all_logits

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (B, classes) of every exit."""
        return self.forward_views(self.views(images))


def _build_tokenizer(config: Tokenizer, dim: int, eps: float) -> nn.Module:
    match config:
        case T2TTokenizer():
            return TokensToToken(config.kernel, config.stride, config.padding, dim)
        case PatchTokenizer():
            return PatchEmbed(config.kernel, config.stride, config.padding, dim)
        case ConvTokenizer():
            return ConvTokens(config, dim)
        case HybridTokenizer():
            return FeatureTokens(dim, eps)


def load_bundle(path: str | Path) -> DVT:
    """The network of a bundle, with its weights, in float32 and evaluation mode. Raises `BundleError`."""
    bundle = read_bundle(path)
    model = DVT(bundle.config)
    weights = {name: torch.from_numpy(array) for name, array in bundle.weights().items()}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != expected:
        differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        listed = [
            f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'nothing')}" for name in differing
        ]
        raise BundleError(
            f"the weights of {bundle.path} do not fit its config.json; make the bundle anew:\n  " + "\n  ".join(listed)
        )
    model.load_state_dict(weights)
    return model.eval()
