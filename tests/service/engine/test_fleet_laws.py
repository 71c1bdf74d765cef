"""The laws of several devices, on any course of events: none is promised more than it has, state stays where it is, and
who is inside when one is lost is answered all the same."""

from hypothesis import event, given
from hypothesis import strategies as st

from service.engine.fleet import Fleet
from service.errors import NotReadyError
from tests.service.engine.courses import (
    Course,
    drawn_events,
    events,
    finish_by_the_law,
    happen,
    scattered_events,
)

slots_by_device = st.lists(st.integers(1, 4), min_size=2, max_size=3)
any_events = (
    st.tuples(events, st.booleans())
    | st.tuples(drawn_events, st.booleans())
    | st.tuples(scattered_events, st.just(True))
)


def several(slots: list[int], max_batch: int, places: int, *, keeps: bool) -> Course:
    """With fewer places for audits than slots, as a service has."""
    places = min(places, sum(slots) - 1)
    return Course(sum(slots) - places, max_batch, 0.0, places, keeps, more_slots=tuple(slots[1:]))


def check_promises(course: Course) -> None:
    assert isinstance(course.engine, Fleet)
    for device, backend in zip(course.engine._devices, course.backends, strict=True):
        assert 0 <= device.promised <= backend.slots, "a device was promised more than it has"
        in_hand = backend.slots_in_use - course.kept._resting[backend.number].slots
        assert in_hand <= device.promised, "a job holds a slot that nobody has counted"


@given(any_events, slots_by_device, st.integers(1, 5), st.integers(0, 3))
def test_no_device_overflows_and_every_job_ends_once_by_its_own_rule_where_its_state_is(
    course_of_events: tuple[list[tuple[str, ...]], bool], slots: list[int], max_batch: int, places: int
) -> None:
    happenings, keeps = course_of_events
    course = several(slots, max_batch, places, keeps=keeps)
    for happening in happenings:
        happen(course, *happening)
        check_promises(course)
    finish_by_the_law(course)
    assert isinstance(course.engine, Fleet)
    assert [device.promised for device in course.engine._devices] == [0] * len(slots)
    event(f"devices at work {sum(bool(backend.batches) for backend in course.backends)}, resumed {course.resumed > 0}")


@given(any_events, any_events, slots_by_device, st.integers(0, 2), st.integers(1, 4))
def test_when_a_device_is_lost_all_inside_are_answered_once_and_nobody_is_sent_there(
    before: tuple[list[tuple[str, ...]], bool],
    after: tuple[list[tuple[str, ...]], bool],
    slots: list[int],
    lost: int,
    max_batch: int,
) -> None:
    course = several(slots, max_batch, 1, keeps=True)
    lost %= len(slots)
    for happening in before[0]:
        happen(course, *happening)
    assert isinstance(course.engine, Fleet)
    course.schedulers[lost].give_up("lost")
    assert (course.engine.failure, course.engine.alive) == ("lost", False)
    batches = len(course.backends[lost].batches)
    course.lost = lost
    for happening in after[0]:
        sent = len(course.jobs)
        has_room = any(device.has_room for device in course.engine._devices)
        happen(course, *happening)
        refused = [each for outcomes in course.outcomes[sent:] for each in outcomes if isinstance(each, NotReadyError)]
        assert not (has_room and refused), "somebody was sent to the lost one"
    for _ in range(20 * len(course.jobs) + 20):
        for device in range(len(slots)):
            course.step(device)
        course.now_s += 0.001
    assert len(course.backends[lost].batches) == batches
    assert all(job.done for job in course.jobs), "somebody waits for ever"
    assert all(len(outcomes) <= 1 for outcomes in course.outcomes), "a job was answered twice"
    assert all(released <= 1 for released in course.released)
