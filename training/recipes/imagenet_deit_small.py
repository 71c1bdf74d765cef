"""ImageNet on DeiT-small: 300 epochs, batch 1024 (DeiT, table 9), the loss of all three exits.

    torchrun --nproc-per-node 8 dvt.py train --recipe imagenet_deit_small --data IMAGENET --out DIR

Not run at full length, for the reason that `imagenet_t2t_12` gives.
"""

from dataclasses import replace

from training.recipes import imagenet_t2t_12

RECIPE = replace(
    imagenet_t2t_12.RECIPE,
    architecture="dvt_deit_small",
    epochs=300,
    batch=1024,
    learning_rate=1e-3,
    warmup_epochs=5.0,
    weight_decay=0.05,
)
