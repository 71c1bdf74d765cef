"""Slots: how many fit, who gets which, what lies in them."""

import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.backends.arena import Arena
from service.backends.base import BackendError, Capacity, Slot, SlotPool
from service.backends.layout import StateLayout, state_layout
from service.backends.torch_arena import TorchArena
from tests.service.tiny_bundles import tiny_config

LAYOUT = state_layout(tiny_config())


def test_slots_are_as_many_as_the_bytes_allow_and_the_operator_wants() -> None:
    assert Capacity(images=4, state_bytes=1000, max_batch=8).slots(100) == 4
    assert Capacity(images=40, state_bytes=1000, max_batch=8).slots(300) == 3
    with pytest.raises(BackendError, match=r"needs 1001 bytes of state, the limit is 1000 .*DVT_STATE_BYTES"):
        Capacity(images=4, state_bytes=1000, max_batch=8).slots(1001)


@pytest.mark.parametrize(("most", "buckets"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_buckets_are_powers_of_two_and_the_largest_batch(most: int, buckets: tuple[int, ...]) -> None:
    assert Capacity(1, 1, most).buckets == buckets


@pytest.mark.parametrize(("exits", "hand_overs"), [(1, []), (2, [5]), (3, [5, 10]), (5, [5, 10, 17, 26])])
def test_a_slots_peak_is_the_image_with_the_old_and_the_new_state(exits: int, hand_overs: list[int]) -> None:
    width, maps = 16, 4
    sizes = [tokens * width + maps * tokens**2 for tokens in hand_overs]
    layout = state_layout(tiny_config(exits))
    assert layout.width == max(sizes, default=0)
    costliest = sum(sizes[-2:])  # Grids grow, so the last two hand-overs are the largest.
    assert layout.slot_bytes(4) == 3 * 16 * 16 + 4 * costliest
    assert [sum(part.size for part in layout.handed_on(stage)) for stage in range(1, exits + 1)] == [*sizes, 0]


def test_the_slot_released_last_is_used_first() -> None:
    pool = SlotPool(100)
    slots = [pool.take() for _ in range(5)]
    pool.give_back(slots[1])
    pool.give_back(slots[3])
    assert [pool.take(), pool.take()] == [slots[3], slots[1]]
    assert pool.in_use == 5


def test_a_slot_is_not_given_back_twice_nor_taken_when_there_is_none() -> None:
    pool = SlotPool(1)
    slot = pool.take()
    with pytest.raises(AssertionError, match="more images"):
        pool.take()
    pool.give_back(slot)
    with pytest.raises(AssertionError, match="twice"):
        pool.give_back(slot)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is told in KiB on Linux only")
def test_memory_that_no_image_needs_is_never_touched() -> None:
    layout = StateLayout((3, 512, 512), ((), ()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    arena = Arena(layout, 500)  # 375 MiB of images
    for _ in range(100):
        slots = [arena.put(np.ones((3, 512, 512), np.uint8)) for _ in range(3)]
        for slot in slots:
            arena.release(slot)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 32 * 1024


class Store(Protocol):
    """What the arenas do, in numpy."""

    def write(self, slots: Sequence[Slot], stage: int, values: dict[str, NDArray[np.float32]]) -> None: ...

    def read(self, slots: Sequence[Slot], stage: int) -> dict[str, NDArray[np.float32]]: ...


class NumpyStore:
    def __init__(self, slots: int) -> None:
        self._arena = Arena(LAYOUT, slots)

    def write(self, slots: Sequence[Slot], stage: int, values: dict[str, NDArray[np.float32]]) -> None:
        self._arena.scatter(slots, LAYOUT.handed_on(stage), values)

    def read(self, slots: Sequence[Slot], stage: int) -> dict[str, NDArray[np.float32]]:
        return self._arena.gather(slots, LAYOUT.taken[stage])


class TorchStore:
    def __init__(self, slots: int) -> None:
        self._arena = TorchArena(LAYOUT, slots, torch.device("cpu"), torch.float32)

    def write(self, slots: Sequence[Slot], stage: int, values: dict[str, NDArray[np.float32]]) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in values.items()}
        self._arena.scatter(torch.tensor(slots), LAYOUT.handed_on(stage), tensors)

    def read(self, slots: Sequence[Slot], stage: int) -> dict[str, NDArray[np.float32]]:
        gathered = self._arena.gather(torch.tensor(slots), LAYOUT.taken[stage])
        return {name: tensor.numpy() for name, tensor in gathered.items()}


@st.composite
def writes(draw: st.DrawFn) -> list[tuple[int, list[int]]]:
    """(stage, distinct slots of ten), a few times."""
    some = st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True)
    return draw(st.lists(st.tuples(st.integers(1, 2), some), min_size=1, max_size=6))


@pytest.mark.parametrize("store_of", [NumpyStore, TorchStore])
@given(history=writes(), data=st.data())
def test_a_slot_holds_what_was_written_into_it_last(
    store_of: Callable[[int], Store], history: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    store = store_of(10)
    held: dict[int, tuple[int, dict[str, NDArray[np.float32]]]] = {}
    for number, (stage, slots) in enumerate(history):
        values: dict[str, Any] = {
            part.name: np.random.default_rng(number).random((len(slots), *part.shape), np.float32)
            for part in LAYOUT.handed_on(stage)
        }
        store.write([Slot(slot) for slot in slots], stage, values)
        for row, slot in enumerate(slots):
            held[slot] = (stage, {name: array[row] for name, array in values.items()})
    stage = data.draw(st.sampled_from(sorted({stage for stage, _ in held.values()})))
    of_stage = [slot for slot, (at, _) in held.items() if at == stage]
    order = data.draw(st.permutations(of_stage))
    read = store.read([Slot(slot) for slot in order], stage)
    assert read.keys() == {"features", "relations"}
    for name, array in read.items():
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, np.stack([held[slot][1][name] for slot in order]))
