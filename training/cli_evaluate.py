"""`dvt eval` and `dvt profile`: what a bundle does on images, and where it should leave early."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.arguments import positive
from models.policy import MEASURES
from training.thresholds.rules import RULE_NAMES

if TYPE_CHECKING:
    from models.tables import Table
    from training.data import Unreadable
    from training.evaluate import Evaluation
    from training.profile import ProfileRun

NAMED_UNREADABLE = 10


def add_eval(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure a bundle on the images of PATH/test or PATH/val: each exit alone, and the cascade under a profile, "
        "run stage by stage."
    )
    add_common(parser)
    parser.add_argument("--profile", metavar="NAME", help="fast, balanced (default), accurate or full")
    parser.add_argument("--json", action="store_true", help="print one JSON object, fractions 0..1")
    parser.add_argument("--limit", type=positive, metavar="N", help="use N images only, evenly spread over the classes")
    parser.set_defaults(run=_eval)


def add_profile(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find temperatures and thresholds on the images that were held out for it, measure them on PATH/test or "
        "PATH/val, and write profiles.json into the bundle."
    )
    add_common(parser)
    parser.add_argument("--confidence", choices=MEASURES, default=MEASURES[0], help="what a threshold is on")
    add_search(parser)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw accuracy against GMACs into this file")
    parser.add_argument("--reliability", type=Path, metavar="PNG", help="draw how honest each exit's confidence is")
    parser.add_argument("--twin", type=Path, metavar="BUNDLE", help="a profiled static twin, to draw beside")
    parser.set_defaults(run=_profile)


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder with train/ and test/ or val/")
    parser.add_argument("--batch", type=positive, default=64, metavar="N", help="images at a time (default: 64)")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: auto)")


def add_search(parser: argparse.ArgumentParser) -> None:
    """How threshold vectors are looked for, and on how many images."""
    parser.add_argument(
        "--rule",
        choices=RULE_NAMES,
        default=RULE_NAMES[0],
        help="exhaustive is exact up to three exits, genetic is for more, quantile is the published rule",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="use N images only of each split, for a quick try")


def _eval(args: argparse.Namespace) -> int:
    from models.progress import Progress
    from training.devices import choose_device
    from training.evaluate import evaluate_bundle

    def run() -> None:
        with Progress("evaluating") as progress:
            done = evaluate_bundle(
                args.bundle,
                args.data,
                args.profile,
                device=choose_device(args.device),
                batch=args.batch,
                limit=args.limit,
                progress=progress.update,
            )
        name_unreadable(done.unreadable)
        if args.json:
            sys.stdout.write(done.evaluation.to_json())
        else:
            show(_evaluation_tables(done.evaluation))

    return answering("dvt eval", run)


def _profile(args: argparse.Namespace) -> int:
    from models.bundle import read_bundle
    from models.progress import Progress
    from training.devices import choose_device
    from training.plots import plot_frontier, plot_reliability
    from training.profile import profile_bundle

    def run() -> None:
        with Progress("running all exits") as progress:
            done = profile_bundle(
                args.bundle,
                args.data,
                measure=args.confidence,
                rule=args.rule,
                limit=args.limit,
                device=choose_device(args.device),
                batch=args.batch,
                progress=progress.update,
            )
        name_unreadable(done.unreadable)
        if done.report_differs:
            say("note: the report images are not those that the bundle recorded; profiles.json names the ones used")
        show(_profile_tables(done))
        say(f"wrote {args.bundle / 'profiles.json'}")
        if args.plot is not None:
            twin = read_bundle(args.twin).profiles if args.twin is not None else None
            plot_frontier(done.profiles, args.bundle.resolve().name, args.plot, twin)
            say(f"wrote {args.plot}")
        if args.reliability is not None:
            exits = [(each.before, each.after) for each in done.findings.calibration]
            plot_reliability(exits, args.bundle.resolve().name, args.reliability)
            say(f"wrote {args.reliability}")

    return answering("dvt profile", run)


def answering(command: str, run: Callable[[], None]) -> int:
    """Exit code of `run`: what the caller can mend is one line on standard error and code 2."""
    try:
        run()
    except (ValueError, OSError) as error:
        say(f"{command}: {error}")
        return 2
    return 0


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def show(tables: "Sequence[Table]") -> None:
    from models.tables import write_tables

    write_tables(tables, sys.stderr)


def name_unreadable(unreadable: "Sequence[Unreadable]") -> None:
    if not unreadable:
        return
    say(f"{len(unreadable)} image{'s' if len(unreadable) > 1 else ''} could not be read and were left out:")
    for each in unreadable[:NAMED_UNREADABLE]:
        say(f"  {each.path}: {each.reason}")
    if len(unreadable) > NAMED_UNREADABLE:
        say(f"  and {len(unreadable) - NAMED_UNREADABLE} more")


def _evaluation_tables(evaluation: "Evaluation") -> "tuple[Table, ...]":
    from models.tables import Table

    dearest = evaluation.exits[-1].gmacs
    exits = tuple(
        (f"{number} ({each.grid}x{each.grid})", f"{each.top1:.2%}", f"{each.gmacs:.4f}", f"{share:.1%}")
        for number, (each, share) in enumerate(zip(evaluation.exits, evaluation.exit_shares, strict=True), start=1)
    )
    cascade = (
        f"profile {evaluation.profile}",
        f"{evaluation.top1:.2%}",
        f"{evaluation.mean_gmacs:.4f}",
        f"{dearest / evaluation.mean_gmacs:.2f}x less",
    )
    title = f"{evaluation.n:,} images; each exit alone, then the cascade"
    return (Table(title, ("exit", "top-1", "GMACs", "leave here"), (*exits, cascade)),)


def _profile_tables(done: "ProfileRun") -> "tuple[Table, ...]":
    from models.tables import Table

    findings = done.findings
    exits = tuple(
        (
            f"{number} ({each.grid}x{each.grid})",
            f"{each.top1:.2%}",
            f"{each.gmacs:.4f}",
            f"{each.temperature:.3f}",
            f"{calibration.fit.ece_before:.4f} > {calibration.fit.ece_after:.4f}",
            f"{calibration.before.ece:.4f} > {calibration.after.ece:.4f}",
        )
        for number, (each, calibration) in enumerate(zip(findings.exits, findings.calibration, strict=True), start=1)
    )
    named = tuple(
        (
            name,
            ", ".join("never" if value is None else f"{value:.4f}" for value in point.thresholds) or "-",
            f"{point.top1:.2%}",
            f"{point.mean_gmacs:.4f}",
            f"{findings.exits[-1].gmacs / point.mean_gmacs:.2f}x",
            " ".join(f"{share:.1%}" for share in point.exit_shares or ()),
        )
        for name, point in findings.named.items()
    )
    comparison = findings.comparison
    measures = tuple(
        (name, *(f"{value:.2%}" for value in values)) for name, values in comparison.top1.items() if values
    )
    sizes = ", ".join(f"{split.name} {split.size:,}" for split in done.profiles.splits)
    tables = (
        Table(f"Exits ({sizes} images)", ("exit", "top-1", "GMACs", "temperature", "ECE search", "ECE report"), exits),
        Table(
            f"Profiles, thresholds on {done.profiles.confidence} from search, numbers from report; frontier of "
            f"{len(findings.frontier)} points",
            ("profile", "thresholds", "top-1", "mean GMACs", "less", "exit shares"),
            named,
        ),
        Table(
            "Report top-1 at equal mean GMACs, by what decides who leaves",
            ("measure", *(f"{budget:.3f}" for budget in comparison.budgets_gmacs)),
            measures,
        ),
    )
    return tables if len(findings.exits) > 1 else tables[:1]  # a single exit leaves nothing to choose
