"""What a cascade does on images: every exit alone, and really stage by stage, where only samples that stay go on.

Shapes: K exits, n images, B of a batch, C classes.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import strict_json
from models.bundle import read_bundle
from models.dvt import DVT, State, load_bundle
from models.flops import cumulative_gmacs
from models.policy import Measure, confidence, leaves, softmax
from models.profiles import Profiles
from training.data import (
    DataError,
    ImageFolder,
    ImageList,
    ImageSource,
    StreamedImages,
    Unreadable,
    batches,
    evaluation_orders,
)
from training.devices import placed

BATCH = 64

DEFAULT_PROFILE = "balanced"
WITHOUT_EARLY_EXITS = "full"

Progress = Callable[[int, int], None]

Forward = Callable[[Tensor], Sequence[Tensor]]
"""Images (B, 3, S, S) to the logits (B, classes) of every exit: a model, or whatever computes the same."""


@dataclass(frozen=True, eq=False)
class ExitLogits:
    """Logits (K, n, C) of every exit for images with targets (n,), and what could not be read."""

    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def exit_top1(self) -> tuple[float, ...]:
        """Top-1 (0..1) of each exit alone."""
        return tuple((self.logits.argmax(axis=-1) == self.targets).mean(axis=1).tolist())


@dataclass(frozen=True)
class ExitPolicy:
    """When to leave: thresholds (K - 1), None for never, on `measure` of softmax(logits / temperature), one an exit."""

    thresholds: tuple[float | None, ...]
    temperatures: tuple[float, ...]
    measure: Measure = "max_softmax"

    @staticmethod
    def never(exits: int) -> "ExitPolicy":
        """All samples go to the last of `exits`."""
        return ExitPolicy((None,) * (exits - 1), (1.0,) * exits)

    @staticmethod
    def of_profile(profiles: Profiles, name: str) -> "ExitPolicy":
        """A named profile. Raises `ValueError` for a name that the bundle does not have."""
        if name not in profiles.named:
            raise ValueError(f"there is no profile {name!r}; this bundle has {', '.join(profiles.named)}")
        temperatures = tuple(each.temperature for each in profiles.exits)
        return ExitPolicy(profiles.named[name].thresholds, temperatures, profiles.confidence)


@dataclass(frozen=True, eq=False)
class Departures:
    """Where the images of a batch left, `exits` (B,) from 0, and with which class, `predicted` (B,)."""

    exits: NDArray[np.int64]
    predicted: NDArray[np.int64]


@dataclass(frozen=True)
class ExitReport:
    """One exit alone, on all images."""

    grid: int
    top1: float
    gmacs: float


@dataclass(frozen=True)
class Evaluation:
    """What `dvt eval` reports. Top-1 and shares are 0..1, GMACs multiply-accumulates of one image in 1e9."""

    n: int
    exits: tuple[ExitReport, ...]
    profile: str
    top1: float
    mean_gmacs: float
    exit_shares: tuple[float, ...]

    def to_json(self) -> str:
        return strict_json.dumps(self)


@dataclass(frozen=True)
class EvaluationRun:
    """An evaluation and the image files that had to be left out of it."""

    evaluation: Evaluation
    unreadable: tuple[Unreadable, ...]


def collect_logits(
    forward: Forward, source: ImageSource, *, batch: int = BATCH, progress: Progress | None = None
) -> ExitLogits:
    """All exits for all readable images of `source`."""
    logits: list[NDArray[np.float32]] = []
    targets: list[NDArray[np.int64]] = []
    done = 0
    with torch.inference_mode():
        for each in batches(source, evaluation_orders(len(source), batch)):
            outputs = forward(each.images)
            logits.append(torch.stack(list(outputs)).float().cpu().numpy())
            targets.append(each.targets.numpy())
            done += len(each.indices)
            if progress is not None:
                progress(done, len(source))
    return ExitLogits(np.concatenate(logits, axis=1), np.concatenate(targets), tuple(source.unreadable))


def run_cascade(model: DVT, images: Tensor, policy: ExitPolicy) -> Departures:
    """Images (B, 3, S, S) through the stages one by one: those that leave are computed no further."""
    here = torch.arange(len(images), device=images.device)
    exits = np.full(len(images), -1, dtype=np.int64)
    predicted = np.full(len(images), -1, dtype=np.int64)
    state: State | None = None
    last = model.config.exits - 1
    for k in range(model.config.exits):
        output = model.forward_stage(k, images, state)
        logits = output.logits.float().cpu().numpy()
        leaving = np.ones(len(logits), dtype=np.bool_)
        if k < last:
            probabilities = softmax(logits, policy.temperatures[k])
            leaving = leaves(confidence(probabilities, policy.measure), policy.thresholds[k])
        rows = here.cpu().numpy()[leaving]
        exits[rows], predicted[rows] = k, logits[leaving].argmax(axis=-1)
        if leaving.all():
            break
        staying = torch.from_numpy(np.flatnonzero(~leaving)).to(images.device)
        here, images = here[staying], images[staying]
        state = output.state and State(
            None if output.state.features is None else output.state.features[staying],
            None if output.state.relations is None else output.state.relations[staying],
        )
    return Departures(exits, predicted)


def evaluate_cascade(
    model: DVT,
    source: ImageSource,
    policy: ExitPolicy,
    profile: str,
    *,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> EvaluationRun:
    """Every exit alone, and the cascade under `policy`, on all readable images of `source`, each decoded once."""
    stages = model.config.exits
    exit_hits = np.zeros(stages, dtype=np.int64)
    left = np.zeros(stages, dtype=np.int64)
    hits = seen = done = 0
    with torch.inference_mode():
        for each in batches(source, evaluation_orders(len(source), batch)):
            images, targets = each.images.to(model.mean.device), each.targets.numpy()
            for k, logits in enumerate(model(images)):
                exit_hits[k] += np.count_nonzero(logits.argmax(dim=-1).cpu().numpy() == targets)
            departures = run_cascade(model, images, policy)
            left += np.bincount(departures.exits, minlength=stages)
            hits += int(np.count_nonzero(departures.predicted == targets))
            seen += len(targets)
            done = min(done + batch, len(source))
            if progress is not None:
                progress(done, len(source))
    gmacs = cumulative_gmacs(model)
    exits = tuple(
        ExitReport(stage.grid, int(exit_hits[k]) / seen, gmacs[k]) for k, stage in enumerate(model.config.stages)
    )
    shares = left / seen
    evaluation = Evaluation(seen, exits, profile, hits / seen, float(shares @ gmacs), tuple(shares.tolist()))
    return EvaluationRun(evaluation, tuple(source.unreadable))


def evaluate_bundle(
    path: Path,
    data: Path,
    profile: str | None = None,
    *,
    device: torch.device | str = "cpu",
    batch: int = BATCH,
    limit: int | None = None,
    progress: Progress | None = None,
) -> EvaluationRun:
    """The bundle at `path` on the report images (folder test or val) of `data`.

    `profile` is `balanced` unless given; a bundle without profiles sends all images to its last exit (`full`). Raises
    `BundleError`, `DataError`, or `ValueError` for an unknown profile.
    """
    bundle = read_bundle(path)
    name = profile or (DEFAULT_PROFILE if bundle.profiles else WITHOUT_EARLY_EXITS)
    if bundle.profiles is not None:
        policy = ExitPolicy.of_profile(bundle.profiles, name)
    elif name == WITHOUT_EARLY_EXITS:
        policy = ExitPolicy.never(bundle.config.exits)
    else:
        raise ValueError(f"{path} has no profiles, so there is no {name!r} in it; run `dvt profile` on it first")
    folder = ImageFolder.scan_report(data)
    images = evenly_limited(with_model_targets(folder.report, folder, bundle.config.labels), limit)
    model = placed(load_bundle(path), device)
    with closing(StreamedImages(images, bundle.config.input)) as source:
        return evaluate_cascade(model, source, policy, name, batch=batch, progress=progress)


def with_model_targets(images: ImageList, folder: ImageFolder, labels: tuple[str, ...]) -> ImageList:
    """The same images with targets that count in the model's `labels`: a folder is matched by its label or its name.

    So a tree of some of the classes, or in another order, is measured rightly. Raises `DataError` for a folder that
    the model does not know.
    """
    index_of = {label: index for index, label in enumerate(labels)}
    matched = [
        index_of.get(label, index_of.get(name)) for name, label in zip(folder.classes, folder.labels, strict=True)
    ]
    used = set(images.targets.tolist())
    unknown = [name for at, name in enumerate(folder.classes) if matched[at] is None and at in used]
    if unknown:
        raise DataError(
            f"{len(unknown)} folders of {folder.root} are no class of this bundle (the first: {unknown[0]!r}); "
            f"it knows {', '.join(labels[:20])}{', ...' if len(labels) > 20 else ''}"
        )
    table = np.array([-1 if index is None else index for index in matched], dtype=np.int64)
    return replace(images, targets=table[images.targets])


def evenly_limited(images: ImageList, limit: int | None) -> ImageList:
    """At most `limit` images, evenly spread over the list, which is ordered by class. Raises `ValueError` below 1."""
    if limit is None or limit >= len(images):
        return images
    if limit < 1:
        raise ValueError(f"the limit is {limit}, it must be 1 or more")
    return images.subset(np.arange(limit, dtype=np.int64) * len(images) // limit)
