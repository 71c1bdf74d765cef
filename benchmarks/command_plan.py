"""`dvt bench plan`: the planner's forecasts beside the simulation, over its whole grid."""

import argparse
import sys
from dataclasses import replace

from benchmarks.plan_check import TOLERANCE, compare, grid, plan_table
from benchmarks.result_files import RESULTS, write_results
from benchmarks.results import PLAN_FILE, PlanDocument
from models import strict_json
from models.progress import Progress
from models.tables import write_tables


def run(args: argparse.Namespace) -> int:
    """Exit code 1 where a forecast is off by more than it may be."""
    cases = tuple(grid())
    compared = []
    with Progress("cases", unit="") as progress:
        for number, case in enumerate(cases):
            progress.update(number, len(cases), f"{case.device}, {case.shares}, {case.topology} at {case.load:g}")
            compared.append(compare(case, args.images, args.seed))
        progress.update(len(cases), len(cases))
    document = PlanDocument(args.images, args.seed, tuple(compared))
    write_results(document, (args.results or RESULTS) / PLAN_FILE)
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    table = plan_table(document.cases)
    write_tables([replace(table, title="worst error of a forecast")], sys.stderr)
    return int(any(case.worst > TOLERANCE for case in document.cases))
