"""What a cascade looks like: frozen dataclasses, JSON in and out, unknown keys are errors. No torch.

A `DVTConfig` says everything needed to build the network and to prepare an image for it; weights are elsewhere.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from models import strict_json

SCHEMA_VERSION = 1
VERSION = strict_json.Version(SCHEMA_VERSION, "make the bundle anew with `dvt convert` or `dvt train` of this version")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}, it must be at least {least}")


@dataclass(frozen=True)
class PatchTokenizer:
    """DeiT: one convolution from the image to the token grid."""

    kernel: int
    stride: int
    padding: int
    kind: Literal["patch"] = "patch"

    def __post_init__(self) -> None:
        _at_least(1, kernel=self.kernel, stride=self.stride)
        _at_least(0, padding=self.padding)

    def grid(self, image_px: int) -> int:
        return (image_px + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class T2TTokenizer:
    """T2T-ViT: a soft split of the image, then twice a Performer block and a 3x3 stride-2 soft split."""

    kernel: int
    stride: int
    padding: int
    kind: Literal["t2t"] = "t2t"

    def __post_init__(self) -> None:
        _at_least(1, kernel=self.kernel, stride=self.stride)
        _at_least(0, padding=self.padding)

    def grid(self, image_px: int) -> int:
        side = (image_px + 2 * self.padding - self.kernel) // self.stride + 1
        for _ in range(2):
            side = (side + 2 - 3) // 2 + 1
        return side


@dataclass(frozen=True)
class ConvStep:
    """A 3x3 convolution to `width` channels at `stride`, then `residuals` residual blocks of two 3x3 convolutions."""

    width: int
    stride: int
    residuals: int = 0

    def __post_init__(self) -> None:
        _at_least(1, width=self.width, stride=self.stride)
        _at_least(0, residuals=self.residuals)


@dataclass(frozen=True)
class ConvTokenizer:
    """For small images: the image at `image_px` a side through a few 3x3 convolutions, one token a last pixel."""

    image_px: int
    steps: tuple[ConvStep, ...]
    kind: Literal["conv"] = "conv"

    def grid(self, image_px: int) -> int:
        side = self.image_px
        for step in self.steps:
            side = (side - 1) // step.stride + 1
        return side


@dataclass(frozen=True)
class HybridTokenizer:
    """Stride-16 features of a pretrained EfficientNet-Lite0, shared by all stages, on the image at 16 g pixels."""

    image_px: int
    kind: Literal["hybrid"] = "hybrid"

    def grid(self, image_px: int) -> int:
        return self.image_px // 16


Tokenizer = PatchTokenizer | T2TTokenizer | ConvTokenizer | HybridTokenizer


@dataclass(frozen=True)
class StageConfig:
    """One transformer of the cascade: a `grid` x `grid` token map made by `tokenizer`."""

    grid: int
    tokenizer: Tokenizer


@dataclass(frozen=True)
class BackboneConfig:
    """The transformer that every stage of a cascade has (with weights of its own)."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: int
    qkv_bias: bool
    norm_eps: float
    position: Literal["sinusoid", "learned"]

    def __post_init__(self) -> None:
        _at_least(1, dim=self.dim, depth=self.depth, heads=self.heads, mlp_ratio=self.mlp_ratio)
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def relation_maps(self) -> int:
        """C = L * H, the attention maps that a stage hands on."""
        return self.depth * self.heads


@dataclass(frozen=True)
class ReuseConfig:
    """What a stage takes from the one before (DVT, section 3.2), and the widths of the networks that adapt it."""

    features: bool = True
    relations: bool = True
    feature_hidden: int = 128
    feature_dim: int = 48
    relation_expansion: int = 3

    def __post_init__(self) -> None:
        widths = {"feature_hidden": self.feature_hidden, "feature_dim": self.feature_dim}
        _at_least(1, **widths, relation_expansion=self.relation_expansion)


@dataclass(frozen=True)
class InputConfig:
    """The one evaluation transform: short side to `resize_px`, centre crop `size_px`, then (x / 255 - mean) / std."""

    size_px: int
    resize_px: int
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 1 <= self.size_px <= self.resize_px:
            raise ValueError(f"size_px {self.size_px} must lie in 1..resize_px {self.resize_px}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std need three numbers each, std above 0")


@dataclass(frozen=True)
class DVTConfig:
    """A whole cascade. `labels` are the class names in the order of the logits.

    Raises `ValueError` where the parts do not fit together.
    """

    architecture: str
    backbone: BackboneConfig
    stages: tuple[StageConfig, ...]
    input: InputConfig
    labels: tuple[str, ...]
    reuse: ReuseConfig = ReuseConfig()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        VERSION.check(self.schema_version)
        if not self.stages:
            raise ValueError("a cascade needs at least one stage")
        if not self.labels:
            raise ValueError("labels must name at least one class")
        repeated = [label for label, count in Counter(self.labels).items() if count > 1]
        if repeated:
            raise ValueError(f"labels must be distinct, these are not: {', '.join(repeated)}")
        for number, stage in enumerate(self.stages, start=1):
            made = stage.tokenizer.grid(self.input.size_px)
            if made != stage.grid or stage.grid < 1:
                raise ValueError(f"stage {number}: its tokenizer makes a {made}x{made} grid, not {stage.grid}")

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def exits(self) -> int:
        """K, the number of exits, one a stage."""
        return len(self.stages)

    def with_labels(self, labels: tuple[str, ...]) -> "DVTConfig":
        return replace(self, labels=labels)

    def to_json(self) -> str:
        return strict_json.dumps(self)

    @staticmethod
    def from_json(text: str, where: str = "config.json") -> "DVTConfig":
        """Raises `strict_json.SchemaError` (a `ValueError`) that names the place."""
        return strict_json.loads(DVTConfig, text, where, version=VERSION)
