"""Checkpoints come from a disk: they may be damaged, of another run, or not ours at all."""

import pickle
from pathlib import Path

import pytest
import torch

from training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


def some_checkpoint() -> Checkpoint:
    weight = {"weight": torch.arange(3.0)}
    return Checkpoint("a run", 7, weight, weight, {"state": {}, "param_groups": []})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", some_checkpoint())
    loaded = load_checkpoint(tmp_path / "checkpoint.pt", "a run", CPU)
    assert (loaded.step, loaded.fingerprint) == (7, "a run")
    torch.testing.assert_close(loaded.model["weight"], torch.arange(3.0))


def test_one_of_another_run_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", some_checkpoint())
    with pytest.raises(CheckpointError, match="belongs to another run"):
        load_checkpoint(tmp_path / "checkpoint.pt", "another run", CPU)


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_damaged_one_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, some_checkpoint())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(path, "a run", CPU)


def test_code_in_a_file_that_calls_itself_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "was here",)  # type: ignore[return-value]

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(pickle.dumps({"fingerprint": Malicious()}, protocol=2))
    with pytest.raises(CheckpointError):
        load_checkpoint(path, "a run", CPU)
    assert not (tmp_path / "was here").exists()
