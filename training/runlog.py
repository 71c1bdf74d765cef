"""The CSV log of a run: one row at every logged step, exits' top-1 where they were measured."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.bundle import write_file_atomically
from training.throughput import Speed


@dataclass(frozen=True)
class LogRow:
    """`top1` has one entry an exit (0..1, on the search split), or is empty where it was not measured."""

    step: int
    epoch: int
    loss: float
    lr: float
    speed: Speed
    top1: tuple[float, ...] = ()


class RunLog:
    """Appends rows; a resumed run first forgets what lies after its checkpoint."""

    def __init__(self, path: Path, exits: int) -> None:
        self._path = path
        self._exits = exits
        top1 = (f"exit{k}_top1" for k in range(1, exits + 1))
        self._header = ["step", "epoch", "loss", "lr", "images_per_s", "tflops", "of_ceiling", *top1]

    def restart(self, step: int) -> Sequence[float]:
        """Keep the rows up to `step`, begin the file if there is none; returns the losses that are kept.

        A log of an earlier version may lack columns: they stay empty in its rows. Columns that this version does not
        know are left out.
        """
        kept = [row for row in _whole_rows(self._path) if int(row["step"]) <= step] if step > 0 else []
        rows = [[row.get(column, "") for column in self._header] for row in kept]
        write_file_atomically(self._path, self._text([self._header, *rows]).encode())
        return [float(row["loss"]) for row in kept]

    def append(self, row: LogRow) -> None:
        top1 = [f"{value:.6f}" for value in row.top1] or [""] * self._exits
        speed = [f"{row.speed.images_per_s:.1f}", f"{row.speed.tflops:.4g}", f"{row.speed.of_ceiling:.4f}"]
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([[str(row.step), str(row.epoch), f"{row.loss:.9g}", f"{row.lr:.9g}", *speed, *top1]]))

    @staticmethod
    def _text(rows: Sequence[Sequence[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()


def median_speed(path: Path) -> Speed | None:
    """Of a log's rows that tell it; None if there is none. In the first of each start the network was compiled too."""
    rows = [row for row in _whole_rows(path) if row.get("tflops")]
    if not rows:
        return None
    columns = ("images_per_s", "tflops", "of_ceiling")
    return Speed(*(statistics.median(float(row[column]) for row in rows) for column in columns))


def _whole_rows(path: Path) -> Sequence[Mapping[str, str]]:
    """By column; a killed run may leave a last row without its end. None of a file that is no log."""
    if not path.exists():
        return []
    header, *rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines())) or [[]]
    if not {"step", "loss"} <= set(header):
        return []
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
