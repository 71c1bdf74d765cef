"""What computes, as the rest of the service sees it: one scheduler, or those of several devices as one."""

from collections.abc import Sequence
from typing import Protocol

from models.preprocess import Pixels
from service.backends.base import Slot
from service.engine.costs import Lanes
from service.engine.job import Job
from service.engine.kept import Work
from service.engine.warmup import WarmUpStep
from service.engine.watch import Running


class Engine(Protocol):
    """Answers every submitted job exactly once, whatever happens. All of it may be used by any thread."""

    @property
    def alive(self) -> bool:
        """Whether it works, or will as soon as it is warm."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it takes jobs: alive, and every stage is warm, everywhere."""
        ...

    @property
    def warming(self) -> WarmUpStep | None:
        """How far the warm-up is; None once it is over."""
        ...

    @property
    def failure(self) -> str | None:
        """Why it is lost, where it is."""
        ...

    @property
    def slots(self) -> int:
        """Images that can be inside at once."""
        ...

    @property
    def lanes(self) -> tuple[Lanes, ...]:
        """By device."""
        ...

    @property
    def running(self) -> Sequence[Running]:
        """The batches in work, at most one a lane."""
        ...

    @property
    def waiting(self) -> Sequence[int]:
        """Images before each stage."""
        ...

    def start(self) -> None: ...

    def submit(self, job: Job, pixels: Pixels | None = None) -> None:
        """Hand over a job that has its permit, with its image (3, S, S); without one where it goes on with what was
        claimed."""
        ...

    def claim(self, work: Work) -> Slot | None:
        """The state of a work, for a job that goes on with it and has its permit; None where that is gone, or somebody
        else does. Who has it must `submit` that job."""
        ...

    def notice_done(self) -> None:
        """Some jobs were answered elsewhere, or their clients have left: let go of them before the next batch."""
        ...

    def work_s(self, images: int) -> float:
        """About how long it takes until so many images, with those that wait among them, are done."""
        ...

    def stop(self, timeout_s: float | None = None) -> None:
        """End after the present batches; what is left is answered with an error. For use after a drain."""
        ...

    def give_up(self, failure: str | None = None) -> None:
        """Answer everybody now: what computes will not come back (`failure` says why), or time is up."""
        ...
