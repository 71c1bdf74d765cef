"""Registered architectures: names to configurations. No torch.

Geometry of the published cascades: DVT, section 4 and appendix A; see docs/model.md for the tables.
"""

from dataclasses import replace

from models.config import (
    BackboneConfig,
    ConvStep,
    ConvTokenizer,
    DVTConfig,
    HybridTokenizer,
    InputConfig,
    PatchTokenizer,
    ReuseConfig,
    StageConfig,
    T2TTokenizer,
)

IMAGENET_INPUT = InputConfig(size_px=224, resize_px=256)
# The pretrained stem takes (x - 127) / 128 of pixels 0..255.
HYBRID_INPUT = InputConfig(size_px=224, resize_px=256, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
CIFAR_INPUT = InputConfig(size_px=32, resize_px=32)

T2T_STAGES = (
    StageConfig(7, T2TTokenizer(kernel=14, stride=8, padding=3)),
    StageConfig(10, T2TTokenizer(kernel=11, stride=6, padding=5)),
    StageConfig(14, T2TTokenizer(kernel=7, stride=4, padding=2)),
)
DEIT_STAGES = (
    StageConfig(7, PatchTokenizer(kernel=32, stride=32, padding=0)),
    StageConfig(10, PatchTokenizer(kernel=23, stride=23, padding=3)),
    StageConfig(14, PatchTokenizer(kernel=16, stride=16, padding=0)),
)
HYBRID_STAGES = tuple(StageConfig(grid, HybridTokenizer(image_px=16 * grid)) for grid in (7, 10, 14))
# The last stage is wide: what a hard image costs is what an easy one saves.
MICRO_STAGES = (
    StageConfig(4, ConvTokenizer(32, (ConvStep(32, 2, 1), ConvStep(64, 2, 1), ConvStep(128, 2, 1)))),
    StageConfig(8, ConvTokenizer(32, (ConvStep(64, 2, 1), ConvStep(128, 2, 1)))),
    StageConfig(8, ConvTokenizer(32, (ConvStep(32, 1), ConvStep(96, 2, 2), ConvStep(160, 2, 2)))),
)
# Wider and deeper throughout, for a GPU: residuals at full resolution, which the micro cascade cannot pay for.
CIFAR_STAGES = (
    StageConfig(4, ConvTokenizer(32, (ConvStep(64, 2, 1), ConvStep(128, 2, 1), ConvStep(192, 2, 1)))),
    StageConfig(8, ConvTokenizer(32, (ConvStep(64, 1, 1), ConvStep(128, 2, 1), ConvStep(192, 2, 1)))),
    StageConfig(8, ConvTokenizer(32, (ConvStep(64, 1, 1), ConvStep(192, 2, 2), ConvStep(256, 2, 2)))),
)


def _t2t(dim: int, depth: int, heads: int, mlp_ratio: int) -> BackboneConfig:
    return BackboneConfig(dim, depth, heads, mlp_ratio, qkv_bias=False, norm_eps=1e-5, position="sinusoid")


def _deit(dim: int, heads: int) -> BackboneConfig:
    return BackboneConfig(dim, 12, heads, mlp_ratio=4, qkv_bias=True, norm_eps=1e-6, position="learned")


_CASCADES: dict[str, tuple[BackboneConfig, tuple[StageConfig, ...], InputConfig]] = {
    "dvt_t2t_vit_7": (_t2t(256, 7, 4, 2), T2T_STAGES, IMAGENET_INPUT),
    "dvt_t2t_vit_10": (_t2t(256, 10, 4, 2), T2T_STAGES, IMAGENET_INPUT),
    "dvt_t2t_vit_12": (_t2t(256, 12, 4, 2), T2T_STAGES, IMAGENET_INPUT),
    "dvt_t2t_vit_14": (_t2t(384, 14, 6, 3), T2T_STAGES, IMAGENET_INPUT),
    "dvt_t2t_vit_19": (_t2t(448, 19, 7, 3), T2T_STAGES, IMAGENET_INPUT),
    "dvt_t2t_vit_24": (_t2t(512, 24, 8, 3), T2T_STAGES, IMAGENET_INPUT),
    "dvt_deit_tiny": (_deit(192, 3), DEIT_STAGES, IMAGENET_INPUT),
    "dvt_deit_small": (_deit(384, 6), DEIT_STAGES, IMAGENET_INPUT),
    "dvt_deit_base": (_deit(768, 12), DEIT_STAGES, IMAGENET_INPUT),
    "dvt_micro": (
        BackboneConfig(128, 2, 4, mlp_ratio=2, qkv_bias=True, norm_eps=1e-5, position="learned"),
        MICRO_STAGES,
        CIFAR_INPUT,
    ),
    "dvt_cifar": (
        BackboneConfig(192, 3, 4, mlp_ratio=2, qkv_bias=True, norm_eps=1e-5, position="learned"),
        CIFAR_STAGES,
        CIFAR_INPUT,
    ),
    "dvt_hybrid_lite": (
        BackboneConfig(192, 3, 3, mlp_ratio=2, qkv_bias=True, norm_eps=1e-5, position="learned"),
        HYBRID_STAGES,
        HYBRID_INPUT,
    ),
}

ARCHITECTURES: tuple[str, ...] = (
    *_CASCADES,
    *(name.replace("dvt_", "static_", 1) for name in _CASCADES),
)


def build_config(name: str, labels: tuple[str, ...]) -> DVTConfig:
    """The configuration of a registered architecture for these class names.

    `static_*` is the last stage alone, without reuse: the model a user would run instead of the cascade.
    Raises `ValueError` for an unknown name.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}, known are {', '.join(ARCHITECTURES)}")
    backbone, stages, image = _CASCADES[name.replace("static_", "dvt_", 1)]
    config = DVTConfig(name, backbone, stages, image, labels)
    if name.startswith("static_"):
        return as_static(config)
    return config


def as_static(config: DVTConfig) -> DVTConfig:
    """The same network's last stage alone, without reuse."""
    name = config.architecture.replace("dvt_", "static_", 1)
    return replace(
        config, architecture=name, stages=config.stages[-1:], reuse=ReuseConfig(features=False, relations=False)
    )
