"""The choice of the next batch: every rule a line, and laws that hold for any queues."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.batching import (
    BACKGROUND,
    BACKGROUND_S,
    MERGE_PASSES,
    PATIENCE_S,
    PRIORITY_STEP_S,
    BatchLimits,
    Choice,
    due_s,
    is_over,
    next_batch,
)
from service.engine.costs import StageCosts

NOW = 100.0
# Seconds of a batch: stage 1 gains a little by larger ones, stages 2 and 3 do much; a fourth loses.
COSTS_S = ({1: 0.0115, 3: 0.03}, {1: 0.04, 3: 0.06}, {1: 0.08, 2: 0.0805, 3: 0.12}, {1: 0.02, 3: 0.07})
PASS_S = 0.21


def measured(stages: int = 3, max_batch: int = 3) -> StageCosts:
    costs = StageCosts(stages, max_batch)
    for stage, seconds in enumerate(COSTS_S[:stages], start=1):
        costs.seed(stage, seconds)
    return costs


@dataclass(frozen=True)
class Waiting:
    """A job by name. `age_s` since it arrived, `left_s` until its deadline, `queued_s` since it joined its queue."""

    name: str
    age_s: float = 0.0
    left_s: float | None = None
    priority: int = 5
    done: bool = False
    queued_s: float = 0.0

    @property
    def deadline_s(self) -> float | None:
        return None if self.left_s is None else NOW + self.left_s

    @property
    def due_s(self) -> float:
        return due_s(self.priority, NOW - self.age_s, self.deadline_s)

    @property
    def queued_since_s(self) -> float:
        return NOW - self.queued_s


J = Waiting


def several(names: str, **options: float) -> list[Waiting]:
    return [replace(Waiting(name), **options) for name in names]  # type: ignore[arg-type]  # numbers of any field


def choose(queues: list[list[Waiting]], *, max_batch: int = 3, delay_s: float = 0.0) -> Choice[Waiting]:
    in_order = [sorted(queue, key=lambda job: job.due_s) for queue in queues]
    return next_batch(NOW, in_order, BatchLimits(max_batch, delay_s), measured(max(3, len(queues)), max_batch))


def names(jobs: tuple[Waiting, ...]) -> str:
    return "".join(job.name for job in jobs)


ORDER = [
    ("nothing waits", [[], [], []], 0, ""),
    ("who came first goes first", [[J("b", 1), J("a", 2)], [], []], 1, "ab"),
    ("at most so many", [several("abcde"), [], []], 1, "abc"),
    ("a job that stayed goes before later ones", [[J("b", 1)], [J("a", 2)], []], 2, "a"),
    ("a later one further in waits", [[J("a", 2)], [J("b", 1)], []], 1, "a"),
    ("of two equals the one further in", [[J("a")], [J("b")], []], 2, "b"),
    ("the earlier deadline", [[J("a", 0.1, 1.0), J("b", 0, 0.5)], [], []], 1, "ba"),
    ("the earlier deadline, whatever the stage", [[J("a", 0, 0.9)], [J("b", 0, 1.9)], []], 1, "a"),
    ("a deadline goes before none", [[J("a", 0.1), J("b", 0, 1.0)], [], []], 1, "ba"),
    ("priority before deadline", [[J("a", 0, 0.5)], [J("b", priority=4)], []], 2, "b"),
    ("priority before coming first", [[J("a", 1), J("b", priority=1)], [], []], 1, "ba"),
]

AGING = [
    ("a far deadline counts as patience's end", [[J("a", 1.0, 60.0), J("b")], [], []], 1, "ab"),
    ("long waiting counts as priority", [[J("a", PRIORITY_STEP_S + 1), J("b", priority=4)], [], []], 1, "ab"),
    ("not sooner", [[J("a", PRIORITY_STEP_S - 1), J("b", priority=4)], [], []], 1, "ba"),
    ("even the last priority's turn comes", [[J("b", priority=1)], [J("a", 33, priority=9)], []], 2, "a"),
]

FULLER = [
    ("a full batch deeper in goes first", [several("abc", age_s=1), several("def"), []], 2, "def"),
    ("the deepest of the full ones", [several("abc", age_s=1), several("def"), several("ghi")], 3, "ghi"),
    ("full is what others would only slow down", [[], [], [], several("xyz")], 4, "x"),
    ("nearly as good as full is good enough", [several("abc"), [J("f")], several("gh", age_s=1)], 3, "gh"),
    ("full ones fill up a small one deeper in", [several("abc"), [], [J("g", 1)]], 1, "abc"),
    ("none is full: the most urgent", [several("ab"), [], [J("g", 1)]], 3, "g"),
    (
        "but not for long",
        [several("abc"), [], [J("g", 1, queued_s=MERGE_PASSES * PASS_S)]],
        3,
        "g",
    ),
    (
        "long waiting stops no full one deeper in",
        [several("abc", age_s=1, queued_s=9), several("def"), []],
        2,
        "def",
    ),
    ("a full one of a later priority does not", [several("abc", priority=6), [], [J("g")]], 3, "g"),
    ("nor one that came much later", [several("abc"), [], [J("g", PATIENCE_S)]], 3, "g"),
]

DEADLINES = [
    # Stage 3 takes 80 ms for one, stage 1 takes 30 ms for three.
    ("would be too late behind a full batch", [several("abc", age_s=0.1), [], [J("g", 0.5, 0.1)]], 3, "g"),
    ("has time for a full batch before it", [several("abc", age_s=0.1), [], [J("g", 0.5, 0.2)]], 1, "abc"),
    ("a full one deeper in does not make it late", [[J("a", 0, 0.1)], [], several("ghi")], 1, "a"),
    ("a more urgent one that has time lets it pass", [[J("a", 0, 0.045)], [J("d", 1.99)], []], 1, "a"),
    ("a later priority's deadline does not", [[J("a", 0, 0.1, priority=6)], [J("d")], []], 2, "d"),
    ("both late behind the other: the earlier", [[J("a", 0, 0.045)], [J("d", 0, 0.048)], []], 1, "a"),
    ("a batch stops where it would make one late", [[J("a", 0, 0.025), *several("bcd")], [], []], 1, "ab"),
    ("who would be late in it stays out", [[J("a", 3), J("b", 1, 0.015), J("c", 0)], [], []], 1, "ac"),
    ("who is late anyway goes last", [[J("a", 0, 0.005), J("b")], [], []], 1, "b"),
    ("last, but before nothing", [[J("a", 0, 0.005)], [], []], 1, "a"),
    ("late in any stage", [[J("a", 0, 1.0)], [J("d", 0, 0.03)], []], 1, "a"),
    ("several late ones: the most urgent stage", [[J("a", 0, 0.005)], [J("d", 0, 0.03)], []], 1, "a"),
]

BACKGROUND_WORK = [
    ("waits for any other", [[J("z", 29, priority=BACKGROUND)], [], [J("a", priority=9)]], 3, "a"),
    ("joins no batch of others", [[J("z", 29, priority=BACKGROUND), J("a")], [], []], 1, "a"),
    ("even for those that are late", [[J("z", 5, priority=BACKGROUND)], [J("a", 0, 0.01)], []], 2, "a"),
    ("runs when nothing else waits", [[J("z", priority=BACKGROUND)], [], []], 1, "z"),
    ("the oldest first", [[J("y", 9, priority=BACKGROUND)], [J("z", priority=BACKGROUND)], []], 1, "y"),
    ("the deepest of as old ones", [[J("y", priority=BACKGROUND)], [J("z", priority=BACKGROUND)], []], 2, "z"),
    ("at most so many of it", [several("wxyz", priority=BACKGROUND), [], []], 1, "wxy"),
    ("that waited long joins others", [[J("z", BACKGROUND_S, priority=BACKGROUND), J("a")], [], []], 1, "az"),
    (
        "that waited longer goes first",
        [[J("z", BACKGROUND_S + 5, priority=BACKGROUND)], [J("a", priority=9)], []],
        1,
        "z",
    ),
]


RULES = [*ORDER, *AGING, *FULLER, *DEADLINES, *BACKGROUND_WORK]


@pytest.mark.parametrize(("rule", "queues", "stage", "jobs"), RULES, ids=[rule for rule, *_ in RULES])
def test_rule(rule: str, queues: list[list[Waiting]], stage: int, jobs: str) -> None:
    choice = choose(queues)
    assert (choice.stage, names(choice.jobs), choice.dropped) == (stage, jobs, ()), rule


@pytest.mark.parametrize(
    ("rule", "queues", "stage", "jobs", "dropped"),
    [
        ("answered or left", [[J("a", done=True)], [J("b")], []], 2, "b", "a"),
        ("its deadline has passed", [[J("a", 1, 0.0)], [J("b", 5, 1.0)], []], 2, "b", "a"),
        ("of every stage", [[J("a", done=True)], [J("b", done=True)], [J("c", 1, -1.0)]], 0, "", "abc"),
        ("none takes another's place", [[J("a", 3, done=True), *several("bcd")], [], []], 1, "bcd", "a"),
        ("background work too", [[J("z", done=True, priority=BACKGROUND)], [], []], 0, "", "z"),
    ],
)
def test_who_needs_no_answer_any_more_is_dropped(
    rule: str, queues: list[list[Waiting]], stage: int, jobs: str, dropped: str
) -> None:
    choice = choose(queues)
    assert (choice.stage, names(choice.jobs), names(choice.dropped)) == (stage, jobs, dropped), rule


@pytest.mark.parametrize(
    ("rule", "queues", "stage", "jobs", "wake_in_s"),
    [
        ("a small batch waits for company", [[J("a", queued_s=0.3)], [], []], 0, "", 0.2),
        ("as long as its oldest has", [[J("a", queued_s=0.3), J("b", 1, queued_s=0.1)], [], []], 0, "", 0.2),
        ("then it goes", [[J("a", queued_s=0.5)], [], []], 1, "a", None),
        ("a full one goes at once", [several("abc"), [], []], 1, "abc", None),
        ("those further in do not wait", [[J("a", 1)], [J("b")], []], 2, "b", None),
        ("no longer than its deadline allows", [[J("a", 0, 0.1115)], [], []], 0, "", 0.1),
    ],
)
def test_a_delay_lets_the_first_stage_wait_for_fuller_batches(
    rule: str, queues: list[list[Waiting]], stage: int, jobs: str, wake_in_s: float | None
) -> None:
    choice = choose(queues, delay_s=0.5)
    assert (choice.stage, names(choice.jobs)) == (stage, jobs), rule
    assert choice.wake_s == (None if wake_in_s is None else pytest.approx(NOW + wake_in_s)), rule


def test_without_measured_costs_no_job_counts_as_late() -> None:
    queues = [[Waiting("a", 0, 1e-6), Waiting("b")], [], []]
    choice = next_batch(NOW, queues, BatchLimits(3), StageCosts(3, 3))
    assert names(choice.jobs) == "ab"


@given(st.integers(1, 8), st.floats(0, 50), st.none() | st.floats(0, 100), st.none() | st.floats(0, 100))
def test_a_newcomer_goes_before_every_newcomer_of_a_later_priority(
    priority: int, arrived_s: float, own: float | None, other: float | None
) -> None:
    own_s, other_s = (None if left_s is None else arrived_s + left_s for left_s in (own, other))
    assert due_s(priority, arrived_s, own_s) <= due_s(priority + 1, arrived_s, other_s)


@given(st.floats(0, 50), st.none() | st.floats(0, 100))
def test_background_work_is_due_after_all_who_come_until_its_time_is_over(
    arrived_s: float, left_s: float | None
) -> None:
    deadline_s = None if left_s is None else arrived_s + left_s
    assert due_s(BACKGROUND, 0.0, 1.0) > due_s(BACKGROUND - 1, min(arrived_s, BACKGROUND_S), deadline_s)


def waiting() -> st.SearchStrategy[Waiting]:
    return st.builds(
        Waiting,
        name=st.just("x"),
        age_s=st.floats(0, 10),
        left_s=st.none() | st.floats(-0.1, 0.5),
        priority=st.integers(1, 6) | st.just(BACKGROUND),
        done=st.booleans(),
        queued_s=st.floats(0, 1),
    )


queue_lists = st.lists(st.lists(waiting(), max_size=7), min_size=3, max_size=3)


@given(queue_lists, st.integers(3, 5))
def test_it_always_runs_something_and_never_what_is_over(queues: list[list[Waiting]], max_batch: int) -> None:
    choice = choose(queues, max_batch=max_batch)
    everyone = [job for queue in queues for job in queue]
    live = [job for job in everyone if not is_over(job, NOW)]
    assert bool(choice.jobs) == bool(live)
    assert all(is_over(job, NOW) for job in choice.dropped)
    assert len(set(map(id, choice.dropped))) == len(choice.dropped)
    taken = set(map(id, choice.jobs))
    assert len(taken) == len(choice.jobs) <= max_batch
    if choice.jobs:
        assert taken <= {id(job) for job in queues[choice.stage - 1] if job in live}


@given(queue_lists)
def test_who_can_meet_its_deadline_does_so_in_the_batch_that_it_is_in(queues: list[list[Waiting]]) -> None:
    choice = choose(queues)
    costs = measured()
    if not choice.jobs or choice.jobs[0].priority == BACKGROUND:
        return
    able = [job for job in choice.jobs if job.left_s is None or job.left_s >= costs.seconds(choice.stage, 1)]
    assert len(able) in (0, len(choice.jobs)), "a batch of both kinds"
    for job in able:
        assert job.left_s is None or job.left_s >= costs.seconds(choice.stage, len(choice.jobs)) - 1e-9


@given(queue_lists)
def test_background_work_never_delays_other_work(queues: list[list[Waiting]]) -> None:
    choice = choose(queues)
    live = [job for queue in queues for job in queue if not is_over(job, NOW)]
    if any(job.priority != BACKGROUND for job in live):
        assert all(job.priority != BACKGROUND for job in choice.jobs)


@given(queue_lists)
def test_nothing_runs_before_what_is_due_much_earlier(queues: list[list[Waiting]]) -> None:
    """The bound behind "nobody waits for ever": who is passed over, is so only by what is due soon after it."""
    choice = choose(queues)
    costs = measured()
    able = [
        job
        for stage, queue in enumerate(queues, start=1)
        for job in queue
        if not is_over(job, NOW) and (job.left_s is None or job.left_s >= costs.seconds(stage, 1))
    ]
    if able and choice.jobs:
        assert choice.jobs[0].due_s <= min(job.due_s for job in able) + PATIENCE_S
