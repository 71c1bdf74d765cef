"""What was measured on a device, as tables."""

from collections.abc import Iterator, Sequence

from benchmarks.gpu.binding import bindings
from benchmarks.gpu.document import SHARES, GpuDocument, StageOnDevice, StageTime, WayMeasured
from benchmarks.gpu.summary import architectures, decoding_cpus, speed_up, stages_allow
from models.tables import Table

PAPER_SHARE = 1.42 / 1.6
"""Of the FLOPs saved, what the published code turned into speed on a GPU: 1.42 times of 1.6."""


def tables(document: GpuDocument) -> Iterator[Table]:
    """What there is: stages of each architecture, the cascade beside its twin, kernels, decoding."""
    for architecture in architectures(document):
        of = [row for row in document.stages if row.architecture == architecture]
        yield Table(
            f"Stages of {architecture}",
            ("backend", "batch", "ms by stage", "images/s by stage", "of the roofline", "what binds"),
            tuple(_stage_rows(of)),
        )
    if document.on_device:
        yield Table(
            "Stages by the device's own time stamps",
            ("architecture", "backend", "batch", "ms at work", "of the latency", "kernels and copies", "ms to hand on"),
            tuple(_device_rows(document)),
        )
    if document.cascades:
        shares = "/".join(f"{100 * share:g}" for share in SHARES)
        yield Table(
            f"Cascade through the engine, {shares} % by exit (realised by the published code: {PAPER_SHARE:.2f})",
            (
                "architecture",
                "backend",
                "inside",
                "images/s",
                "stages allow",
                "outside of stages",
                "over the twin",
                "FLOPs saved",
                "realised",
            ),
            tuple(_cascade_rows(document)),
        )
    for title, ways in (
        ("Attention with reused relations", document.relations),
        ("The network over relations, at the small grid", document.relation_networks),
        ("LayerNorm, product, GELU, product of an MLP", document.pointwise),
    ):
        if ways:
            yield Table(title, ("case", "batch", "way", "error", "ms", "of the roofline"), tuple(map(_way_row, ways)))
    if document.decoding is not None:
        yield Table(
            "Decoding and preprocessing on the CPUs beside it",
            ("threads", "images/s", "a thread", "threads that feed the quickest cascade"),
            tuple(_decoding_rows(document)),
        )


def _way_row(way: WayMeasured) -> tuple[str, ...]:
    if way.seconds is None or way.error is None:
        return (way.case, str(way.images), way.way, "-", "-", f"cannot: {way.reason}")
    of_roofline = f"{100 * way.least_seconds / way.seconds:.1f} %"
    return (way.case, str(way.images), way.way, f"{way.error:.1e}", f"{1000 * way.seconds:.4f}", of_roofline)


def _stage_rows(rows: Sequence[StageTime]) -> Iterator[tuple[str, ...]]:
    """Of one architecture, a row for each backend and batch; the smallest batch first."""
    for backend in dict.fromkeys(row.backend for row in rows):
        stages = [
            sorted((row for row in rows if (row.backend, row.stage) == (backend, stage)), key=lambda row: row.batch)
            for stage in sorted({row.stage for row in rows})
        ]
        bind = [bindings(of) for of in stages]
        for of_batch in zip(*stages, strict=True):
            batch = of_batch[0].batch
            yield (
                backend,
                f"{batch:,}",
                " / ".join(f"{1000 * row.seconds:.2f}" for row in of_batch),
                " / ".join(f"{row.images_per_s:,.0f}" for row in of_batch),
                " / ".join(f"{100 * row.roofline_share:.1f} %" for row in of_batch),
                " / ".join(by_batch.get(batch, "-") for by_batch in bind),
            )


def _device_rows(document: GpuDocument) -> Iterator[tuple[str, ...]]:
    latency_s = {_key(row): row.seconds for row in document.stages}
    rows = document.on_device
    for key in dict.fromkeys((row.architecture, row.backend, row.batch) for row in rows):
        of = [row for row in rows if (row.architecture, row.backend, row.batch) == key]
        shares = [f"{100 * row.seconds / latency_s[_key(row)]:.0f} %" if _key(row) in latency_s else "-" for row in of]
        yield (
            key[0],
            key[1],
            f"{key[2]:,}",
            " / ".join(f"{1000 * row.seconds:.2f}" for row in of),
            " / ".join(shares),
            " / ".join(str(row.kernels) for row in of),
            " / ".join(f"{1000 * row.keep_seconds:.2f}" for row in of),
        )


def _key(row: StageTime | StageOnDevice) -> tuple[object, ...]:
    return (row.architecture, row.backend, row.precision, row.batch, row.stage)


def _cascade_rows(document: GpuDocument) -> Iterator[tuple[str, ...]]:
    for each in sorted(document.cascades, key=lambda run: run.in_flight):
        if each.is_static:
            continue
        allowed, found = stages_allow(document.stages, each), speed_up(document.cascades, each)
        yield (
            each.architecture,
            each.backend,
            f"{each.in_flight:,}",
            f"{each.ran.images_per_s:,.0f}",
            "-" if allowed is None else f"{allowed:,.0f}",
            _percent(each.outside_share),
            f"{found.measured:.2f}",
            f"{found.saved:.2f}",
            f"{found.realised:.2f}",
        )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _decoding_rows(document: GpuDocument) -> Iterator[tuple[str, ...]]:
    assert document.decoding is not None
    for rate in document.decoding.rates:
        cpus = decoding_cpus(document, rate)
        yield (
            f"{rate.threads}",
            f"{rate.images_per_s:,.0f}",
            f"{rate.images_per_s / rate.threads:,.0f}",
            "-" if cpus is None else f"{cpus:,.0f}",
        )
