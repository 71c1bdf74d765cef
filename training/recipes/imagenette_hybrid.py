"""Imagenette at 224 px on the hybrid tokeniser: the shipped default.

Imagenette is ten classes of ImageNet, so the pretrained stem has seen most of its images, test set included; the
numbers say how the cascade trades accuracy for computation, not how well it would do on photographs of another source.

    dvt train --recipe imagenette_hybrid --data IMAGENETTE --out checkpoints/imagenette-hybrid

The stem is frozen. Its features are computed once for four views of each image (plain, mirrored, two random crops with
one light RandAugment operation) and kept on disk (2.1 GB); an epoch takes one view an image.

On one core of a two-core x86-64 machine: 12 minutes for the features, 34 for 8 epochs. Result on the 3,925 test
images: 93.4 / 94.6 / 95.7 % top-1 at the three exits, and 95.1 % at 0.141 GMACs under the profile `balanced`. The
static twin: 14 minutes for 8 epochs, 95.1 % at 0.466 GMACs.
"""

from training.augment import AugmentConfig
from training.losses import LossConfig
from training.mix import MixConfig
from training.muon import MuonConfig
from training.recipe import Recipe
from training.splits import SplitSizes
from training.views import ViewConfig

RECIPE = Recipe(
    architecture="dvt_hybrid_lite",
    epochs=8,
    batch=64,
    learning_rate=1e-3,
    warmup_epochs=1.0,
    weight_decay=0.1,
    ema_decay=0.99,
    muon=MuonConfig(learning_rate=0.02, momentum=0.6, weight_decay=0.1),
    augment=AugmentConfig(mix=MixConfig(mixup_alpha=0.4)),
    loss=LossConfig(exit_weights=(1.0, 1.0, 1.0), label_smoothing=0.1, distill_from="last", distill_weight=0.3),
    views=ViewConfig(4, AugmentConfig(crop="resized", crop_scale=(0.4, 1.0), operations=1, magnitude=6.0)),
    held_out=SplitSizes(search=1000, certify=1500),
)
