"""The README.md of a trained bundle."""

import platform
from dataclasses import dataclass

import torch

from training.recipe import NamedRecipe


@dataclass(frozen=True)
class Measured:
    """Each exit's grid, cumulative GMACs and report-split top-1 (0..1), over `images` images; training took `hours`.

    `start_sha256`: of the weights that training started from, None for random ones.
    """

    grids: tuple[int, ...]
    gmacs: tuple[float, ...]
    top1: tuple[float, ...]
    images: int
    hours: float
    start_sha256: str | None = None


def model_card(named: NamedRecipe, measured: Measured) -> str:
    """Markdown. What early exits achieve is in profiles.json, which is made afterwards."""
    rows = "\n".join(
        f"| {number} | {grid}x{grid} | {gmacs:.3f} | {top1:.2%} |"
        for number, (grid, gmacs, top1) in enumerate(
            zip(measured.grids, measured.gmacs, measured.top1, strict=True), start=1
        )
    )
    start = f"Started from the weights {measured.start_sha256}.\n" if measured.start_sha256 else ""
    return f"""# {named.recipe.architecture}, recipe {named.name}

{named.description}

## Results

Every image leaving at one exit, on the {measured.images:,} images of the report split (never trained on, nothing
chosen on it). GMACs are multiply-accumulates of one image, stages before the exit included.

| exit | tokens | GMACs | top-1 |
|---|---|---|---|
{rows}

## Training

    dvt train --recipe {named.name} --data PATH --out DIR

{measured.hours:.2f} hours on {platform.machine()} with {torch.get_num_threads()} threads in the run that ended it, \
torch {torch.__version__.partition("+")[0]}, seed {named.recipe.seed}.
{start}Weights are the exponential moving average, stored in fp16, computed with in fp32. splits.json names the
training images that were held out to set thresholds (search) and to certify them.
"""
