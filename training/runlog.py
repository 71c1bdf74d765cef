"""The CSV log of a run: one row at every logged step, exits' top-1 where they were measured."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.bundle import write_file_atomically


@dataclass(frozen=True)
class LogRow:
    """`top1` has one entry an exit (0..1, on the search split), or is empty where it was not measured."""

    step: int
    epoch: int
    loss: float
    lr: float
    images_per_s: float
    top1: tuple[float, ...] = ()


class RunLog:
    """Appends rows; a resumed run first forgets what lies after its checkpoint."""

    def __init__(self, path: Path, exits: int) -> None:
        self._path = path
        self._exits = exits
        self._header = ["step", "epoch", "loss", "lr", "images_per_s", *(f"exit{k}_top1" for k in range(1, exits + 1))]

    def restart(self, step: int) -> None:
        """Keep the rows up to `step`; begin the file if there is none."""
        kept: list[Sequence[str]] = []
        if self._path.exists() and step > 0:
            rows = list(csv.reader(self._path.read_text(encoding="utf-8").splitlines()))
            whole = (row for row in rows[1:] if len(row) == len(self._header))
            kept = [row for row in whole if int(row[0]) <= step]
        write_file_atomically(self._path, self._text([self._header, *kept]).encode())

    def append(self, row: LogRow) -> None:
        top1 = [f"{value:.6f}" for value in row.top1] or [""] * self._exits
        numbers = [f"{row.loss:.9g}", f"{row.lr:.9g}", f"{row.images_per_s:.1f}"]
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([[str(row.step), str(row.epoch), *numbers, *top1]]))

    @staticmethod
    def _text(rows: Sequence[Sequence[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()
