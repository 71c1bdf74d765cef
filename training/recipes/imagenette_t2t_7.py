"""Imagenette at 224 px from scratch: a pure T2T-ViT-7 cascade, 13 M parameters, no pretrained part. For a GPU.

    dvt train --recipe imagenette_t2t_7 --data IMAGENETTE --out DIR --max-minutes 9.5

Aim: 90 % top-1 at the last exit, 80 % at the first. Sized for one data-centre GPU and one slice of 10 minutes: 8,100
steps of 128 images at 2,840 images/s (measured on an H200 with AdamW: 38 TFLOP/s, a twentieth of what a large product
reaches) are 6.1 minutes; on a machine that has not done it before the layers are compiled in 1.5, and decoding,
looking at the search split and writing the bundle take less than one. Should that not be enough, `--max-minutes` ends
the run with a checkpoint and exit code 75, and the same command with `--resume` goes on along the same cosine, which
is laid over all 150 epochs however often the run is cut.

What to expect of the log: a loss of 5.5 is chance; after the warm-up (540 steps) it was 4.7 to 4.8 with AdamW. With
AdamW at 1e-3 it jumped to 6 two epochs later and stayed there, after which the run was wasted; `dvt train` now ends
such a run with exit code 3. Hence 3e-4, and the matrices by Muon, whose steps are no larger than its rate whatever the
gradient: its first stage learnt much faster so on a CPU (docs/experiments.md). `--no-muon` gives them to AdamW.
Neither has yet been run on a GPU at full length.
"""

from training.augment import AugmentConfig
from training.losses import LossConfig
from training.mix import MixConfig
from training.muon import MuonConfig
from training.recipe import Recipe
from training.splits import SplitSizes

RECIPE = Recipe(
    architecture="dvt_t2t_vit_7",
    epochs=150,
    batch=128,
    learning_rate=3e-4,
    warmup_epochs=10.0,
    weight_decay=0.05,
    ema_decay=0.9995,
    muon=MuonConfig(learning_rate=0.02, momentum=0.6, weight_decay=0.1),
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
