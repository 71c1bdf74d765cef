"""What a run tells at a logged step, and when it says that it has gone wrong."""

import csv
import math
import time
from pathlib import Path

import pytest

from models.progress import Progress
from training.divergence import WINDOW, DivergedError, LossWatch
from training.journal import Journal, Look
from training.runlog import RunLog
from training.throughput import Pace, Throughput


class Run:
    """A journal of its own, over a log that lies on disk; an hour passes whenever the search split is looked at."""

    def __init__(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.looked = 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        self.log = log
        pace = Pace(Throughput(flops_per_image=1e9, ceiling_tflops=0.1), batch=8)
        with Progress("training") as progress:
            self.journal = Journal(RunLog(log, 1), LossWatch(2.3), pace, progress, 8, 8000)

    def step(self, step: int, loss: float, *, evaluated: bool = False) -> str:
        """A second after the last one."""
        self.now_s += 1
        health = self.journal.enter(Look(step, 1, loss, 1e-3), self.evaluate if evaluated else None)
        self.journal.go_on(step)
        return health

    def evaluate(self) -> list[float]:
        self.looked += 1
        self.now_s += 3600
        return [0.5]

    def column(self, name: str) -> list[str]:
        with self.log.open() as file:
            return [row[name] for row in csv.DictReader(file)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path / "log.csv", monkeypatch)


def test_the_time_of_a_look_is_not_that_of_the_steps(run: Run) -> None:
    run.journal.begin(0)
    for step in (10, 20, 30):
        assert run.step(step, 2.0, evaluated=step == 20) == "fine"
    assert run.column("images_per_s") == ["80.0", "80.0", "80.0"]
    assert run.column("tflops") == ["0.08", "0.08", "0.08"]
    assert run.column("of_ceiling") == ["0.8000", "0.8000", "0.8000"]
    assert run.column("exit1_top1") == ["", "0.500000", ""]


def test_a_resumed_run_counts_its_own_steps_alone(run: Run) -> None:
    run.now_s = 50.0
    run.journal.begin(100)
    run.step(110, 2.0)
    assert run.column("images_per_s") == ["80.0"]


def test_a_loss_that_is_no_number_ends_the_run_before_anything_else_is_measured(run: Run) -> None:
    run.journal.begin(0)
    run.step(10, 2.0)
    with pytest.raises(DivergedError, match=r"the loss is nan at step 20 \(epoch 1\), learning rate 0.001"):
        run.step(20, math.nan, evaluated=True)
    assert run.looked == 0
    assert run.column("step") == ["10"]


def test_a_resumed_run_remembers_how_low_the_loss_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.journal.begin(0)
    for look in range(1, 2 * WINDOW):
        run.step(look, 0.5)
    resumed = Run(run.log, monkeypatch)
    resumed.journal.begin(2 * WINDOW)
    with pytest.raises(DivergedError, match=r"jumped and stays there: .* looks, 0.5 before that, 2.3 where nothing"):
        for look in range(2 * WINDOW, 3 * WINDOW):
            resumed.step(look, 2.3)
