"""Makes tests/golden/five_exits.npz: a real cascade of five exits, to compare threshold rules on.

    nice python scripts/five_exit_arrays.py PATH_TO_CIFAR10 tests/golden/five_exits.npz

Trains a small five-stage cascade (grids 2, 3, 4, 6, 8 on 32 px) on 10,000 training images for 5 epochs, a few minutes
on one core and far from what it could learn, and keeps what each exit says of 2,500 held-out training images (search)
and 2,500 test images (report): max-softmax confidence as float16, whether the prediction is right, and cumulative
GMACs.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models.config import BackboneConfig, ConvStep, ConvTokenizer, DVTConfig, InputConfig, StageConfig
from models.dvt import DVT
from models.flops import cumulative_gmacs
from models.policy import confidence, softmax
from training.data import DecodedImages, ImageFolder, decode_all
from training.evaluate import collect_logits, evenly_limited
from training.seeds import epoch_order, rng
from training.splits import SplitSizes, cut
from training.temperature import fit_temperature

EPOCHS, BATCH, TRAINED_ON, HELD_OUT, PEAK_LR = 5, 50, 10_000, 2_500, 2e-3

STAGES = (
    StageConfig(2, ConvTokenizer(32, (ConvStep(8, 2), ConvStep(16, 2), ConvStep(32, 2), ConvStep(64, 2)))),
    StageConfig(3, ConvTokenizer(24, (ConvStep(16, 2), ConvStep(32, 2), ConvStep(64, 2)))),
    StageConfig(4, ConvTokenizer(32, (ConvStep(16, 2), ConvStep(32, 2), ConvStep(64, 2)))),
    StageConfig(6, ConvTokenizer(24, (ConvStep(24, 2), ConvStep(64, 2)))),
    StageConfig(8, ConvTokenizer(32, (ConvStep(24, 2), ConvStep(64, 2)))),
)
BACKBONE = BackboneConfig(64, 1, 2, mlp_ratio=2, qkv_bias=True, norm_eps=1e-5, position="learned")


def train(model: DVT, images: DecodedImages) -> None:
    """Sum of the exits' losses, AdamW on one cycle, flips."""
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        order = epoch_order(len(images), seed=0, epoch=epoch)
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = images.batch(order[start : start + BATCH])
            flipped = torch.from_numpy(rng("flip", epoch, start).random(BATCH) < 0.5)
            pixels = torch.where(flipped[:, None, None, None], batch.images.flip(3), batch.images)
            loss = torch.stack([F.cross_entropy(logits, batch.targets) for logits in model(pixels)]).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships it without types
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", file=sys.stderr)


def main(data: Path, out: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = ImageFolder.scan(data)
    splits = cut(folder, SplitSizes(HELD_OUT, HELD_OUT), seed=0)
    config = DVTConfig("dvt_five_exits", BACKBONE, STAGES, InputConfig(32, 32), folder.labels)
    model = DVT(config)
    train(model, decode_all(evenly_limited(splits.train, TRAINED_ON), config.input))
    model.eval()
    search = collect_logits(model, decode_all(splits.search, config.input))
    report = collect_logits(model, decode_all(evenly_limited(splits.report, HELD_OUT), config.input))
    temperatures = [fit_temperature(logits, search.targets).temperature for logits in search.logits]
    arrays: dict[str, np.ndarray] = {"cumulative_gmacs": np.array(cumulative_gmacs(model))}
    for name, split in (("search", search), ("report", report)):
        probabilities = [softmax(logits, t) for logits, t in zip(split.logits, temperatures, strict=True)]
        arrays[f"{name}_confidences"] = confidence(np.stack(probabilities)).astype(np.float16)
        arrays[f"{name}_correct"] = split.logits.argmax(axis=-1) == split.targets
        print(f"{name}: top-1 {np.round(split.exit_top1, 4).tolist()}", file=sys.stderr)
    np.savez_compressed(out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
