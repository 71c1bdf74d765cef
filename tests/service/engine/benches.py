"""A running engine around a scripted backend, or several, which collects what is answered."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from models.policy import ExitMeasure
from service.engine.batching import BatchLimits
from service.engine.draws import Draw
from service.engine.engine import Engine
from service.engine.fleet import Fleet
from service.engine.guard import DeepGuard
from service.engine.job import Job, Outcome
from service.engine.kept import KEEP_NOTHING, KeptLimits, KeptWork, Work
from service.engine.scheduler import Scheduler
from service.metrics import Metrics
from service.types import Answer, ExitRule
from tests.service.cascades import SIZE_PX, FakeBackend, Script, quiet_log, wait_until


@dataclass
class Bench:
    """Jobs by number. The clock, `now_s`, is turned by hand. With `others` the engine is a fleet."""

    backend: FakeBackend
    max_batch: int = 8
    delay_s: float = 0.0
    warm_px: int | None = None
    stall_s: float = 10.0
    guard: DeepGuard | None = None
    keeps: KeptLimits | None = None
    others: tuple[FakeBackend, ...] = ()
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)
    released: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.now_s = 0.0
        exits = self.backend.stages
        self.metrics = Metrics("fake", "0", exits)
        self.backends = (self.backend, *self.others)
        self.kept = KeptWork(
            self.keeps or KEEP_NOTHING,
            exits=exits,
            clock=lambda: self.now_s,
            metrics=self.metrics,
            devices=len(self.backends),
        )
        self.schedulers = [
            Scheduler(
                backend,
                ExitMeasure("max_softmax", (1.0,) * exits),
                BatchLimits(self.max_batch, self.delay_s),
                clock=lambda: self.now_s,
                metrics=self.metrics,
                log=quiet_log(),
                warm_px=self.warm_px,
                stall_s=self.stall_s,
                guard=self.guard,
                kept=self.kept,
                device=number,
                device_name=f"fake:{number}" if self.others else "",
            )
            for number, backend in enumerate(self.backends)
        ]
        self.scheduler = self.schedulers[0]
        self.engine: Engine = Fleet(self.schedulers, self.kept) if self.others else self.scheduler
        self.rule = ExitRule((0.9,) * (exits - 1), exits)

    def job(
        self,
        number: int,
        *,
        rule: ExitRule | None = None,
        deadline_s: float | None = None,
        priority: int = 5,
        owner: str = "",
        classes: int = 1,
        draw: Draw | None = None,
        work: Work | None = None,
    ) -> Job:
        self.outcomes[number] = []
        return Job(
            rule or self.rule,
            arrived_s=float(number),
            deadline_s=deadline_s,
            priority=priority,
            owner=owner,
            classes=classes,
            draw=draw,
            work=work or self.kept.begin(None),
            deliver=self.outcomes[number].append,
            released=lambda: self.released.update([number]),
        )

    def submit(self, number: int, kind: int, **options: object) -> Job:
        job = self.job(number, **options)  # type: ignore[arg-type]  # passed on as they came
        self.engine.submit(job, np.full((3, SIZE_PX, SIZE_PX), kind, np.uint8))
        return job

    def resume(self, number: int, work: Work, **options: object) -> Job:
        job = self.job(number, work=work, **options)  # type: ignore[arg-type]  # passed on as they came
        slot = self.engine.claim(work)
        assert slot is not None, "there is no state to go on from"
        job.resume(slot, work.exits[-1])
        self.engine.submit(job)
        return job

    def wait(self) -> None:
        wait_until(lambda: all(self.released[number] for number in self.outcomes))

    def outcome(self, number: int) -> Outcome:
        (outcome,) = self.outcomes[number]
        return outcome

    def answer(self, number: int) -> Answer:
        outcome = self.outcome(number)
        assert isinstance(outcome, Answer)
        return outcome


# Those that `bench` made in the present test, for `conftest.every_engine_ends_empty`.
made_in_this_test: list[Bench] = []


def bench(
    script: Script,
    *,
    max_batch: int = 8,
    delay_s: float = 0.0,
    start: bool = True,
    guard: DeepGuard | None = None,
    keeps: KeptLimits | None = None,
    devices: int = 1,
    warm_px: int | None = None,
    **backend: object,
) -> Bench:
    """One whose engine is stopped and looked over when the test is done."""
    first, *others = (
        FakeBackend(script, **backend)  # type: ignore[arg-type]  # passed on as they came
        for _ in range(devices)
    )
    made = Bench(first, max_batch, delay_s, warm_px, guard=guard, keeps=keeps, others=tuple(others))
    if start:
        made.engine.start()
    made_in_this_test.append(made)
    return made
