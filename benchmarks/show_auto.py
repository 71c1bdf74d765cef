"""Tables and pictures of `auto` beside its fixed ceiling."""

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.load import Recorded, Sample
from benchmarks.measure import percentile
from benchmarks.results import AutoLoadDocument, AutoSimulationDocument
from benchmarks.simulation import Answered, Simulated
from benchmarks.traffic import Traffic
from models.bundle import write_file_atomically
from models.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
_BIN_S = 2.0
_COLOURS = ("tab:gray", "tab:blue")

T = TypeVar("T")


def simulated_table(document: AutoSimulationDocument) -> Table:
    rows = tuple(
        (
            f"{run.traffic}: {run.budget}",
            f"{run.offered:,}",
            f"{100 * run.refused / run.offered:.1f} %",
            f"{run.p50_ms:.0f}",
            f"{run.p99_ms:.0f}",
            f"{100 * run.late_share:.2f} %",
            f"{run.mean_gmacs:.4f}",
            f"{100 * run.top1:.2f} %",
            f"{run.switches} ({run.switches_a_minute})",
        )
        for run in document.runs
    )
    title = (
        f"{document.bundle}, `{document.floor}` to `{document.ceiling}`, objective {document.p99_objective_ms:g} ms; "
        f"ceiling {document.capacity_per_s:.1f} images/s (1), floor {document.floor_capacity:.2f} times that"
    )
    columns = (
        "load: budget",
        "offered",
        "refused",
        "p50 ms",
        "p99 ms",
        "late",
        "GMACs",
        "top-1",
        "switches (a minute)",
    )
    return Table(title, columns, rows)


def load_table(document: AutoLoadDocument) -> Table:
    rows = []
    for run in document.runs:
        latency, refused = run.load.latency, sum(run.load.errors.values())
        offered = run.load.requests + refused
        rows.append(
            (
                run.budget,
                f"{run.load.offered_per_s:.1f}",
                f"{offered:,}",
                f"{100 * refused / offered:.1f} %",
                *(("", "") if latency is None else (f"{latency.p50_ms:.0f}", f"{latency.p99_ms:.0f}")),
                f"{100 * run.late_share:.2f} %",
                "" if run.load.mean_gmacs is None else f"{run.load.mean_gmacs:.3f}",
            )
        )
    title = f"{document.architecture}, objective {document.p99_objective_ms:g} ms"
    columns = ("budget", "offered/s", "requests", "refused", "p50 ms", "p99 ms", "late", "GMACs")
    return Table(title, columns, tuple(rows))


def plot_simulated(document: AutoSimulationDocument, ran: Sequence[tuple[Traffic, str, Simulated]], png: Path) -> None:
    """A column a shape of load: what is offered, the slowest hundredth of each two seconds, the point. Needs
    matplotlib."""
    from matplotlib.figure import Figure

    shapes = list(dict.fromkeys(traffic.name for traffic, _, _ in ran))
    figure = Figure(figsize=(3.2 * len(shapes), 6.4), layout="constrained")
    grid = figure.subplots(3, len(shapes), sharex="col", sharey="row", squeeze=False)
    for column, shape in enumerate(shapes):
        load, latency, cost = (grid[row][column] for row in range(3))
        of_shape = [(traffic, budget, run) for traffic, budget, run in ran if traffic.name == shape]
        traffic = of_shape[0][0]
        seconds = [second / 2 for second in range(int(2 * traffic.seconds))]
        load.plot(seconds, [traffic.load(second) for second in seconds], color="black", label="offered")
        load.set_title(shape)
        for (_, budget, run), colour in zip(of_shape, _COLOURS, strict=True):
            none = dict.fromkeys((number * _BIN_S for number in range(int(traffic.seconds / _BIN_S))), 0.0)
            refused = none | _binned(run.refused_s, lambda at_s: at_s, len)
            load.plot(
                *_columns(refused, 1 / (_BIN_S * document.capacity_per_s)), color=colour, label=f"refused, {budget}"
            )
            slowest = _binned(run.answered, lambda image: image.arrived_s, _p99_ms)
            latency.plot(*_columns(slowest), color=colour, label=budget)
            points = _binned(run.answered, lambda image: image.arrived_s, lambda images: 100 * images[-1].top1)
            cost.plot(*_columns(points), color=colour, label=budget, drawstyle="steps-post")
        _objective(latency, document.p99_objective_ms)
        cost.set_xlabel("s")
    for row, label in enumerate(("load, multiples of the ceiling's", "p99 of 2 s, ms", "top-1 of the point, %")):
        grid[row][0].set_ylabel(label)
        grid[row][0].legend(fontsize="x-small")
    _write(figure, png)


def plot_load(document: AutoLoadDocument, runs: Sequence[Recorded], png: Path) -> None:
    """Over time: the slowest hundredth, and what images cost. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.4), layout="constrained")
    latency, cost = figure.subplots(2, 1, sharex=True)
    for run, recorded, colour in zip(document.runs, runs, _COLOURS, strict=True):
        answered = [sample for sample in recorded.samples if sample.status == 200]
        slowest = _binned(
            answered, _due_s, lambda of: 1000 * percentile([each.done_s - each.due_s for each in of], 0.99)
        )
        latency.plot(*_columns(slowest), color=colour, label=run.budget)
        spent = _binned(answered, _due_s, lambda of: sum(each.gmacs or 0.0 for each in of) / len(of))
        cost.plot(*_columns(spent), color=colour, label=run.budget)
    _objective(latency, document.p99_objective_ms)
    latency.set_ylabel("p99 of 2 s, ms")
    latency.legend()
    cost.set(xlabel="s", ylabel="GMACs an image")
    figure.suptitle(f"{document.architecture}, {document.runs[0].load.offered_per_s:.0f} requests/s offered")
    _write(figure, png)


def _objective(axes: "Axes", p99_ms: float) -> None:
    axes.axhline(p99_ms, color="tab:red", linestyle="--", linewidth=1, label="objective")
    axes.set_yscale("log")


def _due_s(sample: Sample) -> float:
    return sample.due_s


def _p99_ms(images: Sequence[Answered]) -> float:
    return 1000 * percentile([image.seconds for image in images], 0.99)


def _binned(
    items: Sequence[T], at_s: Callable[[T], float], value: Callable[[Sequence[T]], float]
) -> dict[float, float]:
    """A value of each two seconds in which something was."""
    bins: dict[int, list[T]] = defaultdict(list)
    for item in items:
        bins[int(at_s(item) / _BIN_S)].append(item)
    return {number * _BIN_S: value(bins[number]) for number in sorted(bins)}


def _columns(bins: dict[float, float], scale: float = 1.0) -> tuple[list[float], list[float]]:
    return list(bins), [scale * value for value in bins.values()]


def _write(figure: "Figure", png: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    write_file_atomically(png, picture.getvalue())
