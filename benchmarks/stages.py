"""How fast each stage is: `python -m benchmarks.stages trace DIR`, then `measure DIR`; both make docs/stage-speed.md.

DIR comes from `dvt bench geometry DIR`. Three forms of every stage take turns: the bundle's graphs, what PyTorch's
exporter makes of the same network, and PyTorch itself. The yardstick, a 1024-cubed float32 product by ONNX Runtime with
as many threads, is taken before and after each turn. A turn is not counted if something else had the cores meanwhile.
"""

import argparse
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.geometry import Geometry, read_geometry
from benchmarks.graph_cost import graph_gmacs
from benchmarks.machine import Environment, environment, installed
from benchmarks.photos import ROOT
from benchmarks.result_files import RESULTS, read_results, write_results
from models.bundle import write_file_atomically
from models.graphs import stage_session
from models.tables import Table, write_tables

FILE, PAGE, NOTES = "stages.json", ROOT / "docs" / "stage-speed.md", "stages-notes.md"
OURS, TRACED, EAGER = "this", "traced", "eager"
SIDE = 1024
# Of the published code, one image leaving at each exit; ours is counted with another resize of the relations.
PUBLISHED_GMACS = {"dvt_t2t_vit_12": (0.4677, 1.4461, 3.4550)}
# A turn whose yardstick fell below this share of the run's best was disturbed.
UNDISTURBED = 0.9

Feeds = dict[str, NDArray[Any]]
Stage = Callable[[], object]


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds an image of one stage (from 1), a turn each; `gflops` is the yardstick of the same turns.

    `gmacs` are the network's, as it is written; `done_gmacs` are those that the graph does.
    """

    stage: int
    batch: int
    form: str
    gmacs: float
    done_gmacs: float
    ms: tuple[float, ...]
    gflops: tuple[float, ...]

    @property
    def share(self) -> float:
        """Of the yardstick, by the network's cost."""
        return 2 * self.gmacs / median(self.ms) * 1e3 / median(self.gflops)

    @property
    def done_share(self) -> float:
        """Of the yardstick, by what is really computed."""
        return self.share * self.done_gmacs / self.gmacs


@dataclass(frozen=True)
class StagesDocument:
    """`disturbed` turns of `turns` were left out."""

    environment: Environment
    torch: str
    architecture: str
    threads: int
    turns: int
    disturbed: int
    times: tuple[StageTimes, ...]

    def of(self, stage: int, batch: int, form: str) -> StageTimes:
        return next(t for t in self.times if (t.stage, t.batch, t.form) == (stage, batch, form))

    def full_depth_share(self, batch: int) -> float:
        """Of the yardstick, one stage after another."""
        ours = [each for each in self.times if each.form == OURS and each.batch == batch]
        seconds = sum(median(each.ms) for each in ours) / 1e3
        return 2 * sum(each.gmacs for each in ours) / seconds / median([g for each in ours for g in each.gflops])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    trace = commands.add_parser("trace", help="let PyTorch's exporter make its graphs, once (needs torch, minutes)")
    measure = commands.add_parser("measure", help="measure, keep the results, write the page")
    report = commands.add_parser("report", help="write the page from kept results")
    for command in (trace, measure):
        command.add_argument("geometry", type=Path, metavar="DIR", help="folder made by `dvt bench geometry`")
    measure.add_argument("--turns", type=int, default=9, metavar="N", help="of each form (default: 9)")
    measure.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    for command, run in ((trace, _trace), (measure, _measure), (report, _report)):
        command.set_defaults(run=run)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def _trace(args: argparse.Namespace) -> int:
    from benchmarks.traced import trace_stage
    from models.dvt import load_bundle

    model = load_bundle(read_geometry(args.geometry).cascade.path)
    (args.geometry / TRACED).mkdir(exist_ok=True)
    for k in range(model.config.exits):
        write_file_atomically(_traced(args.geometry, k), trace_stage(model, k))
        print(f"stage {k + 1} of {model.config.exits}", file=sys.stderr)
    return 0


def _measure(args: argparse.Namespace) -> int:
    document = measure_stages(read_geometry(args.geometry), args.geometry, args.threads, args.turns)
    write_results(document, RESULTS / FILE)
    write_tables([table(document)], sys.stderr)
    return _report(args)


def _report(_: argparse.Namespace) -> int:
    document = read_results(StagesDocument, RESULTS / FILE)
    if document is None:
        raise ValueError(f"there is no {RESULTS / FILE}: run `python -m benchmarks.stages measure DIR` first")
    notes = RESULTS / NOTES
    write_file_atomically(PAGE, page(document, notes.read_text(encoding="utf-8") if notes.exists() else "").encode())
    return 0


def measure_stages(geometry: Geometry, folder: Path, threads: int, turns: int) -> StagesDocument:
    """Every form of every stage in turn, at batches of 8 and 1. Raises `ValueError` where nothing was traced."""
    graphs = {OURS: list(geometry.cascade.onnx or ()), TRACED: [_traced(folder, k) for k in range(3)]}
    if not graphs[OURS] or not graphs[TRACED][0].exists():
        raise ValueError(f"{folder} lacks graphs: run `python -m benchmarks.stages trace {folder}`")
    weights = geometry.cascade.weights()
    costs = np.diff([0.0, *PUBLISHED_GMACS.get(geometry.costs.architecture, geometry.costs.exit_gmacs)])
    yardstick = Yardstick(threads)
    times: list[StageTimes] = []
    disturbed = 0
    for batch in (8, 1):
        feeds: Feeds = {"image": np.random.default_rng(0).integers(0, 256, (batch, 3, 224, 224), dtype=np.uint8)}
        for k, gmacs in enumerate(costs):
            data = {form: paths[k].read_bytes() for form, paths in graphs.items()}
            sessions = {form: stage_session(graph, weights, k, _options(threads)) for form, graph in data.items()}
            stages: dict[str, Stage] = {
                form: lambda session=session, feeds=feeds: session.run(None, feeds)  # type: ignore[misc]
                for form, session in sessions.items()
            }
            stages[EAGER] = _eager(geometry, k, feeds, threads)
            done = {OURS: graph_gmacs(data[OURS]), TRACED: float(gmacs), EAGER: float(gmacs)}
            found, left_out = _take_turns(stages, yardstick, batch, turns)
            disturbed += left_out
            for form, (ms, gflops) in found.items():
                times.append(StageTimes(k + 1, batch, form, float(gmacs), done[form], ms, gflops))
                print(f"stage {k + 1}, batch {batch}, {form}: {times[-1].share:.2f}", file=sys.stderr)
            names = [value.name for value in sessions[OURS].get_outputs()]
            outputs = dict(zip(names, sessions[OURS].run(names, feeds), strict=True))
            handed_on = {name.removeprefix("next_"): array for name, array in outputs.items() if name != "logits"}
            feeds = {"image": feeds["image"], **handed_on}
    torch_version = installed(("torch",))["torch"]
    return StagesDocument(
        environment(), torch_version, geometry.costs.architecture, threads, turns, disturbed, tuple(times)
    )


class Yardstick:
    """What the machine gives at this moment: GFLOP/s of a 1024-cubed product with constant weights."""

    def __init__(self, threads: int) -> None:
        from models.graph_writer import GraphWriter

        graph = GraphWriter({"b": (SIDE, SIDE)})
        left = graph.input("a", 1, (SIDE,))
        graph.output("c", graph.op("MatMul", left, graph.weight("b")), (SIDE,))
        generator = np.random.default_rng(0)
        self._left, self._right = (generator.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
        options = _options(threads)
        options.add_external_initializers(["b"], [ort.OrtValue.ortvalue_from_numpy(self._right)])
        self._session = ort.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])

    def gflops(self) -> float:
        """The median of three."""
        seconds = [_seconds(lambda: self._session.run(None, {"a": self._left})) for _ in range(3)]
        return 2 * SIDE**3 / median(seconds) / 1e9


def _take_turns(
    stages: dict[str, Stage], yardstick: Yardstick, batch: int, turns: int
) -> tuple[dict[str, tuple[tuple[float, ...], tuple[float, ...]]], int]:
    """Milliseconds an image and GFLOP/s of each form's undisturbed turns, and how many others there were."""
    runs = 2 if batch > 1 else 6
    taken: dict[str, list[tuple[float, float, float]]] = {form: [] for form in stages}
    before = yardstick.gflops()
    for _ in range(turns):
        for form, stage in stages.items():
            stage()
            ms = 1e3 * median(_seconds(stage) for _ in range(runs)) / batch
            after = yardstick.gflops()
            taken[form].append((ms, min(before, after), (before + after) / 2))
            before = after
    best = max(low for rows in taken.values() for _, low, _ in rows)
    found, left_out = {}, 0
    for form, rows in taken.items():
        # Where everything was disturbed the least disturbed third has to do.
        bound = min(UNDISTURBED * best, sorted(low for _, low, _ in rows)[-max(1, turns // 3)])
        kept = [(ms, mean) for ms, low, mean in rows if low >= bound]
        left_out += len(rows) - len(kept)
        found[form] = (tuple(ms for ms, _ in kept), tuple(mean for _, mean in kept))
    return found, left_out


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _options(threads: int) -> ort.SessionOptions:
    """As the service's backend has them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _eager(geometry: Geometry, k: int, feeds: Feeds, threads: int) -> Stage:
    import torch

    from models.dvt import State, load_bundle

    torch.set_num_threads(threads)
    model = load_bundle(geometry.cascade.path)
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    state = State(tensors.get("features"), tensors.get("relations")) if k > 0 else None

    def run() -> object:
        with torch.inference_mode():
            return model.forward_stage(k, tensors["image"], state)

    return run


def _traced(folder: Path, k: int) -> Path:
    return folder / TRACED / f"stage{k + 1}.onnx"


def table(document: StagesDocument) -> Table:
    rows = []
    for each in document.times:
        if each.form != OURS:
            continue
        ms = median(each.ms)
        traced, eager = (median(document.of(each.stage, each.batch, form).ms) for form in (TRACED, EAGER))
        traced_share = document.of(each.stage, each.batch, TRACED).share
        rows.append(
            (
                f"{each.stage}",
                f"{each.batch}",
                f"{ms:.1f}",
                f"{100 * each.share:.0f} %",
                f"{100 * each.done_share:.0f} %",
                f"{100 * traced_share:.0f} %",
                f"{traced / ms:.2f}",
                f"{eager / ms:.2f}",
            )
        )
    heads = ("stage", "batch", "ms/image", "share", "share, FLOPs done", "traced", "over traced", "over eager")
    return Table("stages", heads, tuple(rows))


def _text(paragraph: str) -> list[str]:
    """Lines of readable length, and an empty one after them."""
    return [*textwrap.wrap(paragraph, 118, break_long_words=False, break_on_hyphens=False), ""]


def page(document: StagesDocument, notes: str) -> str:
    where, shown = document.environment, table(document)
    packages = ", ".join(f"{name} {version}" for name, version in where.packages.items())
    turns = document.turns * len(document.times)
    lines = [
        "# Speed of the stages on a CPU",
        "",
        *_text(
            "Made by `python -m benchmarks.stages measure DIR` from `benchmarks/results/stages.json`; "
            "`dvt bench geometry DIR` and `python -m benchmarks.stages trace DIR` make what it measures."
        ),
        *_text(
            f"`{document.architecture}` with random weights, {document.threads} threads. *Share* is that of a "
            "1024-cubed float32 product by ONNX Runtime in the same turns, with the FLOPs of the published network; "
            "*FLOPs done* counts those of the graph: less where exact shortcuts leave work out, more where a dense "
            "product is quicker than a sparse one. *Traced* is what PyTorch's exporter makes of the same network. "
            f"Medians; {document.disturbed} of {turns} turns are left out, the yardstick being below "
            f"{100 * UNDISTURBED:.0f} % of its best in them."
        ),
        *_text(
            f"{where.cpu}, {where.cores} cores, Python {where.python}, torch {document.torch}, {packages}; "
            f"{where.date} UTC."
        ),
        *("| " + " | ".join(row) + " |" for row in (shown.columns, ("---",) * len(shown.columns), *shown.rows)),
        "",
        f"Full depth, one stage after another, batch 1: {100 * document.full_depth_share(1):.0f} % of the yardstick; "
        f"batch 8: {100 * document.full_depth_share(8):.0f} %.",
        "",
    ]
    return "\n".join([*lines, *([notes.strip(), ""] if notes.strip() else [])])


if __name__ == "__main__":
    sys.exit(main())
