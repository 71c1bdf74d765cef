"""The README.md of a trained bundle."""

from dataclasses import dataclass
from textwrap import fill

import torch

from models.bundle import README, Bundle, write_file_atomically
from models.profiles import Profiles
from training.recipe import NamedRecipe
from training.throughput import Speed

_PROMISES = "## What is promised"


@dataclass(frozen=True)
class Measured:
    """Each exit's grid, cumulative GMACs and report-split top-1 (0..1), over `images` images; training took `hours` on
    `device`, `speed` in the median, None where no step was logged.

    `start_sha256`: of the weights that training started from, None for random ones; `teacher_sha256`: of those that
    all exits learnt from, None without a teacher.
    """

    grids: tuple[int, ...]
    gmacs: tuple[float, ...]
    top1: tuple[float, ...]
    images: int
    hours: float
    device: str
    speed: Speed | None
    start_sha256: str | None = None
    teacher_sha256: str | None = None


def model_card(named: NamedRecipe, measured: Measured) -> str:
    """Markdown. What early exits achieve is in profiles.json, which is made afterwards."""
    rows = "\n".join(
        f"| {number} | {grid}x{grid} | {gmacs:.3f} | {top1:.2%} |"
        for number, (grid, gmacs, top1) in enumerate(
            zip(measured.grids, measured.gmacs, measured.top1, strict=True), start=1
        )
    )
    origin = f"Started from the weights {measured.start_sha256}.\n" if measured.start_sha256 else ""
    origin += f"Taught by the weights {measured.teacher_sha256}.\n" if measured.teacher_sha256 else ""
    command = f"dvt train --recipe {named.name} --data PATH --out DIR"
    command += " --start BUNDLE" * bool(measured.start_sha256) + " --teacher BUNDLE" * bool(measured.teacher_sha256)
    return f"""# {named.recipe.architecture}, recipe {named.name}

{named.description}

## Results

Every image leaving at one exit, on the {measured.images:,} images of the report split (never trained on, nothing
chosen on it). GMACs are multiply-accumulates of one image, stages before the exit included.

| exit | tokens | GMACs | top-1 |
|---|---|---|---|
{rows}

## Training

    {command}

{measured.hours:.2f} hours on {measured.device}, torch {torch.__version__.partition("+")[0]}, seed {named.recipe.seed}.
{_in_use(measured.speed)}{origin}Weights are the exponential moving average, stored in fp16, computed with in fp32. \
splits.json names the
training images that were held out to set thresholds (search) and to certify them.
"""


def _in_use(speed: Speed | None) -> str:
    """How much of the device training used; nothing where that is not known."""
    if speed is None:
        return ""
    words = fill(
        f"In the median {speed.images_per_s:,.0f} images/s, {speed.tflops:.3g} TFLOP/s (two FLOPs a "
        f"multiply-accumulate, backward twice forward): {speed.of_ceiling:.1%} of what a large matrix product reaches "
        "there.",
        width=118,
    )
    return f"{words}\n"


def write_promises(bundle: Bundle, profiles: Profiles) -> None:
    """Let a bundle's model card end with what is certified; without such a section where nothing is."""
    path = bundle.path / README
    card = path.read_text("utf-8").partition(f"\n{_PROMISES}\n")[0]
    if profiles.certificates:
        card = f"{card.rstrip()}\n\n{_promises(profiles)}"
    write_file_atomically(path, card.encode())


def _promises(profiles: Profiles) -> str:
    assert profiles.claims is not None
    first = profiles.certificates[0]
    rows = "\n".join(
        f"| {each.claim.risk.replace('_', ' ')} | {each.claim.epsilon:.1%} | {each.harmed} | "
        f"{each.point.mean_gmacs:.3f} | {each.point.top1:.2%} | {_in_words(each.point.thresholds)} |"
        for each in profiles.certificates
    )
    images, sha256 = f"{first.split.size:,}", first.split.sha256[:12]
    words = fill(
        f"Proved on {images} held-out images (sha256 {sha256}...) that nothing was trained or chosen on, computed by "
        f"{first.backend} in {first.precision}. It holds for images drawn as those were, exchangeable with them, and "
        "computed so; not for other kinds of images, nor for requests that set their own thresholds. All lines hold "
        f"together but for a chance of {profiles.claims.delta:.0%} over the draw of the {images}, each by itself but "
        f"for {profiles.claims.claim_delta:.2%}. Disagreement: another label than the last exit's. Accuracy drop: a "
        "wrong one where the last exit's is right. GMACs and top-1 are means over the report split.",
        width=118,
    )
    return f"""{_PROMISES}

{words}

| risk | at most | harmed | GMACs | top-1 | thresholds |
|---|---|---|---|---|---|
{rows}
"""


def _in_words(thresholds: tuple[float | None, ...]) -> str:
    return ", ".join("never" if each is None else f"{each:.4f}" for each in thresholds)
