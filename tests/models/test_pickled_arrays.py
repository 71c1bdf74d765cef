"""Arrays come out of a pickle as they went in, or not at all."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.pickled_arrays import stand_ins

ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">f4"),
    np.arange(4, dtype=np.int32),
    np.full((2, 1, 2), 7, dtype=np.int64),
]


def loaded(path: Path, value: object) -> Any:
    torch.save(value, path)
    with torch.serialization.safe_globals(stand_ins()):
        return torch.load(path, weights_only=True)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_what_went_in_comes_out(tmp_path: Path, array: NDArray[Any]) -> None:
    found = np.asarray(loaded(tmp_path / "saved", array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(np.asarray(loaded(tmp_path / "saved", [array, array]), np.float64), [array] * 2)


def test_so_do_single_numbers(tmp_path: Path) -> None:
    numbers = [np.float64(0.5), np.float32(2.0), np.int64(-3)]
    found = loaded(tmp_path / "saved", numbers)
    assert [(type(each), each) for each in found] == [(type(each), each) for each in numbers]


@pytest.mark.parametrize("array", [np.array([None]), np.array(["text"]), np.array([1 + 2j]), np.array([True])])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, array: NDArray[Any]) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError), match="where numbers are expected"):
        loaded(tmp_path / "saved", array)


def test_flags_that_call_numbers_objects_are_not_taken_over(tmp_path: Path) -> None:
    """numpy would free each number as the address of an object, or fail in doing so."""
    path = tmp_path / "saved"
    torch.save(np.arange(3.0), path)
    content = path.read_bytes()
    place = content.index(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00") + 11
    path.write_bytes(content[:place] + b"\x3f" + content[place + 1 :])
    with torch.serialization.safe_globals(stand_ins()):
        found = torch.load(path, weights_only=True)
    np.testing.assert_array_equal(np.asarray(found), np.arange(3.0))
