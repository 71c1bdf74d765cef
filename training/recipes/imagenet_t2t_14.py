"""ImageNet on T2T-ViT-14: as `imagenet_t2t_12`, with half its learning rate and more decay (T2T-ViT, section 4.1).

    torchrun --nproc-per-node 8 dvt.py train --recipe imagenet_t2t_14 --data IMAGENET --out DIR

Not run at full length, for the same reason.
"""

from dataclasses import replace

from training.recipes import imagenet_t2t_12

RECIPE = replace(imagenet_t2t_12.RECIPE, architecture="dvt_t2t_vit_14", learning_rate=5e-4, weight_decay=0.05)
