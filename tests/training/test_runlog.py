"""The CSV log of a run that may be killed between two rows, or within one."""

from pathlib import Path

import pytest

from training.runlog import LogRow, RunLog, median_speed
from training.throughput import Speed


def row(step: int, top1: tuple[float, ...] = ()) -> LogRow:
    return LogRow(step, epoch=1, loss=1 / 3, lr=1e-3, speed=Speed(float(step), 0.1234567, 0.25), top1=top1)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_accuracy_stands_where_it_was_measured_and_is_empty_elsewhere(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.csv", exits=2)
    log.restart(0)
    log.append(row(10))
    log.append(row(20, (0.5, 0.75)))
    assert lines(tmp_path / "log.csv") == [
        "step,epoch,loss,lr,images_per_s,tflops,of_ceiling,exit1_top1,exit2_top1",
        "10,1,0.333333333,0.001,10.0,0.1235,0.2500,,",
        "20,1,0.333333333,0.001,20.0,0.1235,0.2500,0.500000,0.750000",
    ]


def test_a_resumed_run_forgets_what_lies_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = RunLog(path, exits=1)
    log.restart(0)
    for step in (10, 20, 30):
        log.append(row(step))
    RunLog(path, exits=1).restart(20)
    assert [line.split(",")[0] for line in lines(path)] == ["step", "10", "20"]


def test_a_row_that_was_cut_short_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = RunLog(path, exits=1)
    log.restart(0)
    log.append(row(10))
    with path.open("a") as file:
        file.write("20,1,0.3")
    log.restart(20)
    log.append(row(30))
    assert [line.split(",")[0] for line in lines(path)] == ["step", "10", "30"]


def test_a_run_from_the_start_begins_a_new_log(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = RunLog(path, exits=1)
    log.restart(0)
    log.append(row(10))
    log.restart(0)
    assert len(lines(path)) == 1


OLDER = """step,epoch,loss,lr,images_per_s,exit1_top1
10,1,2.5,0.001,100.0,
20,1,2.0,0.001,100.0,0.500000
30,1,1.9,0.001,100.0,
"""


def test_a_log_of_an_earlier_version_keeps_its_rows_with_the_new_columns_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(OLDER)
    log = RunLog(path, exits=1)
    assert log.restart(20) == [2.5, 2.0]
    log.append(row(30))
    assert lines(path) == [
        "step,epoch,loss,lr,images_per_s,tflops,of_ceiling,exit1_top1",
        "10,1,2.5,0.001,100.0,,,",
        "20,1,2.0,0.001,100.0,,,0.500000",
        "30,1,0.333333333,0.001,30.0,0.1235,0.2500,",
    ]
    assert median_speed(path) == Speed(30.0, 0.1235, 0.25)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\n"])
def test_a_file_that_is_no_log_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert RunLog(path, exits=1).restart(20) == []
    assert len(lines(path)) == 1


def test_the_speed_of_a_run_is_the_median_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = RunLog(path, exits=1)
    log.restart(0)
    assert median_speed(path) is None
    for step in (1, 100, 110):
        log.append(row(step))
    assert median_speed(path) == Speed(100.0, 0.1235, 0.25)
    assert median_speed(tmp_path / "none.csv") is None
