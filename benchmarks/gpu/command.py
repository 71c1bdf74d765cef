"""`dvt bench gpu`: the stages, the cascade and its twin on a device, held against what that can do at most.

What is measured is kept at once, and not measured again: a run that was cut off goes on where it stopped.
"""

import argparse
import sys
from typing import get_args

import torch

from benchmarks.gpu.backends import BACKENDS
from benchmarks.gpu.ceilings import measure as measure_ceilings
from benchmarks.gpu.document import FILE, GpuDocument, Kind
from benchmarks.gpu.pieces import pieces
from benchmarks.gpu.tables import tables
from benchmarks.machine import environment
from benchmarks.result_files import RESULTS, read_results, write_results
from models import strict_json
from models.progress import Progress
from models.tables import write_tables


def run(args: argparse.Namespace) -> int:
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        for name in args.backends.split(","):
            if name not in BACKENDS:
                raise ValueError(f"--backends has {name!r}, known are {', '.join(get_args(Kind))}")
        document = measure(args, device)
    except (ValueError, OSError) as error:
        print(f"dvt bench gpu: {error}", file=sys.stderr)
        return 2
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    write_tables(list(tables(document)), sys.stderr)
    return 0


def measure(args: argparse.Namespace, device: torch.device) -> GpuDocument:
    """Raises `ValueError` for an unknown architecture."""
    ceilings = measure_ceilings(device)
    path = (args.results or RESULTS) / FILE.format(device=ceilings.device.lower().replace(" ", "-"))
    document = read_results(GpuDocument, path) or GpuDocument(environment(), ceilings)
    todo = [piece for piece in pieces(args, device, ceilings) if args.only in piece.note]
    with Progress("measuring", unit="") as progress:
        for number, piece in enumerate(todo):
            progress.update(number, len(todo), piece.note)
            if not piece.is_in(document):
                document = piece.add_to(document)
                write_results(document, path)
    return document
