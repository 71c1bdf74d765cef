"""Plans for people: a table, and a picture from one machine to internet scale."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.bundle import write_file_atomically
from models.tables import Table
from service.planner.document import PlanDocument
from service.planner.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 130
_COLOURS = {"whole": "tab:blue", "stages": "tab:orange"}


def table(document: PlanDocument) -> Table:
    shares = "/".join(f"{100 * share:.3g}" for share in document.exit_shares)
    title = f"{document.bundle}, exits {shares} %, p99 within {document.p99_ms:g} ms"
    columns = ("topology", "images/s", "replicas", "by stage", "load", "lanes busy", "p50 ms", "p99 ms", "price/h")
    return Table(title, columns, tuple(map(_row, document.plans)))


def _row(plan: Plan) -> tuple[str, ...]:
    return (
        plan.topology,
        f"{plan.rate_per_s:,.10g}",
        f"{plan.replicas:,}",
        " + ".join(f"{pool.replicas:,}" for pool in plan.pools) if len(plan.pools) > 1 else "",
        " ".join(f"{pool.load:.2f}" for pool in plan.pools),
        " ".join(f"{pool.utilisation:.2f}" for pool in plan.pools),
        f"{plan.p50_ms:.1f}",
        f"{plan.p99_ms:.1f}",
        f"{plan.price_an_hour:,.2f}",
    )


def plot(document: PlanDocument, png: Path) -> None:
    """Replicas and latency against the rate. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    replicas, latency = figure.subplots(1, 2)
    for topology, colour in _COLOURS.items():
        plans = [plan for plan in document.plans if plan.topology == topology]
        if not plans:
            continue
        rates = [plan.rate_per_s for plan in plans]
        replicas.plot(rates, [plan.replicas for plan in plans], color=colour, marker=".", label=topology)
        if topology == "stages":
            _pools(replicas, plans, colour)
        latency.plot(rates, [plan.p99_ms for plan in plans], color=colour, marker=".", label=f"p99, {topology}")
        latency.plot(rates, [plan.p50_ms for plan in plans], color=colour, linestyle=":", label=f"p50, {topology}")
    latency.axhline(document.p99_ms, color="tab:red", linestyle="--", linewidth=1, label="objective")
    replicas.set(xscale="log", yscale="log", xlabel="images/s", ylabel="replicas")
    latency.set(xscale="log", yscale="log", xlabel="images/s", ylabel="ms")
    for axes in (replicas, latency):
        axes.grid(alpha=0.3, which="major")
        axes.legend(fontsize="small")
    figure.suptitle(table(document).title)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    write_file_atomically(png, picture.getvalue())


def _pools(axes: "Axes", plans: Sequence[Plan], colour: str) -> None:
    for number, style in zip(range(len(plans[0].pools)), ("--", "-.", ":", (0, (1, 4)), (0, (4, 4))), strict=False):
        stage = plans[0].pools[number].first_stage
        counts = [plan.pools[number].replicas for plan in plans]
        rates = [plan.rate_per_s for plan in plans]
        axes.plot(rates, counts, color=colour, linestyle=style, linewidth=1, label=f"stage {stage}")
