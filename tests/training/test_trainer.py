"""A run that is killed and resumed, or spread over processes, is the run that was not."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models.bundle import read_bundle
from tests.training.image_trees import write_tree

REPOSITORY = Path(__file__).parents[2]
SHORT = ("--recipe", "cifar10_micro", "--epochs", "3", "--batch", "12", "--threads", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("images"), {"a": 24, "b": 20, "c": 20}, {"a": 4, "b": 4, "c": 4})


def start(*arguments: str, module: tuple[str, ...] = ("dvt.py",)) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, *module, "train", *arguments],
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def losses(out: Path) -> list[float]:
    with (out.with_name(out.name + ".run") / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.splitlines()[-1]


def kill_after_rows(process: subprocess.Popen[str], log: Path, rows: int) -> None:
    """kill -9 once the log has that many rows, or let it end."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") > rows:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    process.communicate()


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_ends_with_the_weights_of_one_that_was_not(
    images: Path, tmp_path: Path, kills: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(*SHORT, "--data", str(images), "--out", str(whole)))
    chance = random.Random(kills)
    log = tmp_path / "killed.run" / "log.csv"
    for _ in range(kills):
        done = log.read_text().count("\n") if log.exists() else 0
        kill_after_rows(
            start(*SHORT, "--data", str(images), "--out", str(killed), "--resume"), log, done + chance.randint(-1, 1)
        )
        time.sleep(chance.random() * 0.05)
    finish(start(*SHORT, "--data", str(images), "--out", str(killed), "--resume"))
    assert losses(killed) == losses(whole)
    assert read_bundle(killed).weights_sha256 == read_bundle(whole).weights_sha256


def test_a_run_whose_time_is_up_goes_on_with_resume_as_if_it_had_not_been(images: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(*SHORT, "--data", str(images), "--out", str(whole)))
    in_no_time = (*SHORT, "--data", str(images), "--out", str(cut), "--max-minutes", "0.0001")
    code, last = ended(start(*in_no_time))
    assert (code, last) == (75, "dvt train: time is up at step 4 of 12; the same command with --resume goes on")
    assert (tmp_path / "cut.run" / "checkpoint.pt").exists()
    code, last = ended(start(*in_no_time, "--resume"))
    assert (code, last.partition(";")[0]) == (75, "dvt train: time is up at step 8 of 12"), "each start gets on"
    assert not cut.exists()
    finish(start(*SHORT, "--data", str(images), "--out", str(cut), "--resume"))
    assert losses(cut) == losses(whole)
    assert read_bundle(cut).weights_sha256 == read_bundle(whole).weights_sha256


def test_two_processes_stop_at_one_step_when_time_is_up(images: Path, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "dvt.py")
    limited = (*SHORT, "--data", str(images), "--out", str(tmp_path / "out"), "--max-minutes", "0.0001")
    process = start(*limited, module=launcher)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert errors.count("time is up at step 4 of 12") == 2
    assert (tmp_path / "out.run" / "checkpoint.pt").exists()


def test_a_run_that_has_diverged_ends_with_a_code_of_its_own_and_the_way_out(images: Path, tmp_path: Path) -> None:
    code, last = ended(start(*SHORT, "--data", str(images), "--out", str(tmp_path / "out"), "--rate-scale", "1e30"))
    assert code == 3
    assert last.startswith("dvt train: ") and "at step" in last and "learning rate" in last
    assert "--rate-scale 0.3" in last and "--warmup-epochs" in last
    assert f"{tmp_path / 'out.run'} keeps its log" in last
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("steps_by", "tolerance"), [(("--no-muon",), 1e-4), ((), 0.02)], ids=["adamw", "muon"])
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(
    images: Path, tmp_path: Path, steps_by: tuple[str, ...], tolerance: float
) -> None:
    """Within float error, which for Muon is bf16's: it makes its steps orthogonal in that."""
    one, two = tmp_path / "one", tmp_path / "two"
    plain = (*SHORT, *steps_by, "--no-augmentation", "--precision", "fp32", "--data", str(images))
    finish(start(*plain, "--out", str(one)))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "dvt.py")
    finish(start(*plain, "--out", str(two), module=launcher))
    np.testing.assert_allclose(losses(two), losses(one), rtol=tolerance)


def test_what_stands_in_the_way_is_one_line_with_the_way_out(images: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    process = start(*SHORT, "--data", str(images), "--out", str(taken))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.splitlines() == [f"dvt train: {taken} exists already: choose another --out or remove it"]
