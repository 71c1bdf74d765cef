"""The budget on disk: a crash at any moment, or a disk that fails, leaves the old budget or the new."""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.engine.budget import STARTED, Budget
from service.engine.budget_file import FILE, HISTORY, LOCK, BudgetFile
from service.engine.catalogue import BudgetRequest, Catalogue
from tests.service.cascades import quiet_log, small_profiles

ROOT = Path(__file__).parents[3]
# A process that changes the budget as fast as it can, and writes what it was told to a file of its own.
PUTS = """
import os, sys
from pathlib import Path
from tests.service.engine.test_budget_file import budget_in, request_of
folder = Path(sys.argv[1])
budget = budget_in(folder)
told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    revision = budget.in_force.revision + 1
    os.write(told, f"{budget.put(request_of(revision), by='me').revision}\\n".encode())
"""


def budget_in(folder: Path) -> Budget:
    return Budget(
        Catalogue(3, small_profiles()),
        bundle="bundle",
        first_profile="balanced",
        ceiling="",
        folder=folder,
        log=quiet_log(),
        now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def request_of(revision: int) -> BudgetRequest:
    """Another one for each, so that what is read can be told."""
    return BudgetRequest(thresholds=(0.5, revision % 1000 / 1000))


def test_changes_are_told_with_their_time_and_whose_key_it_was(tmp_path: Path) -> None:
    budget_in(tmp_path).put(BudgetRequest(profile="fast"), by="ann")
    budget_in(tmp_path).put(BudgetRequest(gmacs=0.3), by="ben")
    history = budget_in(tmp_path).stored.history
    assert [(change.revision, change.by, change.request) for change in history] == [
        (1, STARTED, BudgetRequest(profile="balanced")),
        (2, "ann", BudgetRequest(profile="fast")),
        (3, "ben", BudgetRequest(gmacs=0.3)),
    ]
    assert {change.at for change in history} == {"2026-01-02T03:04:05+00:00"}


def test_only_the_last_changes_are_kept(tmp_path: Path) -> None:
    budget = budget_in(tmp_path)
    for revision in range(2, HISTORY + 12):
        budget.put(request_of(revision), by="me")
    assert [change.revision for change in budget.stored.history] == list(range(12, HISTORY + 12))
    assert budget_in(tmp_path).stored.history == budget.stored.history


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_budget(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = budget_in(tmp_path)
    before = budget.put(BudgetRequest(profile="fast"), by="me")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space"):
            budget.put(BudgetRequest(profile="full"), by="me")
    assert budget.in_force is before
    assert len(budget.stored.history) == 2
    assert budget_in(tmp_path).in_force.request == BudgetRequest(profile="fast")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(f".{FILE}")] == []
    assert budget.put(BudgetRequest(profile="full"), by="me").revision == 3


def kill_at_random(folder: Path, times: int) -> None:
    chance = random.Random(0)
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", PUTS, str(folder)], cwd=ROOT)
        told_file = folder / "told"
        while process.poll() is None and not (told_file.exists() and told_file.stat().st_size):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        told = [int(line) for line in told_file.read_text().splitlines()]
        told_file.unlink()
        stored = BudgetFile(folder, logging.getLogger("dvt")).read()
        assert stored is not None
        # What was told is in force, or the next one, which nobody was told of yet.
        assert stored.revision in (told[-1], told[-1] + 1)
        assert stored.request == request_of(stored.revision)
        assert [change.revision for change in stored.history][-1] == stored.revision


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{FILE}.abc").write_text('{"revision"')
    budget_in(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((FILE, LOCK))


def test_killed_at_any_moment_it_leaves_the_old_budget_or_the_new(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 5)


@pytest.mark.slow
def test_killed_at_200_moments_it_leaves_the_old_budget_or_the_new(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 200)
