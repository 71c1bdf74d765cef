"""Numbers that follow from what was measured on a device, and those that are to be reached."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.goals import AT_LEAST, AT_MOST, Goal
from benchmarks.gpu.document import SHARES, CascadeRun, DecodeRate, GpuDocument, StageTime

ROOFLINE_BATCH, LATENCY_BATCH = 256, 1


@dataclass(frozen=True)
class SpeedUp:
    """The cascade over its static twin: as measured, and by the FLOPs that exits save."""

    measured: float
    saved: float

    @property
    def realised(self) -> float:
        """Of the FLOPs saved, what became speed."""
        return self.measured / self.saved


def architectures(document: GpuDocument) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.architecture for row in document.stages))


def speed_up(runs: Sequence[CascadeRun], cascade: CascadeRun) -> SpeedUp:
    """Against the twin of the same backend, with as many inside; the two took turns."""
    (twin,) = (run for run in runs if run.is_static and _key(run) == _key(cascade))
    return SpeedUp(cascade.ran.images_per_s / twin.ran.images_per_s, twin.gmacs / cascade.gmacs)


def _key(run: CascadeRun) -> tuple[object, ...]:
    return (run.architecture, run.backend, run.precision, run.in_flight)


def stages_allow(rows: Sequence[StageTime], cascade: CascadeRun) -> float | None:
    """Images/s of one stage after another without pause, each at its quickest batch size that so many inside can fill.

    None where its stages were not measured.
    """
    an_image_s = 0.0
    for stage in range(1, len(SHARES) + 1):
        rates = [
            row.images_per_s
            for row in rows
            if (row.architecture, row.backend, row.precision)
            == (cascade.architecture, cascade.backend, cascade.precision)
            and row.stage == stage
            and row.batch <= cascade.in_flight
        ]
        if not rates:
            return None
        an_image_s += sum(SHARES[stage - 1 :]) / max(rates)
    return 1 / an_image_s


def quickest_cascade(document: GpuDocument) -> CascadeRun | None:
    """What a device takes at most."""
    cascades = [run for run in document.cascades if not run.is_static]
    return max(cascades, key=lambda run: run.ran.images_per_s, default=None)


def decoding_cpus(document: GpuDocument, rate: DecodeRate) -> float | None:
    """How many threads like these decode as many images as the device takes; None where no cascade was measured."""
    cascade = quickest_cascade(document)
    return None if cascade is None else cascade.ran.images_per_s / (rate.images_per_s / rate.threads)


def goals(device: str, document: GpuDocument | None) -> tuple[Goal, ...]:
    """The hardest case of each: the worst stage of any architecture, by the backend that is best there."""
    return (
        Goal(
            f"{device}: a stage at batch {ROOFLINE_BATCH}, of its roofline, the lowest",
            40,
            AT_LEAST,
            None if document is None else _lowest_roofline(document),
            " %",
        ),
        Goal(
            f"{device}: a stage at batch {LATENCY_BATCH}, the longest",
            1,
            AT_MOST,
            None if document is None else _longest_latency(document),
            " ms",
        ),
        Goal(
            f"{device}: time outside of stages, the longest",
            5,
            AT_MOST,
            None if document is None else _longest_outside(document),
            " %",
        ),
        Goal(
            f"{device}: cascade over static twin, of the FLOPs saved, the lowest",
            0.95,
            AT_LEAST,
            None if document is None else _lowest_realised(document),
        ),
    )


def _quickest_stages(document: GpuDocument, batch: int) -> list[StageTime]:
    """Of every stage of every architecture, by its quickest backend."""
    rows = [row for row in document.stages if row.batch == batch]
    stages = dict.fromkeys((row.architecture, row.stage) for row in rows)
    return [
        min((row for row in rows if (row.architecture, row.stage) == stage), key=lambda row: row.seconds)
        for stage in stages
    ]


def _lowest_roofline(document: GpuDocument) -> float | None:
    return min((100 * row.roofline_share for row in _quickest_stages(document, ROOFLINE_BATCH)), default=None)


def _longest_latency(document: GpuDocument) -> float | None:
    return max((1000 * row.seconds for row in _quickest_stages(document, LATENCY_BATCH)), default=None)


def _quickest_cascades(document: GpuDocument) -> list[CascadeRun]:
    """Of every architecture and number of images inside, by its quickest backend."""
    runs = [run for run in document.cascades if not run.is_static]
    cases = dict.fromkeys((run.architecture, run.in_flight) for run in runs)
    return [
        max((run for run in runs if (run.architecture, run.in_flight) == case), key=lambda run: run.ran.images_per_s)
        for case in cases
    ]


def _longest_outside(document: GpuDocument) -> float | None:
    shares = (run.outside_share for run in _quickest_cascades(document))
    return max((100 * share for share in shares if share is not None), default=None)


def _lowest_realised(document: GpuDocument) -> float | None:
    """With as many images inside as were measured, where batches are full."""
    runs = _quickest_cascades(document)
    most = max((run.in_flight for run in runs), default=0)
    full = (run for run in runs if run.in_flight == most)
    return min((speed_up(document.cascades, run).realised for run in full), default=None)
