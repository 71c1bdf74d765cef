"""What is kept of answers: found by id and by content, for a while, in bounded memory, by one owner alone."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backends.base import Slot
from service.engine.kept import KeptLimits, KeptWork, Work
from service.metrics import Metrics
from service.types import ContentKey, ExitTaken, Ranking

EXITS, CLASSES = 3, 4
LIMITS = KeptLimits(keep_s=60.0, slots=2, answers_bytes=1 << 20, finds_content=True)
ALICE, BOB = "key alice", "key bob"


@dataclass
class Shelf:
    """Kept work under a clock that is turned by hand."""

    limits: KeptLimits = LIMITS
    now_s: float = 0.0
    devices: int = 1
    kept: KeptWork = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics("fake", "0", EXITS)
        self.kept = KeptWork(
            self.limits,
            exits=EXITS,
            clock=lambda: self.now_s,
            metrics=self.metrics,
            devices=self.devices,
        )

    def answered(
        self,
        number: int,
        exits: int = 1,
        key: bytes | None = None,
        owner: str = ALICE,
        device: int = 0,
        held: int = CLASSES,
    ) -> Work:
        """Result `id{number}` left at that exit; its state lay in slot `number`."""
        work = self.kept.begin(None if key is None else ContentKey(key))
        assert work is not None
        work.device = device
        for reached in range(1, exits + 1):
            self.kept.reached(work, taken(reached, held))
        self.kept.rest(work, Slot(number))
        self.kept.remember(f"id{number}", work, exits, owner)
        return work

    def evicted(self, what: str, why: str) -> float:
        value = self.metrics.registry.get_sample_value("dvt_kept_evictions_total", {"what": what, "why": why})
        assert value is not None
        return value


def taken(number: int, held: int = CLASSES) -> ExitTaken:
    """With the best `held` classes; all are equal."""
    classes = None if held == CLASSES else np.arange(held)
    return ExitTaken(number, Ranking(np.full(held, 1 / CLASSES), CLASSES, classes), 0.25, 0.9)


def test_an_answer_is_found_by_its_id_by_its_owner_alone() -> None:
    shelf = Shelf()
    work = shelf.answered(1)
    found = shelf.kept.answer("id1", ALICE)
    assert found is not None
    assert (found.work, found.exit_number) == (work, 1)
    assert shelf.kept.answer("id1", BOB) is None
    assert shelf.kept.answer("id2", ALICE) is None


def test_state_is_claimed_once_and_rests_again() -> None:
    shelf = Shelf()
    work = shelf.answered(1)
    assert shelf.kept.standing(work) == "resting"
    assert shelf.kept.claim(work) == 1
    assert shelf.kept.standing(work) == "running"
    assert shelf.kept.claim(work) is None
    shelf.kept.reached(work, taken(2))
    assert shelf.kept.rest(work, Slot(1)) is None
    assert [exit_.number for exit_ in work.exits] == [1, 2]
    assert shelf.kept.claim(work) == 1


def test_at_the_last_exit_there_is_nothing_to_go_on_from() -> None:
    shelf = Shelf()
    work = shelf.kept.begin(None)
    assert work is not None
    for number in (1, 2, 3):
        shelf.kept.reached(work, taken(number))
    assert shelf.kept.rest(work, Slot(7)) == 7
    shelf.kept.remember("id", work, 3, ALICE)
    assert shelf.kept.answer("id", ALICE) is not None
    assert shelf.kept.standing(work) == "gone"


def test_time_ends_ids_and_states_and_an_answer_given_again_starts_it_anew() -> None:
    shelf = Shelf()
    shelf.answered(1)
    work = shelf.answered(2)
    shelf.now_s = 59.0
    shelf.kept.remember("id2", work, 1, ALICE)
    assert shelf.kept.take_released() == []
    shelf.now_s = 60.0
    assert shelf.kept.answer("id1", ALICE) is None
    assert shelf.kept.take_released() == [1]
    assert shelf.kept.answer("id2", ALICE) is not None
    assert shelf.kept.due_s() == 119.0
    shelf.now_s = 119.0
    assert shelf.kept.answer("id2", ALICE) is None
    assert shelf.kept.claim(work) is None
    assert shelf.kept.standing(work) == "gone"
    assert shelf.kept.take_released() == [2]
    assert shelf.kept.due_s() is None
    assert shelf.evicted("state", "old") == 2


def test_each_device_has_the_slots_of_what_rests_on_it() -> None:
    shelf = Shelf(devices=2)
    here, there = shelf.answered(1), shelf.answered(7, device=1)
    assert shelf.kept.take_oldest(1) == 7
    assert [shelf.kept.standing(work) for work in (here, there)] == ["resting", "gone"]
    assert shelf.kept.take_oldest(1) is None, "slots of another device are of no use"
    more = [shelf.answered(number, device=1) for number in (2, 3, 4)]
    assert [shelf.kept.standing(work) for work in more] == ["gone", "resting", "resting"], "so many rest on each"
    assert (shelf.kept.take_released(0), shelf.kept.take_released(1)) == ([], [2])
    assert (shelf.kept.slots, shelf.kept.claim(more[1])) == (3, 3)
    shelf.now_s = 60.0
    assert shelf.kept.take_released(1) == [4]
    assert shelf.kept.due_s(0) == -math.inf, "what the other has found to be over is to be released at once"
    assert (shelf.kept.take_all(0), shelf.kept.take_all(1), shelf.kept.slots) == ([1], [], 0)


def test_state_makes_way_where_it_rests_and_its_exits_stay_known() -> None:
    shelf = Shelf()
    work, running = shelf.answered(1), shelf.answered(2)
    assert shelf.kept.claim(running) == 2
    for each in (work, running, work):
        shelf.kept.make_way(each)
    assert (shelf.kept.standing(work), shelf.kept.standing(running)) == ("gone", "running")
    assert shelf.kept.take_released() == [1]
    assert shelf.kept.answer("id1", ALICE) is not None
    assert shelf.evicted("state", "needed") == 1


def test_the_state_that_rested_longest_goes_when_there_are_too_many_or_a_newcomer_needs_its_slot() -> None:
    shelf = Shelf()
    works = [shelf.answered(number) for number in (1, 2)]
    shelf.kept.remember("again", works[0], 1, ALICE)
    works.append(shelf.answered(3))
    assert shelf.kept.take_released() == [2]
    assert shelf.kept.take_oldest() == 1
    assert shelf.kept.take_oldest() == 3
    assert shelf.kept.take_oldest() is None
    assert [shelf.kept.standing(work) for work in works] == ["gone"] * 3
    assert shelf.kept.answer("id2", ALICE) is not None, "its exits are still known"
    assert (shelf.evicted("state", "full"), shelf.evicted("state", "needed")) == (1, 2)


def test_the_same_content_is_found_and_of_two_that_ran_at_once_the_deeper_one() -> None:
    shelf = Shelf()
    deep, flat = shelf.answered(1, exits=2, key=b"same"), shelf.answered(2, exits=1, key=b"same")
    assert shelf.kept.find(ContentKey(b"same")) is deep
    deeper = shelf.answered(3, exits=3, key=b"same")
    assert shelf.kept.find(ContentKey(b"same")) is deeper
    assert shelf.kept.find(ContentKey(b"other")) is None
    found = shelf.kept.answer("id2", ALICE)
    assert found is not None
    assert found.work is flat, "an id stands for what it came from"


def test_of_the_same_content_the_one_that_tells_of_more_classes_is_found_then_the_deeper_one() -> None:
    shelf = Shelf()
    shelf.answered(1, exits=3, key=b"same", held=2)
    full = shelf.answered(2, exits=1, key=b"same")
    assert shelf.kept.find(ContentKey(b"same")) is full
    shelf.answered(3, exits=3, key=b"same", held=2)
    assert shelf.kept.find(ContentKey(b"same")) is full
    both = shelf.answered(4, exits=2, key=b"same")
    assert shelf.kept.find(ContentKey(b"same")) is both


def test_content_outlives_ids_and_state() -> None:
    shelf = Shelf()
    work = shelf.answered(1, key=b"same")
    shelf.now_s = 1e6
    shelf.kept.take_released()
    assert shelf.kept.answer("id1", ALICE) is None
    assert shelf.kept.find(ContentKey(b"same")) is work
    assert shelf.kept.standing(work) == "gone"


def test_without_a_name_by_content_nothing_outlives_its_ids() -> None:
    shelf = Shelf()
    shelf.answered(1)
    assert shelf.kept.answers_bytes > 0
    shelf.now_s = 60.0
    shelf.kept.take_released()
    assert shelf.kept.answers_bytes == 0


def test_memory_for_answers_is_bounded_and_what_was_used_longest_ago_goes() -> None:
    shelf = Shelf(replace(LIMITS, answers_bytes=20_000))
    for number in range(100):
        shelf.now_s = number / 100
        shelf.answered(number, key=b"%d" % number)
        assert shelf.kept.answers_bytes <= 20_000
    assert shelf.kept.find(ContentKey(b"99")) is not None
    assert shelf.kept.answer("id99", ALICE) is not None
    assert shelf.kept.find(ContentKey(b"0")) is None
    assert shelf.kept.answer("id0", ALICE) is None
    assert shelf.evicted("answer", "full") > 0


def test_memory_is_counted_by_what_exits_hold_and_is_nought_when_all_is_let_go() -> None:
    shelf = Shelf(replace(LIMITS, finds_content=False))
    work = shelf.answered(1, held=2)
    few = shelf.kept.answers_bytes
    shelf.answered(2)
    assert shelf.kept.answers_bytes - few == few + taken(1).ranking.nbytes - taken(1, held=2).ranking.nbytes
    before = shelf.kept.answers_bytes
    shelf.kept.claim(work)
    shelf.kept.reached(work, taken(2))
    assert shelf.kept.answers_bytes > before
    shelf.kept.remember("again", work, 2, ALICE)
    shelf.now_s = 60.0
    shelf.kept.take_released()
    assert shelf.kept.answers_bytes == 0


def test_an_image_that_is_asked_for_all_the_time_does_not_fill_it_with_its_ids() -> None:
    shelf = Shelf(replace(LIMITS, answers_bytes=20_000))
    work = shelf.answered(0, key=b"same")
    for number in range(1, 1000):
        shelf.now_s = number / 1000
        shelf.kept.remember(f"id{number}", work, 1, ALICE)
        assert shelf.kept.answers_bytes <= 20_000
    assert shelf.kept.find(ContentKey(b"same")) is work
    assert shelf.kept.answer("id999", ALICE) is not None


def test_what_is_given_up_gives_back_its_slot() -> None:
    shelf = Shelf(replace(LIMITS, answers_bytes=0))
    shelf.answered(1, key=b"same")
    assert shelf.kept.take_released() == [1]
    assert shelf.kept.answer("id1", ALICE) is None


@pytest.mark.parametrize(
    ("limits", "by_id", "rests"),
    [
        (replace(LIMITS, keep_s=0.0), False, False),
        (replace(LIMITS, slots=0), True, False),
        (replace(LIMITS, finds_content=False), True, True),
    ],
)
def test_each_part_can_be_off(limits: KeptLimits, by_id: bool, rests: bool) -> None:
    shelf = Shelf(limits)
    work = shelf.answered(1, key=b"same")
    assert (shelf.kept.answer("id1", ALICE) is not None) == by_id
    assert (shelf.kept.standing(work) == "resting") == rests


def test_nothing_is_begun_where_nothing_is_kept() -> None:
    assert Shelf(replace(LIMITS, keep_s=0.0, finds_content=False)).kept.begin(None) is None


def test_work_whose_client_left_is_not_kept_unless_it_answered_somebody() -> None:
    shelf = Shelf()
    work = shelf.kept.begin(None)
    assert work is not None
    shelf.kept.reached(work, taken(1))
    shelf.kept.forget(work)
    assert not shelf.kept.wants_state(work)
    assert shelf.kept.rest(work, Slot(5)) == 5
    known = shelf.answered(6)
    shelf.kept.claim(known)
    shelf.kept.forget(known)
    assert shelf.kept.rest(known, Slot(6)) is None


def test_work_with_an_exit_that_is_not_finite_is_not_kept() -> None:
    shelf = Shelf()
    work = shelf.kept.begin(ContentKey(b"same"))
    assert work is not None
    shelf.kept.reached(work, taken(1))
    shelf.kept.reached(work, None)
    assert shelf.kept.rest(work, Slot(1)) == 1
    shelf.kept.remember("id", work, 1, ALICE)
    assert shelf.kept.answer("id", ALICE) is None
    assert shelf.kept.find(ContentKey(b"same")) is None


def test_who_watches_is_called_once_at_the_next_exit_or_at_rest() -> None:
    shelf, calls = Shelf(), []
    work = shelf.answered(1)
    assert not shelf.kept.watch(work, 1, lambda: calls.append("rests")), "nobody goes on with it"
    shelf.kept.claim(work)
    assert not shelf.kept.watch(work, 0, lambda: calls.append("late")), "the exit is there already"
    assert shelf.kept.watch(work, 1, lambda: calls.append("exit"))
    shelf.kept.reached(work, taken(2))
    shelf.kept.reached(work, taken(3))
    assert calls == ["exit"]
    assert shelf.kept.watch(work, 3, lambda: calls.append("rest"))
    shelf.kept.rest(work, None)
    assert calls == ["exit", "rest"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["answer", "again", "claim", "rest", "newcomer", "sweep", "wait"]), st.integers(0, 5)),
    max_size=60,
)


@given(steps=STEPS)
def test_no_slot_is_ever_lost_or_given_back_twice(steps: list[tuple[str, int]]) -> None:
    """Whatever happens: a slot rests, runs with somebody, or is with the lanes again, and only one of these."""
    shelf = Shelf(replace(LIMITS, answers_bytes=9_000))
    free, running = {Slot(number) for number in range(6)}, {}
    works: list[Work] = []

    def back(slots: list[Slot]) -> None:
        assert len(set(slots)) == len(slots)
        assert not free & set(slots)
        free.update(slots)

    for step, number in steps:
        shelf.now_s += 0.5
        if step == "answer" and free:
            slot = free.pop()
            work = shelf.kept.begin(ContentKey(bytes([number])))
            assert work is not None
            shelf.kept.reached(work, taken(1))
            back([each for each in [shelf.kept.rest(work, slot)] if each is not None])
            shelf.kept.remember(f"id{len(works)}", work, 1, ALICE)
            works.append(work)
        elif step == "again" and works:
            shelf.kept.remember(f"again{number}{len(works)}", works[number % len(works)], 1, ALICE)
        elif step == "claim" and works:
            work = works[number % len(works)]
            claimed = shelf.kept.claim(work)
            if claimed is not None:
                running[work] = claimed
        elif step == "rest" and running:
            work, slot = running.popitem()
            back([each for each in [shelf.kept.rest(work, slot)] if each is not None])
        elif step == "newcomer":
            back([each for each in [shelf.kept.take_oldest()] if each is not None])
        elif step == "sweep":
            back(list(shelf.kept.take_released()))
        elif step == "wait":
            shelf.now_s += 10 * number
        resting = [work for work in works if shelf.kept.standing(work) == "resting"]
        assert len(resting) <= LIMITS.slots
        assert len(free) + len(running) + shelf.kept.slots == 6
        assert shelf.kept.answers_bytes <= 9_000
    back(list(shelf.kept.take_all()))
    assert len(free) + len(running) == 6
