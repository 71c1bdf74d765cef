"""numpy arrays in a pickle that may be damaged or hostile, rebuilt from their bytes by stand-ins for numpy's own types.

numpy's take the flags of a data type from the pickle as they are: with one wrong bit, numbers are freed as if they were
objects. Here only the kind of number, the order of bytes and the shape are taken, and each is checked.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_NUMBERS = ("f4", "f8", "i4", "i8")


class PickledType:
    """Stands for `numpy.dtype`. Raises `ValueError` for anything but the usual numbers."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _NUMBERS:
            raise ValueError(f"an array of {code!r} where numbers are expected ({', '.join(_NUMBERS)})")
        self._code = code
        self._order = "="

    def __setstate__(self, state: Sequence[Any]) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise ValueError(f"bytes in the order {order!r}")
        self._order = order

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(f"{self._order}{self._code}")


class PickledArray:
    """Stands for `numpy.ndarray`; `numpy.asarray` makes one of it."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], PickledType, bool, bytes]) -> None:
        _, shape, kind, by_columns, data = state
        flat = np.frombuffer(data, kind.numpy)
        self._array: NDArray[Any] = flat.reshape(shape, order="F" if by_columns else "C")

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._array, dtype=dtype)


def _reconstruct(*_: object) -> PickledArray:
    return PickledArray()


def _scalar(kind: PickledType, data: bytes) -> Any:
    return np.frombuffer(data, kind.numpy)[0]


def stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """For `torch.serialization.safe_globals`: what pickled arrays and numbers ask for, as numpy 1 and 2 call it."""
    named: list[tuple[Callable[..., Any], str]] = [(PickledArray, "numpy.ndarray"), (PickledType, "numpy.dtype")]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        named += [(_reconstruct, f"{module}._reconstruct"), (_scalar, f"{module}.scalar")]
    return [*named]
