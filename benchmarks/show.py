"""Results for people: tables on standard error, and a picture of latency against offered load."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import LoadResult
from models.bundle import write_file_atomically
from models.tables import Table, write_tables

DPI = 150


def show_loads(title: str, results: Sequence[LoadResult]) -> None:
    """Throughput, latency, errors and CPU of each run; latency by exit where answers tell exits."""
    write_tables([_overview(title, results), *(_exits(result) for result in results if result.by_exit)], sys.stderr)


def plot_latency(title: str, results: Sequence[LoadResult], png: Path) -> None:
    """Percentiles of latency against offered load; needs matplotlib. Runs of the closed loop have no offered load.

    Raises `ValueError` where no run has one.
    """
    from matplotlib.figure import Figure

    drawn = [
        (result.offered_per_s, result.latency)
        for result in results
        if result.offered_per_s is not None and result.latency is not None
    ]
    if not drawn:
        raise ValueError("a picture needs runs at a rate: give some with --rate 20,40,60")
    drawn.sort(key=lambda point: point[0])
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    rates = [rate for rate, _ in drawn]
    axes.plot(rates, [latency.p50_ms for _, latency in drawn], marker=".", label="p50")
    axes.plot(rates, [latency.p95_ms for _, latency in drawn], marker=".", label="p95")
    axes.plot(rates, [latency.p99_ms for _, latency in drawn], marker=".", label="p99")
    axes.set(xlabel="offered load, requests/s", ylabel="latency, ms", title=title, yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    write_file_atomically(png, picture.getvalue())


def _overview(title: str, results: Sequence[LoadResult]) -> Table:
    columns = (
        "load",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "errors",
        "GMACs",
        "server CPU ms",
        "generator CPU ms",
    )
    return Table(title, columns, tuple(map(_row, results)))


def _row(result: LoadResult) -> tuple[str, ...]:
    latency = result.latency
    return (
        f"{result.clients} clients" if result.clients is not None else f"{result.offered_per_s:g}/s",
        f"{result.throughput_per_s:.1f}",
        *(_ms(None if latency is None else value) for value in _percentiles(result)),
        errors_in_words(result),
        "" if result.mean_gmacs is None else f"{result.mean_gmacs:.3f}",
        _ms(result.server_cpu_ms),
        _ms(result.generator_cpu_ms),
    )


def _percentiles(result: LoadResult) -> tuple[float, float, float]:
    latency = result.latency
    return (0.0, 0.0, 0.0) if latency is None else (latency.p50_ms, latency.p95_ms, latency.p99_ms)


def errors_in_words(result: LoadResult) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in result.errors.items()) or "0"


def _exits(result: LoadResult) -> Table:
    rows = tuple(
        (
            f"exit {number}",
            f"{100 * result.exit_shares[number]:.1f} %",
            f"{latency.p50_ms:.1f}",
            f"{latency.p95_ms:.1f}",
            f"{latency.p99_ms:.1f}",
        )
        for number, latency in result.by_exit.items()
    )
    return Table("by exit", ("", "share", "p50 ms", "p95 ms", "p99 ms"), rows)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
