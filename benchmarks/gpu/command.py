"""`dvt bench gpu`: the stages, the cascade and its twin on a device, held against what that can do at most.

What is measured is kept at once, and not measured again: a run that was cut off goes on where it stopped.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import torch

from benchmarks.gpu.backends import BACKENDS
from benchmarks.gpu.ceilings import device_name
from benchmarks.gpu.ceilings import measure as measure_ceilings
from benchmarks.gpu.document import FILE, Failure, GpuDocument, Kind
from benchmarks.gpu.pieces import Piece, Plan, pieces
from benchmarks.gpu.tables import tables
from benchmarks.machine import environment
from benchmarks.photos import load_photos
from benchmarks.result_files import RESULTS, read_results, write_results
from models import strict_json
from models.devices import use
from models.progress import Progress
from models.tables import write_tables

PACKAGES = ("torch", "triton", "numpy", "pillow", "prometheus-client")


class DeviceLostError(Exception):
    """Nothing more can be had of the device by this process; what was measured is kept."""


def run(args: argparse.Namespace) -> int:
    try:
        device = _device(args.device)
        use(device)
        # What a CPU shows is that it runs: the page is not made of that.
        folder: Path = args.results or (RESULTS if device.type == "cuda" else args.bundles)
        path = folder / FILE.format(device=device_name(device).lower().replace(" ", "-"))
        todo = [piece for piece in pieces(plan_of(args), device) if args.only in piece.note]
        document = read_results(GpuDocument, path)
        if document is None:
            document = GpuDocument(environment(PACKAGES), measure_ceilings(device))
        if document.ceilings.torch != torch.__version__:
            raise ValueError(
                f"{path} was measured with PyTorch {document.ceilings.torch}, here is {torch.__version__}; "
                "move it away to begin anew"
            )
        until_s = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
        document = measure(
            todo, document, lambda found: write_results(found, path), is_late=lambda: time.monotonic() >= until_s
        )
    except (ValueError, OSError) as error:
        print(f"dvt bench gpu: {error}", file=sys.stderr)
        return 2
    except DeviceLostError as error:
        print(f"dvt bench gpu: {error}; the same command goes on", file=sys.stderr)
        return 1
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    write_tables(list(tables(document)), sys.stderr)
    left = [piece.note for piece in todo if not piece.is_in(document)]
    for failure in document.failures:
        print(f"dvt bench gpu: {failure.piece}: {failure.reason}", file=sys.stderr)
    go_on = "; the same command goes on" if left else ""
    print(f"{path}: {len(todo) - len(left)} of {len(todo)} pieces{go_on}", file=sys.stderr)
    return 1 if document.failures else 0


def _device(name: str | None) -> torch.device:
    """Raises `ValueError` where there is none of that name."""
    there_is_cuda = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if there_is_cuda else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"--device {name!r} is no device of PyTorch") from error
    if device.type not in ("cuda", "cpu") or (device.type == "cuda" and not there_is_cuda):
        raise ValueError(f"--device {name!r} is not here; leave it out to take what there is")
    return device


def plan_of(args: argparse.Namespace) -> Plan:
    """Raises `ValueError` for a backend that there is not, or where there are no photos."""
    kinds = tuple(args.backends.split(","))
    for kind in kinds:
        if kind not in BACKENDS:
            raise ValueError(f"--backends has {kind!r}, known are {', '.join(get_args(Kind))}")
    return Plan(
        tuple(args.architectures.split(",")),
        cast("tuple[Kind, ...]", kinds),
        args.batches,
        args.in_flight,
        args.kernel_batches,
        args.jobs,
        args.precision,
        args.bundles,
        load_photos(args.data, args.photos, args.seed),
    )


def measure(
    todo: Sequence[Piece],
    document: GpuDocument,
    keep: Callable[[GpuDocument], None],
    is_late: Callable[[], bool] = lambda: False,
) -> GpuDocument:
    """The document with every piece that it lacks, kept after each. None is begun once it is late.

    Raises `DeviceLostError`.
    """
    # Last what failed before: it may take the device, or the process, with it.
    failed = {failure.piece for failure in document.failures}
    todo = sorted(todo, key=lambda piece: piece.note in failed)
    with Progress("measuring", unit="") as progress:
        for number, piece in enumerate(todo):
            progress.update(number, len(todo), piece.note)
            if piece.is_in(document):
                continue
            if is_late():
                break
            document = _with(piece, document)
            keep(document)
            _free_memory()
    return document


def _free_memory() -> None:
    """For the next piece. What a kernel has broken for the whole process is met here again."""
    gc.collect()
    try:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        raise DeviceLostError(f"the device is lost: {str(error).partition(chr(10))[0]}") from error


def _with(piece: Piece, document: GpuDocument) -> GpuDocument:
    """A piece that fails does not keep the others from being measured."""
    others = tuple(failure for failure in document.failures if failure.piece != piece.note)
    try:
        return replace(piece.add_to(document), failures=others)
    except Exception as error:  # Whatever a compiler or a device's runtime raises.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return replace(document, failures=(*others, Failure(piece.note, reason)))
