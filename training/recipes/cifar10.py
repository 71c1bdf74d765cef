"""CIFAR-10 at 32 px on a wider convolutional tokeniser: a cascade of 10 M parameters, for a GPU.

    dvt train --recipe cifar10 --data CIFAR10 --out DIR --max-minutes 9.5

Aim: 95 % top-1 at the last exit (1.08 GMACs; the others 0.07 and 0.37). Convolutions and matrices are moved by Muon, as
in `cifar10_micro`; being four times as dear and trained six times as long, it gets CutMix and one light RandAugment
operation besides shifts and rectangles.

Sized for one data-centre GPU and 10 minutes: a step takes 6.46 GFLOPs an image, and at the rate at which
`imagenette_t2t_7` ran on an H200 (38 TFLOP/s, a twentieth of what a large product reaches there) that is 5,900
images/s, 6.4 minutes for 50 epochs; the layers are compiled in one or two. Not yet run on a GPU; a few hundred steps on
a CPU are in docs/experiments.md.
"""

from dataclasses import replace

from training.augment import AugmentConfig
from training.mix import MixConfig
from training.recipes import cifar10_micro_long

RECIPE = replace(
    cifar10_micro_long.RECIPE,
    architecture="dvt_cifar",
    epochs=50,
    augment=AugmentConfig(
        crop="shift",
        shift_px=4,
        operations=1,
        magnitude=5.0,
        erase_probability=0.25,
        mix=MixConfig(cutmix_alpha=1.0, probability=0.5),
    ),
)
