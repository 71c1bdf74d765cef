"""What was measured on a device, as tables."""

from collections.abc import Iterator, Sequence

from benchmarks.gpu.document import CascadeRun, GpuDocument, StageTime, WayMeasured
from models.tables import Table


def tables(document: GpuDocument) -> Iterator[Table]:
    """Stages, the cascade beside its twin, and the ways to attend."""
    ceilings = document.ceilings
    yield Table(
        f"{ceilings.device}: {ceilings.matrix_tflops:.3g} TFLOP/s in bf16, {ceilings.copy_tb_per_s:.3g} TB/s",
        ("architecture", "backend", "batch", "ms by stage", "images/s by stage", "of the roofline"),
        tuple(_stage_rows(document.stages)),
    )
    yield Table(
        "Cascade, 60/25/15 % by exit",
        ("architecture", "backend", "inside", "images/s", "outside of stages", "over the twin", "of the saving"),
        tuple(_cascade_rows(document.cascades)),
    )
    for title, ways in (
        ("Attention with reused relations", document.relations),
        ("The network over relations, at the small grid", document.relation_networks),
        ("LayerNorm, product, GELU, product of an MLP", document.pointwise),
    ):
        if ways:
            yield Table(title, ("case", "batch", "way", "error", "ms", "of the roofline"), tuple(map(_way_row, ways)))


def _way_row(way: WayMeasured) -> tuple[str, ...]:
    if way.seconds is None or way.error is None:
        return (way.case, str(way.images), way.way, "-", "-", f"cannot: {way.reason}")
    of_roofline = f"{100 * way.least_seconds / way.seconds:.1f} %"
    return (way.case, str(way.images), way.way, f"{way.error:.1e}", f"{1000 * way.seconds:.4f}", of_roofline)


def _stage_rows(rows: Sequence[StageTime]) -> Iterator[tuple[str, ...]]:
    for key in dict.fromkeys((row.architecture, row.backend, row.batch) for row in rows):
        of = [row for row in rows if (row.architecture, row.backend, row.batch) == key]
        yield (
            key[0],
            key[1],
            str(key[2]),
            " / ".join(f"{1000 * row.seconds:.2f}" for row in of),
            " / ".join(f"{row.batch / row.seconds:,.0f}" for row in of),
            " / ".join(f"{100 * row.least_seconds / row.seconds:.1f} %" for row in of),
        )


def _cascade_rows(runs: Sequence[CascadeRun]) -> Iterator[tuple[str, ...]]:
    twins = {(each.architecture, each.backend, each.in_flight): each for each in runs if each.is_static}
    for each in runs:
        if each.is_static:
            continue
        twin = twins[each.architecture, each.backend, each.in_flight]
        over, saving = each.ran.images_per_s / twin.ran.images_per_s, twin.gmacs / each.gmacs
        yield (
            each.architecture,
            each.backend,
            str(each.in_flight),
            f"{each.ran.images_per_s:,.0f}",
            f"{100 * each.outside_share:.1f} %",
            f"{over:.2f}",
            f"{over / saving:.2f} of {saving:.2f}",
        )
