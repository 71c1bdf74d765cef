"""`dvt bench gpu` from end to end at a small size, and the page that is made of it."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import dvt
from benchmarks.gpu import decoding, on_device, pieces
from benchmarks.gpu.document import GpuDocument
from benchmarks.photos import ROOT
from benchmarks.result_files import read_results

SMALL = (
    *("bench", "gpu", "--device", "cpu", "--precision", "float32", "--architectures", "dvt_micro"),
    *("--batches", "1,2", "--in-flight", "1,2", "--jobs", "8"),
)


def kept(results: Path) -> GpuDocument:
    document = read_results(GpuDocument, results / "gpu-cpu.json")
    assert document is not None
    return document


def is_whole(document: GpuDocument, backends: set[str]) -> bool:
    assert {(row.backend, row.batch, row.stage) for row in document.stages} == {
        (backend, batch, stage) for backend in backends for batch in (1, 2) for stage in (1, 2, 3)
    }
    assert {(run.backend, run.in_flight, run.is_static) for run in document.cascades} == {
        (backend, inside, is_static) for backend in backends for inside in (1, 2) for is_static in (False, True)
    }
    assert {(row.backend, row.batch, row.stage) for row in document.on_device} == {
        (row.backend, row.batch, row.stage) for row in document.stages
    }
    return not document.failures


def test_a_run_makes_a_chapter_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pieces, "measured_apart", on_device.measure)  # Another process takes seconds to start.
    monkeypatch.setattr(pieces, "decoding", partial(decoding.decoding, seconds=0.05))
    monkeypatch.setattr(pieces, "kernel_cases", lambda *_: ())  # They are compiled, which takes minutes.
    folders = ["--bundles", str(tmp_path / "bundles"), "--results", str(tmp_path)]
    assert dvt.main([*SMALL, "--backends", "cudagraph", *folders]) == 0
    document = kept(tmp_path)
    assert is_whole(document, {"cudagraph"})
    assert document.decoding is not None
    assert all(0 < row.least_seconds < row.seconds for row in document.stages)
    assert all(0 < (run.outside_share or 0) < 1 for run in document.cascades)
    assert all(run.ran.images == 8 for run in document.cascades)
    said = capsys.readouterr().err
    assert "Stages of dvt_micro" in said
    assert "6 of 6 pieces\n" in said
    page = tmp_path / "performance.md"
    assert dvt.main(["bench", "report", "--results", str(tmp_path), "--out", str(page)]) == 0
    text = page.read_text()
    assert "## On a GPU: cpu" in text
    assert "**Stages of dvt_micro**" in text
    assert "| cudagraph | 2 |" in text
    assert "| cpu: time outside of stages, the longest | at most 5 % |" in text


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_stopped_with_nothing_but_what_a_gpu_machine_has(
    tmp_path: Path,
) -> None:
    folders = ("--bundles", str(tmp_path / "bundles"), "--results", str(tmp_path))
    command = [
        *(sys.executable, "-m", "tests.benchmarks.gpu.bare_dvt", *SMALL),
        *("--backends", "cudagraph,eager", "--only", "dvt_micro", *folders),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "gpu-cpu.json").exists() or len(kept(tmp_path).stages) < 6:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = kept(tmp_path)
    assert not before.cascades, "it was killed in the middle"
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    after = kept(tmp_path)
    assert is_whole(after, {"cudagraph", "eager"})
    assert after.stages[: len(before.stages)] == before.stages
    assert (after.environment, after.ceilings) == (before.environment, before.ceilings)
