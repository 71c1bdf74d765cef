"""Profiles for a cascade of random weights: thresholds that let given shares of given photos leave at each exit.

What random weights are confident of means nothing, but how confident they are differs from photo to photo. So a
threshold between two neighbouring confidences splits the very photos that will be sent in just the shares that are
asked for, and the server runs as it always does. What is scripted is the load; there is no accuracy, and `top1` only
numbers the points.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.photos import Photos
from models import policy
from models.bundle import Bundle
from models.profiles import ExitProfile, OperatingPoint, Profiles
from models.progress import Progress
from service.decode import ImageLimits, decode
from service.main import Opened
from service.settings import Settings
from service.types import Thresholds

POINTS = 9


def confidences_of(opened: Opened, photos: Photos) -> NDArray[np.float64]:
    """Of each photo at each exit but the last (n, K-1)."""
    settings, backend = Settings(), opened.backend
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_px)
    found = np.empty((len(photos.files), backend.stages - 1))
    with Progress("confidences of the photos", unit="") as progress:
        for row, photo in enumerate(photos.files):
            progress.update(row, len(photos.files))
            slot = backend.begin(decode(photo, opened.bundle.config.input, limits))
            for stage in range(1, backend.stages):
                output = backend.run(stage, [slot])
                found[row, stage - 1] = policy.confidence(policy.softmax(output.logits.astype(np.float64)))[0]
                output.keep([0])
            backend.release(slot)
        progress.update(len(photos.files), len(photos.files))
    return found


def thresholds_for(confidences: NDArray[np.float64], shares: Sequence[float]) -> tuple[Thresholds, tuple[float, ...]]:
    """Thresholds by which these shares of the photos leave, as nearly as whole photos allow, and the shares that do.

    Raises `ValueError` unless the shares, one an exit, are of 1, or where photos are too much alike to be told apart.
    """
    photos, early = confidences.shape
    if len(shares) != early + 1 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"shares {', '.join(f'{share:g}' for share in shares)} must be {early + 1} and of 1 altogether"
        )
    staying = np.arange(photos)
    thresholds: list[float | None] = []
    left: list[int] = []
    for exit_, share in enumerate(shares[:-1]):
        order = staying[np.argsort(-confidences[staying, exit_], kind="stable")]
        leaving = min(round(share * photos), len(order))
        sure = confidences[order, exit_]
        if leaving == 0:
            thresholds.append(None)
        elif leaving == len(order):
            thresholds.append(0.0)
        elif sure[leaving - 1] - sure[leaving] < 1e-9:
            raise ValueError(f"photos are too much alike at exit {exit_ + 1}; send others, or fewer")
        else:
            thresholds.append(float((sure[leaving - 1] + sure[leaving]) / 2))
        left.append(leaving)
        staying = order[leaving:]
    return tuple(thresholds), tuple(count / photos for count in (*left, len(staying)))


def scripted_profiles(
    bundle: Bundle,
    confidences: NDArray[np.float64],
    exit_gmacs: Sequence[float],
    floor: Sequence[float],
    ceiling: Sequence[float],
) -> Profiles:
    """`fast` leaves in the shares of the floor, `accurate` in those of the ceiling, with points on a line between.

    Raises `ValueError` as `thresholds_for` does.
    """
    frontier = []
    for number in range(POINTS):
        dear = number / (POINTS - 1)
        wanted = [(1 - dear) * low + dear * high for low, high in zip(floor, ceiling, strict=True)]
        thresholds, shares = thresholds_for(confidences, wanted)
        gmacs = sum(share * each for share, each in zip(shares, exit_gmacs, strict=True))
        frontier.append(OperatingPoint(thresholds, number / 1000, gmacs, shares))
    full = OperatingPoint(
        (None,) * (len(exit_gmacs) - 1), POINTS / 1000, exit_gmacs[-1], (*(0.0,) * len(floor[1:]), 1.0)
    )
    return Profiles(
        bundle.weights_sha256,
        bundle.config_sha256,
        "max_softmax",
        tuple(
            ExitProfile(stage.grid, gmacs, 0.0) for stage, gmacs in zip(bundle.config.stages, exit_gmacs, strict=True)
        ),
        (),
        tuple(frontier),
        {"fast": frontier[0], "balanced": frontier[POINTS // 2], "accurate": frontier[-1], "full": full},
    )
