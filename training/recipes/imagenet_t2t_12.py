"""ImageNet on T2T-ViT-12, as the paper trains it: 310 epochs, batch 512, the loss of all three exits (DVT, section 4).

    torchrun --nproc-per-node 8 dvt.py train --recipe imagenet_t2t_12 --data IMAGENET --out DIR

Images are streamed from disk. Not run at full length: it needs ImageNet and about eight GPUs for two days. The paper
reports the published checkpoint's curve for it (docs/model.md).
"""

from training.augment import AugmentConfig
from training.losses import LossConfig
from training.mix import MixConfig
from training.recipe import Recipe
from training.splits import SplitSizes

AUGMENT = AugmentConfig(
    crop="resized",
    crop_scale=(0.08, 1.0),
    operations=2,
    magnitude=9.0,
    magnitude_std=0.5,
    erase_probability=0.25,
    mix=MixConfig(mixup_alpha=0.8, cutmix_alpha=1.0),
)

RECIPE = Recipe(
    architecture="dvt_t2t_vit_12",
    epochs=310,
    batch=512,
    learning_rate=1e-3,
    warmup_epochs=10.0,
    weight_decay=0.03,
    ema_decay=0.99996,
    augment=AUGMENT,
    loss=LossConfig(label_smoothing=0.1),
    train_px=256,
    held_out=SplitSizes(search=25_000, certify=25_000),
)
