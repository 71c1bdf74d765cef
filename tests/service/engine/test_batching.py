"""The choice of the next batch: every rule a line, and laws that hold for any queues."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.batching import BatchLimits, is_over, next_batch, urgency

NOW = 100.0


@dataclass(frozen=True)
class Waiting:
    name: str
    arrived_s: float = 0.0
    deadline_s: float | None = None
    priority: int = 5
    done: bool = False


def names(jobs: tuple[Waiting, ...]) -> str:
    return "".join(job.name for job in jobs)


@pytest.mark.parametrize(
    ("rule", "queues", "stage", "jobs", "dropped"),
    [
        ("nothing waits", [[], []], 0, "", ""),
        ("who came first goes first", [[Waiting("b", 2), Waiting("a", 1)], []], 1, "ab", ""),
        ("a job that stayed goes before later ones", [[Waiting("b", 2)], [Waiting("a", 1)]], 2, "a", ""),
        ("a later one further in waits", [[Waiting("a", 1)], [Waiting("b", 2)]], 1, "a", ""),
        ("of two equals the one further in", [[Waiting("a", 1)], [Waiting("b", 1)]], 2, "b", ""),
        ("a deadline goes before none", [[Waiting("a", 1)], [Waiting("b", 2, NOW + 9)]], 2, "b", ""),
        ("the earlier deadline", [[Waiting("a", 1, NOW + 9), Waiting("b", 2, NOW + 1)], []], 1, "ba", ""),
        ("priority before deadline", [[Waiting("a", 1, NOW + 1)], [Waiting("b", 2, priority=1)]], 2, "b", ""),
        ("at most so many", [[Waiting(name, 1) for name in "abcde"], []], 1, "abc", ""),
        ("done ones are dropped", [[Waiting("a", done=True)], [Waiting("b", 5)]], 2, "b", "a"),
        ("late ones are dropped", [[Waiting("a", 1, NOW)], [Waiting("b", 5, NOW + 1)]], 2, "b", "a"),
        ("only dropped ones", [[Waiting("a", done=True)], []], 0, "", "a"),
    ],
)
def test_rule(rule: str, queues: list[list[Waiting]], stage: int, jobs: str, dropped: str) -> None:
    choice = next_batch(NOW, queues, BatchLimits(max_batch=3))
    assert (choice.stage, names(choice.jobs), names(choice.dropped)) == (stage, jobs, dropped)


def waiting() -> st.SearchStrategy[Waiting]:
    return st.builds(
        Waiting,
        name=st.just("x"),
        arrived_s=st.floats(0, NOW),
        deadline_s=st.none() | st.floats(NOW - 5, NOW + 5),
        priority=st.integers(1, 9),
        done=st.booleans(),
    )


@given(st.lists(st.lists(waiting(), max_size=6), min_size=1, max_size=4), st.integers(1, 5))
def test_no_job_is_lost_or_doubled_and_none_more_urgent_is_passed_over(
    queues: list[list[Waiting]], max_batch: int
) -> None:
    choice = next_batch(NOW, queues, BatchLimits(max_batch))
    everyone = [job for queue in queues for job in queue]
    live = [job for job in everyone if not is_over(job, NOW)]
    assert sorted(map(id, choice.dropped)) == sorted(id(job) for job in everyone if is_over(job, NOW))
    assert bool(choice.jobs) == bool(live)
    if not live:
        return
    queue = queues[choice.stage - 1]
    taken = {id(job) for job in choice.jobs}
    assert len(taken) == len(choice.jobs) <= max_batch
    assert taken <= {id(job) for job in queue if not is_over(job, NOW)}
    assert min(map(urgency, choice.jobs)) == min(map(urgency, live))
    left = [job for job in queue if not is_over(job, NOW) and id(job) not in taken]
    assert not left or len(choice.jobs) == max_batch
    assert all(urgency(job) >= max(map(urgency, choice.jobs)) for job in left)
