"""How long a device is at work follows from when each of its kernels ran; and other processes tell it."""

from pathlib import Path

import pytest
import torch

from benchmarks.gpu.backends import geometry
from benchmarks.gpu.on_device import Busy, Span, Wanted, busy, measure, measured_apart


def test_time_in_which_several_kernels_are_at_work_counts_once() -> None:
    window = Span("run", 0.0, 100.0)
    work = [Span("a", 10.0, 30.0), Span("b", 20.0, 25.0), Span("c", 25.0, 40.0), Span("d", 60.0, 61.0)]
    assert busy([window], work) == {"run": [Busy(31.0, 4)]}


def test_work_belongs_to_the_window_that_it_began_in() -> None:
    windows = [Span("second", 50.0, 90.0), Span("first", 0.0, 40.0), Span("first", 100.0, 140.0)]
    work = [Span("a", 5.0, 10.0), Span("b", 39.0, 45.0), Span("between", 45.0, 49.0), Span("c", 50.0, 60.0)]
    assert busy(windows, work) == {"first": [Busy(11.0, 2), Busy(0.0, 0)], "second": [Busy(10.0, 1)]}


def test_work_outside_of_every_window_is_nobodys() -> None:
    assert busy([Span("run", 10.0, 20.0)], [Span("a", 0.0, 30.0), Span("b", 20.0, 30.0)]) == {"run": [Busy(0.0, 0)]}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "gpu-dvt_micro"
    geometry(folder, "dvt_micro")
    return folder


def test_every_stage_is_seen_at_every_batch_size(bundles: Path) -> None:
    rows = measure(Wanted(str(bundles), "cudagraph", "float32", (1, 2), "cpu"))
    assert [(row.batch, row.stage) for row in rows] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert {(row.architecture, row.backend, row.precision) for row in rows} == {("dvt_micro", "cudagraph", "float32")}
    assert all(row.seconds > 0 and row.kernels > 0 for row in rows)
    assert all(row.keep_seconds > 0 for row in rows if row.stage < 3)


def test_the_gpu_that_is_named_is_taken_before_anything_runs(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class TakenError(Exception):
        pass

    def take(device: torch.device) -> None:
        raise TakenError(str(device))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", take)
    with pytest.raises(TakenError, match="cuda:1"):
        measure(Wanted(str(bundles), "eager", "float32", (1,), "cuda:1"))


def test_what_another_process_could_not_do_is_told_in_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ValueError: .* has no costs\.json"):
        measured_apart(Wanted(str(tmp_path / "nowhere"), "eager", "float32", (1,), "cpu"))
