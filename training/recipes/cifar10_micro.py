"""CIFAR-10 at 32 px on the convolutional tokeniser: the small bundle that tests are pinned to.

    dvt train --recipe cifar10_micro --data CIFAR10 --out checkpoints/cifar10-micro

On both cores of a two-core x86-64 machine with AVX512-BF16: 8 epochs in 48 minutes. Result on the 10,000 test images:
83.8 / 85.6 / 87.2 % top-1 at the three exits, and 86.0 % at 0.047 GMACs under the profile `balanced`, 86.8 % at 0.063
under `accurate`. The static twin: 65 minutes on one core, 87.7 % at 0.181 GMACs.
"""

from training.augment import AugmentConfig
from training.losses import LossConfig
from training.optim import MuonConfig
from training.recipe import Recipe
from training.splits import SplitSizes

RECIPE = Recipe(
    architecture="dvt_micro",
    epochs=8,
    batch=256,
    learning_rate=3e-3,
    warmup_epochs=0.5,
    weight_decay=0.05,
    ema_decay=0.99,
    muon=MuonConfig(learning_rate=0.1, momentum=0.6, weight_decay=0.1),
    augment=AugmentConfig(crop="shift", shift_px=4),
    loss=LossConfig(label_smoothing=0.1, distill_from="last", distill_weight=0.3),
    held_out=SplitSizes(search=2500, certify=2500),
    joint=False,
)
