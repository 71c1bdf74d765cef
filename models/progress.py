"""How far something is: a bar on a terminal, otherwise a line now and then. On standard error."""

import sys
import time
from types import TracebackType
from typing import Any, Self

LINE_EVERY_S = 30.0


class Progress:
    """A context manager; call `update` as work gets done. Uses rich for the bar where it is installed.

    Without a `unit` no speed is shown: for what is measured in time itself.
    """

    def __init__(self, title: str, unit: str = "img") -> None:
        self._title = title
        self._unit = unit
        self._started = time.monotonic()
        self._first: int | None = None
        self._last_line = 0.0
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task(title, total=None, note="") if self._bar is not None else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units; speed and time left are of this run alone, so a resumed one tells the truth."""
        now = time.monotonic()
        if self._first is None:
            self._first = done
            self._started = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = (total - done) / rate if rate > 0 else float("inf")
        speed = f"{rate:,.0f} {self._unit}/s  " if self._unit else ""
        note = f"{speed}{note}  {_clock(left)} left"
        if self._bar is not None:
            assert self._task is not None
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif now - self._last_line >= LINE_EVERY_S or done == total:
            self._last_line = now
            sys.stderr.write(f"{self._title}: {done:,}/{total:,}  {note}\n")
            sys.stderr.flush()


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _bar() -> Any:
    """rich's progress bar, or None where it is not installed (Any, since its types cannot be named then)."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    return RichProgress(*columns, console=Console(stderr=True))
