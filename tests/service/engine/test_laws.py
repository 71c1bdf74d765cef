"""The laws of the engine on one device, on any course of events (`courses.py`)."""

import gc
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.batching import BACKGROUND, BACKGROUND_S, PATIENCE_S, PRIORITY_STEP_S, due_s
from service.engine.job import Job
from service.types import ExitRule
from tests.service.engine.courses import (
    EXITS,
    STAGE_S,
    Course,
    drawn_events,
    events,
    finish_by_the_law,
    happen,
    refined_events,
    rules,
)


@given(
    st.tuples(events | drawn_events, st.booleans()) | st.tuples(refined_events, st.just(True)),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from((0.0, 0.03)),
    st.integers(0, 3),
)
def test_every_job_let_in_ends_exactly_once_by_its_own_rule_and_leaves_nothing_behind(
    course_of_events: tuple[list[tuple[str, ...]], bool], images: int, max_batch: int, delay_s: float, places: int
) -> None:
    happenings, keeps = course_of_events
    course = Course(images, max_batch, delay_s, places, keeps)
    for happening in happenings:
        happen(course, *happening)
    finish_by_the_law(course)


newcomers = st.lists(
    st.lists(st.tuples(st.integers(1, 29), st.integers(1, 9), st.none() | st.floats(0.05, 3.0)), max_size=4),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(newcomers, st.integers(1, 9), st.integers(1, 4))
def test_no_job_waits_for_ever_however_urgent_those_are_that_keep_coming(
    waves: list[list[tuple[int, int, float | None]]], priority: int, max_batch: int
) -> None:
    """The same waves of others come again and again, for as long as the job is inside.

    Once the time at which it is due, and patience with it, have passed, nobody who comes goes before it; those who are
    inside by then each take at most a round a stage. That bounds its rounds.
    """
    images = 8
    course = Course(images, max_batch)
    rule = ExitRule((0.9,) * (EXITS - 1), EXITS)
    job = course.arrive(25, rule, priority, None)
    assert job is not None
    latest_newcomer_s = due_s(priority, course.now_s, None) - due_s(1, 0.0, 0.0) + PATIENCE_S
    # No round is shorter than the quickest batch; the job itself has three stages to go.
    bound = int((latest_newcomer_s - course.now_s) / STAGE_S[0]) + EXITS * (EXITS * images + 1)
    rounds = 0
    while not job.done:
        for kind, other, left_s in waves[rounds % len(waves)]:
            course.arrive(kind, rule, other, left_s)
        course.step()
        rounds += 1
        assert rounds <= bound, f"not run within {bound} rounds"
    course.finish()


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 4))
def test_an_audit_stands_back_for_all_others_but_not_for_ever(priority: int, max_batch: int) -> None:
    """Others come all the time; it waits for as long as background work does, then like any other of its priority."""
    course = Course(8, max_batch, places=1)
    rule = ExitRule((0.9,) * (EXITS - 1), EXITS)
    drawn = course.arrive(1, rule, 5, None, is_drawn=True)
    assert drawn is not None
    course.step()
    (draw,) = course.draws.values()
    assert (drawn.done, draw.has_ended) == (True, False)
    answered_s = course.now_s
    # As far as a priority is worth waiting, and the time of those who were inside by then.
    bound_s = BACKGROUND_S + PRIORITY_STEP_S * (BACKGROUND - priority) + 8 * EXITS * sum(STAGE_S)
    while not draw.has_ended:
        for kind in (1, 15, 25):
            course.arrive(kind, rule, priority, None)
        course.step()
        assert course.now_s <= answered_s + bound_s, "it starved"
    assert course.now_s > answered_s + BACKGROUND_S, "it went before others"
    course.finish()


@given(st.lists(st.tuples(st.integers(1, 29), rules, st.booleans()), min_size=1, max_size=20), st.integers(0, 1))
def test_one_job_at_a_time_is_enough_memory_for_everything(work: list[tuple[int, ExitRule, bool]], places: int) -> None:
    course = Course(images=1, max_batch=8, places=places)
    for kind, rule, is_drawn in work:
        before = len(course.jobs)
        for _ in range(EXITS + 1):
            if course.arrive(kind, rule, 5, None, is_drawn) is not None:
                break
            course.step()
        assert len(course.jobs) == before + 1, "an audit has kept a newcomer out"
    course.finish()
    assert all(len(outcomes) == 1 for outcomes in course.outcomes)
    assert all(draw.found in ("agreed", "disagreed") for draw in course.draws.values())


def test_overload_leaves_no_trace() -> None:
    """What is refused or answered is not held on to by anybody."""
    course = Course(4, 2)
    gone: list[weakref.ref[Job]] = []
    for number in range(400):
        job = course.arrive(number % 29 + 1, ExitRule((0.9,) * (EXITS - 1), EXITS), number % 9 + 1, None)
        if job is not None:
            gone.append(weakref.ref(job))
        if number % 5 == 0:
            course.step()
    course.finish()
    assert course.refused > 100
    course.jobs.clear()
    job = None
    gc.collect()
    assert [reference for reference in gone if reference() is not None] == []
