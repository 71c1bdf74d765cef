"""How often exit decisions differ between batch sizes, backends and precisions.

For another batch a product of matrices may be summed in another order, so logits differ in their last bits, and a
confidence that lies that close to its threshold falls to the other side. Each way computes every exit of every photo,
in batches of its size; decisions are those of the bundle's profiles.

Shapes: n photos, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import Environment, environment, installed
from models import policy
from models.bundle import Bundle
from models.preprocess import Pixels
from models.profiles import Profiles
from service.backends.base import Precision, StageBackend
from service.backends.choose import Named


@dataclass(frozen=True)
class Way:
    """A backend at one batch size; what is left over at the end makes a smaller batch."""

    backend: Named
    precision: Precision
    batch: int


@dataclass(frozen=True)
class Disagreement:
    """With the first way, under one profile: shares of photos, 0..1, whose exit and whose label differ."""

    way: Way
    profile: str
    exits_differ: float
    labels_differ: float
    confidence: float
    """The largest difference of a confidence at any exit."""


@dataclass(frozen=True)
class DecisionsDocument:
    environment: Environment
    torch: dict[str, str]
    bundle: str
    photos: str
    images: int
    compared_with: Way
    found: tuple[Disagreement, ...]


@dataclass(frozen=True)
class Decided:
    """Exits from 1 and labels, (n,) each."""

    exits: NDArray[np.int64]
    labels: NDArray[np.int64]


def measure_decisions(
    bundle: Bundle,
    pixels: Sequence[Pixels],
    photos: str,
    ways: Sequence[tuple[Way, StageBackend]],
    told: Callable[[Way], None],
) -> DecisionsDocument:
    """The first way is what the others are compared with. Raises `ValueError` for a bundle without profiles."""
    profiles = bundle.profiles
    if profiles is None:
        raise ValueError(f"{bundle.path} has no profiles.json: run `dvt profile` on it")
    found: list[Disagreement] = []
    reference: list[NDArray[np.floating]] = []
    for way, backend in ways:
        told(way)
        probabilities = all_exits(backend, profiles, pixels, way.batch)
        if not reference:
            reference = probabilities
            continue
        difference = max(
            float(np.abs(policy.confidence(a, profiles.confidence) - policy.confidence(b, profiles.confidence)).max())
            for a, b in zip(probabilities, reference, strict=True)
        )
        for name, point in profiles.named.items():
            ours = decide(profiles, probabilities, point.thresholds)
            theirs = decide(profiles, reference, point.thresholds)
            exits, labels = (ours.exits != theirs.exits).mean(), (ours.labels != theirs.labels).mean()
            found.append(Disagreement(way, name, float(exits), float(labels), difference))
    return DecisionsDocument(
        environment(), installed(("torch",)), bundle.name, photos, len(pixels), ways[0][0], tuple(found)
    )


def all_exits(
    backend: StageBackend, profiles: Profiles, pixels: Sequence[Pixels], batch: int
) -> list[NDArray[np.floating]]:
    """Probabilities (n, C) of every exit."""
    collected: list[list[NDArray[np.floating]]] = [[] for _ in range(backend.stages)]
    for first in range(0, len(pixels), batch):
        slots = [backend.begin(image) for image in pixels[first : first + batch]]
        for stage, of_exit in enumerate(collected, start=1):
            output = backend.run(stage, slots)
            output.keep(range(len(slots)))
            temperature = profiles.exits[stage - 1].temperature
            of_exit.append(policy.softmax(output.logits.astype(np.float64), temperature))
        for slot in slots:
            backend.release(slot)
    return [np.concatenate(of_exit) for of_exit in collected]


def decide(
    profiles: Profiles, probabilities: Sequence[NDArray[np.floating]], thresholds: Sequence[float | None]
) -> Decided:
    """Where each photo leaves, and what it is told there."""
    exits = np.full(len(probabilities[0]), len(probabilities))
    for number, threshold in reversed(list(enumerate(thresholds, start=1))):
        exits[policy.leaves(policy.confidence(probabilities[number - 1], profiles.confidence), threshold)] = number
    labels = np.stack([of_exit.argmax(axis=1) for of_exit in probabilities])[exits - 1, np.arange(len(exits))]
    return Decided(exits, labels)
