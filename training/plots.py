"""Pictures of a run and of a bundle, as PNG files. matplotlib is imported where one is drawn."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.bundle import write_file_atomically
from models.profiles import Profiles
from training.temperature import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150


def plot_learning_curves(log: Path, png: Path) -> None:
    """Loss, and top-1 of each exit where it was measured, against the step, from the CSV log of a run.

    Raises `ValueError` for a log without rows or without the columns step and loss.
    """
    with log.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        rows = list(reader)
    if not rows or not {"step", "loss"} <= set(columns):
        raise ValueError(f"{log} has {len(rows)} rows and the columns {', '.join(columns)}: nothing to draw")
    figure = _figure(width=10.0)
    losses, accuracies = figure.subplots(1, 2)
    losses.plot([int(row["step"]) for row in rows], [float(row["loss"]) for row in rows], linewidth=0.8)
    losses.set(xlabel="step", ylabel="training loss")
    for column in (name for name in columns if name.endswith("_top1")):
        measured = [(int(row["step"]), 100 * float(row[column])) for row in rows if row[column]]
        if measured:
            number = column.removeprefix("exit").removesuffix("_top1")
            accuracies.plot(*zip(*measured, strict=True), marker=".", label=f"exit {number}")
    accuracies.set(xlabel="step", ylabel="top-1 on the search split, %")
    if accuracies.lines:
        accuracies.legend()
    _save(figure, (losses, accuracies), png)


def plot_exits(gmacs: Sequence[float], top1: Sequence[float], png: Path) -> None:
    """Top-1 (0..1) of each exit alone against its cumulative GMACs."""
    figure = _figure()
    axes = figure.subplots()
    _draw_exits(axes, gmacs, top1)
    axes.set(xlabel="GMACs an image", ylabel="top-1, %")
    _save(figure, (axes,), png)


def plot_frontier(profiles: Profiles, title: str, png: Path, twin: Profiles | None = None) -> None:
    """Top-1 against mean GMACs on the report split: the frontier, the named profiles, each exit alone, the twin."""
    figure = _figure()
    axes = figure.subplots()
    points = profiles.frontier
    axes.plot(
        [point.mean_gmacs for point in points],
        [100 * point.top1 for point in points],
        marker=".",
        label="leaving early",
    )
    _draw_exits(axes, [each.gmacs for each in profiles.exits], [each.top1 for each in profiles.exits])
    if twin is not None:
        last = twin.exits[-1]
        axes.plot(last.gmacs, 100 * last.top1, marker="D", linestyle="", label="static twin")
    at: dict[tuple[float, float], list[str]] = {}
    for name, point in profiles.named.items():
        at.setdefault((point.mean_gmacs, 100 * point.top1), []).append(name)
    for place, names in at.items():
        axes.plot(*place, marker="o", color="black", fillstyle="none", linestyle="")
        # Below and to the right of its point lies the only side that a rising curve leaves free.
        axes.annotate(", ".join(names), place, xytext=(6, -12), textcoords="offset points")
    axes.set(xlabel="mean GMACs an image", ylabel="top-1 on the report split, %", title=title)
    axes.margins(x=0.12)
    axes.legend(loc="lower right")
    _save(figure, (axes,), png)


def plot_reliability(exits: Sequence[tuple[Reliability, Reliability]], title: str, png: Path) -> None:
    """For each exit accuracy against confidence, as trained and with its temperature; the larger, the more samples."""
    figure = _figure(width=3.4 * len(exits) + 0.6)
    plots = figure.subplots(1, len(exits), sharey=True, squeeze=False)[0]
    for number, (axes, (before, after)) in enumerate(zip(plots, exits, strict=True), start=1):
        axes.plot((0, 100), (0, 100), color="grey", linewidth=0.8)
        for each, name, marker in ((before, "as trained", "s"), (after, "with temperature", "o")):
            axes.scatter(
                100 * each.confidence,
                100 * each.accuracy,
                s=8 + 200 * each.share,
                marker=marker,
                alpha=0.7,
                label=f"{name}, ECE {each.ece:.1%}",
            )
        axes.set(xlabel="confidence, %", title=f"exit {number}")
        axes.legend(loc="upper left", fontsize="small")
    plots[0].set(ylabel="accuracy on the report split, %")
    figure.suptitle(title)
    _save(figure, plots, png)


def _draw_exits(axes: "Axes", gmacs: Sequence[float], top1: Sequence[float]) -> None:
    axes.plot(gmacs, [100 * value for value in top1], marker="s", linestyle="--", label="all leave at one exit")


def _figure(width: float = 6.4) -> "Figure":
    # Not through pyplot, which keeps figures alive and picks a backend for the whole process.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 4.2), layout="constrained")


def _save(figure: "Figure", axes: Sequence["Axes"], png: Path) -> None:
    for each in axes:
        each.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    write_file_atomically(png, picture.getvalue())
