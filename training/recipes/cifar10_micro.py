"""CIFAR-10 at 32 px on the convolutional tokeniser: the small bundle that tests are pinned to.

    TWIN=benchmarks/bundles/cifar10-micro-static
    dvt train --recipe cifar10_micro_static --data CIFAR10 --out $TWIN
    dvt train --recipe cifar10_micro --data CIFAR10 --teacher $TWIN --out checkpoints/cifar10-micro

All exits learn from the static twin, which is trained first: it lifts the last exit by 0.4 points. On both cores of a
two-core x86-64 machine with AVX512-BF16: 8 epochs in 28 minutes. Result on the 10,000 test images: 83.6 / 85.5 / 87.5
% top-1 at the three exits, 87.0 % at 0.071 GMACs under the profile `balanced`, and 87.4 % at 0.087 GMACs where half
of the static twin's cost is asked for. The static twin: 65 minutes on one core, 87.7 % at 0.181 GMACs.
"""

from training.augment import AugmentConfig
from training.losses import LossConfig
from training.muon import MuonConfig
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
    loss=LossConfig(label_smoothing=0.1, distill_from="last", distill_weight=0.5, distill_temperature=2.0),
    held_out=SplitSizes(search=2500, certify=2500),
    joint=False,
)
