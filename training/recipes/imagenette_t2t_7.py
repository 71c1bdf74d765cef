"""Imagenette at 224 px from scratch: a pure T2T-ViT-7 cascade, 13 M parameters, no pretrained part. For a GPU.

    dvt train --recipe imagenette_t2t_7 --data IMAGENETTE --out DIR

Written for one data-centre GPU and about 10 minutes; aim: 90 % top-1 at the last exit, 80 % at the first. Not yet run
at full length: see docs/experiments.md.
"""

from training.augment import AugmentConfig
from training.losses import LossConfig
from training.mix import MixConfig
from training.recipe import Recipe
from training.splits import SplitSizes

RECIPE = Recipe(
    architecture="dvt_t2t_vit_7",
    epochs=250,
    batch=128,
    learning_rate=3e-4,
    warmup_epochs=10.0,
    weight_decay=0.05,
    ema_decay=0.9995,
    augment=AugmentConfig(
        crop="resized",
        crop_scale=(0.2, 1.0),
        operations=2,
        magnitude=7.0,
        erase_probability=0.2,
        mix=MixConfig(mixup_alpha=0.2, cutmix_alpha=1.0, probability=0.7),
    ),
    loss=LossConfig(label_smoothing=0.1, distill_from="last", distill_weight=0.3),
    train_px=256,
    held_out=SplitSizes(search=1000, certify=1500),
    evaluate_every=25,
)
