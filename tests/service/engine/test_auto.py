"""The controller by itself: down at once, up after a minute, never outside its range."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.auto import HOLD_S, Controller, Look
from service.engine.costs import Lanes, StageCosts
from service.engine.lateness import Mix

COSTS = StageCosts(3, 8)
for _stage, _seconds in enumerate((0.01, 0.02, 0.04), start=1):
    COSTS.seed(_stage, {1: _seconds})
# 11, 14.5, 22, 33 and 70 ms an image.
POINTS = tuple(
    Mix(shares, (Lanes(COSTS, 1),))
    for shares in ((0.97, 0.02, 0.01), (0.85, 0.11, 0.04), (0.6, 0.3, 0.1), (0.3, 0.4, 0.3), (0.0, 0.0, 1.0))
)
FLOOR, CEILING = 0, len(POINTS) - 1
OBJECTIVE_S = 0.5
STEP_S = 0.1


@dataclass
class Road:
    """Drives a controller by a steady `rate_per_s`. The backlog grows and shrinks as a fluid would, or is as given."""

    controller: Controller = field(default_factory=lambda: Controller(OBJECTIVE_S, len(POINTS)))
    now_s: float = 0.0
    switches: list[tuple[float, int]] = field(default_factory=list)
    owed: float = 0.0
    backlog_s: float = 0.0

    def drive(
        self, seconds: float, rate_per_s: float, *, backlog_s: float | None = None, late: int = 0, harder: float = 1.0
    ) -> int:
        for _ in range(round(seconds / STEP_S)):
            self.owed += rate_per_s * STEP_S
            offered = int(self.owed)
            self.owed -= offered
            before = self.controller.at
            work_s = harder * POINTS[before].work_s
            self.backlog_s = max(0.0, self.backlog_s + offered * work_s - STEP_S)
            waits_s = self.backlog_s if backlog_s is None else backlog_s
            look = Look(self.now_s, offered, late, round(waits_s / work_s), waits_s, work_s, POINTS)
            if self.controller.decide(look) != before:
                self.switches.append((self.now_s, self.controller.at))
            self.now_s += STEP_S
        return self.controller.at


def most_in_a_minute(times: Sequence[float]) -> int:
    return max((sum(at <= other < at + HOLD_S - 1e-6 for other in times) for at in times), default=0)


def test_it_begins_at_the_ceiling_and_stays_there_while_there_is_little_load() -> None:
    road = Road()
    assert road.drive(300, 3.0) == CEILING
    assert road.switches == []


@pytest.mark.parametrize(("rate_per_s", "settles_at"), [(3, 4), (12, 3), (24, 2), (40, 1), (60, 0), (500, 0)], ids=str)
def test_under_a_steady_load_it_settles_at_the_dearest_point_that_bears_it(rate_per_s: float, settles_at: int) -> None:
    road = Road()
    assert road.drive(200, rate_per_s) == settles_at
    road.switches.clear()
    road.drive(600, rate_per_s)
    assert road.switches == []


def test_a_crowd_is_met_at_once_and_the_point_for_it_found_within_two_seconds() -> None:
    road = Road()
    road.drive(100, 3.0)
    road.drive(10, 50.0)
    assert road.controller.at <= 1
    assert road.switches[0][0] < 100.5
    assert road.switches[-1][0] < 102
    assert road.backlog_s < OBJECTIVE_S


def test_a_switch_has_a_second_to_take_effect_unless_it_gets_worse() -> None:
    def after_a_crowd(backlog_s: float) -> list[int]:
        road = Road()
        road.drive(100, 12.0)
        road.switches.clear()
        road.drive(STEP_S, 12.0, backlog_s=0.9)
        road.drive(0.8, 12.0, backlog_s=backlog_s)
        return [at for _, at in road.switches]

    assert len(after_a_crowd(0.85)) == 1
    assert len(after_a_crowd(1.50)) == 2


def test_when_load_falls_the_ceiling_is_back_a_minute_later() -> None:
    road = Road()
    road.drive(60, 60.0)
    assert road.controller.at == FLOOR
    fell_s = road.now_s
    road.drive(2 * HOLD_S, 3.0)
    assert road.controller.at == CEILING
    assert len([at_s for at_s, _ in road.switches if at_s > fell_s]) == 1
    assert HOLD_S <= road.switches[-1][0] - fell_s <= HOLD_S + 40


def test_a_load_that_rises_right_after_a_switch_up_is_not_waited_out() -> None:
    road = Road()
    road.drive(60, 60.0)
    while road.controller.at != CEILING:
        road.drive(STEP_S, 3.0)
    rose_s = road.now_s
    for tenths in range(200):
        road.drive(STEP_S, min(50.0, 3.0 + tenths * 0.5))
    assert road.controller.at <= 1
    assert road.switches[-1][0] - rose_s < 20
    assert road.backlog_s < OBJECTIVE_S


def test_overload_at_the_floor_teaches_nothing() -> None:
    road = Road()
    road.drive(60, 200.0, late=20)
    assert road.controller.at == FLOOR
    road.backlog_s, fell_s = 0.0, road.now_s
    road.drive(2 * HOLD_S, 3.0)
    assert road.controller.at == CEILING
    assert road.switches[-1][0] - fell_s <= HOLD_S + 50


def test_what_comes_in_bursts_is_judged_by_the_bursts() -> None:
    road = Road()
    for _ in range(20):
        road.drive(15, 60.0)
        road.drive(15, 1.0)
    road.switches.clear()
    for _ in range(20):
        road.drive(15, 60.0)
        road.drive(15, 1.0)
    assert road.switches == []
    assert road.controller.at <= 1


def test_late_answers_that_were_not_foreseen_lead_down_and_make_it_count_on_less() -> None:
    road, other = Road(), Road()
    for each in (road, other):
        each.drive(200, 12.0)
        each.switches.clear()
    for _ in range(9):
        road.drive(STEP_S, 12.0, late=1)
        road.drive(0.9, 12.0)
    assert [at for _, at in road.switches] == [2]
    # Both come from the same point a minute later; one of them takes the load for a heavier one.
    other.controller.at, other.controller._switched_s = 2, other.now_s
    assert other.drive(75, 15.0) == 3
    assert road.drive(75, 15.0) == 2


def test_a_few_late_answers_are_bad_luck() -> None:
    road = Road()
    road.drive(100, 12.0)
    road.switches.clear()
    for _ in range(20):
        road.drive(STEP_S, 12.0, late=1)
        road.drive(20, 12.0)
    assert road.switches == []


def test_images_harder_than_the_measured_ones_count_for_more() -> None:
    easy, hard = Road(), Road()
    assert easy.drive(200, 12.0) == 3
    assert hard.drive(200, 12.0, harder=1.8) == 2


def test_how_much_harder_is_believed_has_a_bound() -> None:
    assert Road().drive(200, 2.0, harder=100.0, backlog_s=0.0) == CEILING


def test_a_range_of_one_point_has_nothing_to_choose() -> None:
    controller = Controller(OBJECTIVE_S, 1)
    for number in range(100):
        look = Look(number * 1.0, 1000, 50, 500, 100.0, 0.07, POINTS[-1:])
        assert controller.decide(look) == 0


def test_a_clock_that_stands_still_moves_nothing() -> None:
    controller = Controller(OBJECTIVE_S, len(POINTS))
    for _ in range(10):
        assert controller.decide(Look(0.0, 10, 0, 0, 0.0, POINTS[CEILING].work_s, POINTS)) == CEILING


@pytest.mark.parametrize("rate_per_s", [5, 10, 16, 25, 40, 60])
def test_under_steady_arrivals_that_scatter_there_is_at_most_one_switch_a_minute(rate_per_s: float) -> None:
    road, numbers = Road(), random.Random(0)
    for _ in range(round(600 / STEP_S)):
        road.drive(STEP_S, sum(numbers.random() < rate_per_s * STEP_S / 100 for _ in range(100)) / STEP_S)
    settled = [at_s for at_s, _ in road.switches if at_s > 15]
    assert most_in_a_minute(settled) <= 1


looks = st.tuples(
    st.integers(0, 200), st.integers(0, 20), st.floats(0.0, 20.0), st.floats(0.0, 0.3), st.floats(0.0, 30.0)
)


@given(st.lists(looks, max_size=200), st.integers(1, len(POINTS)), st.floats(0.01, 5.0))
def test_whatever_it_sees_it_stays_in_its_range_and_goes_up_at_most_once_a_minute(
    seen: list[tuple[int, int, float, float, float]], points: int, objective_s: float
) -> None:
    controller, now_s, last_s = Controller(objective_s, points), 0.0, float("-inf")
    for offered, late, backlog_s, work_s, passed_s in seen:
        now_s += passed_s
        before = controller.at
        inside = round(backlog_s * 30)
        after = controller.decide(Look(now_s, offered, late, inside, backlog_s, work_s, POINTS[:points]))
        assert 0 <= after < points
        if after > before:
            assert now_s - last_s >= HOLD_S
        if after != before:
            last_s = now_s


@settings(max_examples=20)
@given(st.floats(0.1, 100.0))
def test_where_nothing_changes_it_switches_at_most_once_a_minute(rate_per_s: float) -> None:
    road = Road()
    road.drive(180, rate_per_s)
    assert most_in_a_minute([at_s for at_s, _ in road.switches if at_s > 15]) <= 1
