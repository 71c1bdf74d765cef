"""What `dvt classify` writes: lines for people, JSON lines for programs, a CSV file; failures on standard error too."""

import csv
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dvt_client import Event, ExitEvent, ImageResult
from service.commands.ending import printable

COLUMNS = (
    "photo",
    "label",
    "probability",
    "exit",
    "exits",
    "grid",
    "confidence",
    "reason",
    "gmacs",
    "saved",
    "total_ms",
    "error",
)


@dataclass(frozen=True)
class Answered:
    photo: str
    result: ImageResult


@dataclass(frozen=True)
class Failed:
    """`code` is one of docs/errors.md, or `unreadable_file` or `no_photo`."""

    photo: str
    code: str
    detail: str


Outcome = Answered | Failed


class Report:
    """A context manager. Raises `OSError` where the CSV file cannot be written."""

    def __init__(self, *, is_json: bool, csv_file: Path | None) -> None:
        self._is_json = is_json
        self._has_lines = csv_file is None
        self._followed: str | None = None
        self._stack = ExitStack()
        self._csv = None
        if csv_file is not None:
            # Whole lines at once: what an interrupt leaves can be used.
            file = self._stack.enter_context(csv_file.open("w", newline="", encoding="utf-8", buffering=1))
            self._csv = csv.writer(file)
            self._csv.writerow(COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def event(self, photo: str, event: Event) -> None:
        """What is known of a photo so far."""
        if self._is_json:
            name = type(event).__name__.removesuffix("Event").lower()
            _write_json({"photo": photo, "event": name, **asdict(event)})
            self._followed = photo
        elif isinstance(event, ExitEvent):
            if self._followed != photo:
                self._followed = photo
                print(printable(photo))
            print(exit_line(event), flush=True)

    def outcome(self, outcome: Outcome) -> None:
        """How a photo ended."""
        if self._csv is not None:
            self._csv.writerow(csv_row(outcome))
        if isinstance(outcome, Failed):
            print(f"dvt classify: {printable(outcome.photo)}: {printable(outcome.detail)}", file=sys.stderr)
        if self._is_json:
            if self._followed != outcome.photo:  # Else its events have told.
                _write_json(json_of(outcome))
        elif isinstance(outcome, Answered) and self._has_lines:
            indent = "  " if self._followed == outcome.photo else ""
            print(f"{indent}{result_lines(outcome)}", flush=True)


@dataclass
class Tally:
    """Of photos so far."""

    photos: int = 0
    failed: int = 0
    by_exit: dict[int, int] = field(default_factory=dict)
    gmacs: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.photos += 1
        if isinstance(outcome, Failed):
            self.failed += 1
            return
        result = outcome.result
        self.by_exit[result.exit.number] = self.by_exit.get(result.exit.number, 0) + 1
        if result.compute.gmacs is not None:
            self.gmacs.append(result.compute.gmacs)

    def in_words(self) -> str:
        answered = self.photos - self.failed
        words = [f"{answered:,} of {self.photos:,} photos answered"]
        if answered:
            shares = (
                f"{100 * count / answered:.0f} % at exit {number}" for number, count in sorted(self.by_exit.items())
            )
            words.append(", ".join(shares))
        if self.gmacs:
            words.append(f"{sum(self.gmacs) / len(self.gmacs):.3f} GMACs each")
        return "; ".join(words)


def exit_line(event: ExitEvent) -> str:
    """One exit of a photo that is followed."""
    word, first = event.exit, event.predictions[0]
    if event.leaves:
        ending = "leaves here"
    elif word.threshold is None:
        ending = "goes on, nobody leaves here"
    else:
        ending = f"goes on, confidence {word.confidence:.3f} of {word.threshold:.3f}"
    return (
        f"  exit {word.number} of {word.of}, {word.grid}x{word.grid} tokens: {printable(first.label)} "
        f"{100 * first.probability:.1f} %, {ending}{_cost(event.compute.gmacs)}, {event.elapsed_ms:.1f} ms"
    )


def result_lines(answered: Answered) -> str:
    """The answer on a line; further predictions, where asked for, on lines below it."""
    result = answered.result
    place, saved = result.exit, result.compute.saved
    first, *others = result.predictions
    spared = "" if saved is None else f" ({100 * saved:.0f} % saved)"
    where = f"exit {place.number} of {place.of} ({place.grid}x{place.grid} tokens, {printable(place.reason)})"
    lines = [
        f"{printable(answered.photo)}: {printable(first.label)} {100 * first.probability:.1f} %, {where}"
        f"{_cost(result.compute.gmacs)}{spared}, {result.timing_ms.total:.1f} ms"
    ]
    lines += [f"    {printable(each.label)} {100 * each.probability:.1f} %" for each in others]
    return "\n".join(lines)


def json_of(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        return {"photo": outcome.photo, "error": {"code": outcome.code, "detail": outcome.detail}}
    return {"photo": outcome.photo, "result": asdict(outcome.result)}


def csv_row(outcome: Outcome) -> tuple[object, ...]:
    """By `COLUMNS`; empty where nothing is known."""
    if isinstance(outcome, Failed):
        return (outcome.photo, *[""] * (len(COLUMNS) - 2), f"{outcome.code}: {outcome.detail}")
    result = outcome.result
    place = result.exit
    return (
        outcome.photo,
        result.label,
        result.probability,
        place.number,
        place.of,
        place.grid,
        place.confidence,
        place.reason,
        result.compute.gmacs,
        result.compute.saved,
        result.timing_ms.total,
        "",
    )


def _cost(gmacs: float | None) -> str:
    return "" if gmacs is None else f", {gmacs:.3f} GMACs"


def _write_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
