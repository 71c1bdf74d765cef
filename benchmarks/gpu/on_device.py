"""How long the device itself is at work for a stage, by its own time stamps: what is left of a stage's latency is
launching and waiting.

In a process of its own, since a profiler may slow down whatever its process launches later, and may see nothing when
it is attached to a process for a second time.
"""

import statistics
import subprocess
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # it has it, and its stub does not say so
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.geometry import read_geometry
from benchmarks.gpu.backends import open_backend
from benchmarks.gpu.document import Kind, StageOnDevice
from benchmarks.gpu.stages import noise, run_and_keep
from benchmarks.photos import ROOT
from models import strict_json
from models.devices import use
from service.backends.base import Precision, Slot, StageBackend

_REPEATS = 3
_LIMIT_S = 400


@dataclass(frozen=True)
class Wanted:
    """`bundles`: a folder made by `write_geometry`. `device`: a torch device's name."""

    bundles: str
    backend: Kind
    precision: Precision
    batches: tuple[int, ...]
    device: str


@dataclass(frozen=True)
class Found:
    stages: tuple[StageOnDevice, ...]


@dataclass(frozen=True)
class Span:
    """What went on under a name, in microseconds since the trace began."""

    name: str
    start_us: float
    end_us: float


def measured_apart(wanted: Wanted) -> tuple[StageOnDevice, ...]:
    """By another process. Raises `RuntimeError` with what that said last."""
    command = [sys.executable, "-m", "benchmarks.gpu.on_device", strict_json.dumps(wanted)]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"it took longer than {_LIMIT_S} s") from error
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"]
        raise RuntimeError(said[-1])
    return strict_json.loads(Found, ended.stdout, "what another process measured").stages


def measure(wanted: Wanted) -> tuple[StageOnDevice, ...]:
    """Every stage at every batch size. Raises `RuntimeError` where nothing of the device was seen."""
    geometry = read_geometry(Path(wanted.bundles))
    device, largest = torch.device(wanted.device), max(wanted.batches)
    use(device)
    bundle = geometry.cascade
    backend = open_backend(bundle, wanted.backend, wanted.precision, largest, largest, device)
    slots = noise(backend, largest, bundle.config.input.size_px, seed=0)
    for batch in wanted.batches:  # Compiled and captured before anybody looks.
        for stage in range(1, backend.stages + 1):
            run_and_keep(backend, stage, slots[:batch])
    on_cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as profiler:
        for batch in wanted.batches:
            for stage in range(1, backend.stages + 1):
                _run(backend, stage, slots[:batch], device)
    found = _seen(profiler, DeviceType.CUDA if on_cuda else DeviceType.CPU)
    return tuple(
        StageOnDevice(
            geometry.costs.architecture,
            wanted.backend,
            wanted.precision,
            batch,
            stage,
            _median_s(found[_name(_RUN, stage, batch)]),
            _median_s(found[_name(_KEEP, stage, batch)]),
            found[_name(_RUN, stage, batch)][-1].pieces,
        )
        for batch in wanted.batches
        for stage in range(1, backend.stages + 1)
    )


def _seen(profiler: profile, of_device: DeviceType) -> dict[str, list["Busy"]]:
    """What the device did in each window; on a CPU, its operators."""
    windows, work = [], []
    for event in profiler.events() or ():  # type: ignore[no-untyped-call]  # torch leaves it without types
        span = Span(event.name, event.time_range.start, event.time_range.end)
        if event.is_user_annotation or span.name.startswith((_RUN, _KEEP)):
            # A window, or a compiler's own: the device has an image of each, which is no work.
            if event.device_type == DeviceType.CPU and span.name.startswith((_RUN, _KEEP)):
                windows.append(span)
        elif event.device_type == of_device:
            work.append(span)
    if not work:
        raise RuntimeError("the profiler saw nothing of the device")
    return busy(windows, work)


_RUN, _KEEP = "dvt run", "dvt keep"


def _name(what: str, stage: int, batch: int) -> str:
    return f"{what} {stage} {batch}"


def _run(backend: StageBackend, stage: int, slots: list[Slot], device: torch.device) -> None:
    """`run` changes nothing in the slots, so it goes first, and waits for the device by itself."""
    for _ in range(_REPEATS):
        with record_function(_name(_RUN, stage, len(slots))):
            output = backend.run(stage, slots)
    for _ in range(_REPEATS):
        with record_function(_name(_KEEP, stage, len(slots))):
            output.keep(range(len(slots)))
            if device.type == "cuda":
                torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Busy:
    """Of one window: while anything was at work, and how many pieces of work that was."""

    microseconds: float
    pieces: int


def busy(windows: Sequence[Span], work: Iterable[Span]) -> dict[str, list[Busy]]:
    """By the windows' names, in order. Work belongs to the window that it began in; windows do not overlap."""
    in_order = sorted(windows, key=lambda window: window.start_us)
    starts = [window.start_us for window in in_order]
    inside: list[list[Span]] = [[] for _ in in_order]
    for span in work:
        at = bisect_right(starts, span.start_us) - 1
        if at >= 0 and span.start_us < in_order[at].end_us:
            inside[at].append(span)
    found: dict[str, list[Busy]] = defaultdict(list)
    for window, spans in zip(in_order, inside, strict=True):
        found[window.name].append(Busy(sum(_lengths_us(spans)), len(spans)))
    return found


def _lengths_us(spans: Iterable[Span]) -> Iterator[float]:
    """Of what the spans cover together: time in which several are at work counts once."""
    until_us = float("-inf")
    for span in sorted(spans, key=lambda span: span.start_us):
        yield max(0.0, span.end_us - max(span.start_us, until_us))
        until_us = max(until_us, span.end_us)


def _median_s(of: Sequence[Busy]) -> float:
    return statistics.median(each.microseconds for each in of) / 1e6


if __name__ == "__main__":
    sys.stdout.write(strict_json.dumps(Found(measure(strict_json.loads(Wanted, sys.argv[1], "the argument")))))
