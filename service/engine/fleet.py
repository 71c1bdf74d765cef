"""Several devices as one engine: a scheduler each, and an image that comes goes to where it will be done first.

State never goes from device to device: who goes on with what is kept goes where that is. Each device has a count of the
slots that are promised there, from when an image is sent to it until it holds nothing there, and is sent no more than
it has. Whoever is sent has a permit or is an audit with a place, and there are no more of those than all slots together
(`build_service` sees to that), so one device or another always has a slot left for the next.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from models.preprocess import Pixels
from service.backends.base import Slot
from service.engine.costs import Lanes, together_s
from service.engine.job import Job
from service.engine.kept import KeptWork, Work
from service.engine.scheduler import Scheduler
from service.engine.warmup import WarmUpStep
from service.engine.watch import Running
from service.errors import NotReadyError


@dataclass(eq=False)
class _Device:
    """`promised`: slots of it that jobs hold or are on their way to; at most `scheduler.slots`."""

    scheduler: Scheduler
    promised: int = 0

    @property
    def has_room(self) -> bool:
        return not self.scheduler.stopped and self.promised < self.scheduler.slots


class Fleet:
    """Of schedulers that share `kept`, in the order of its devices. It is alive while each of them is: when one is
    lost, all of it is."""

    def __init__(self, schedulers: Sequence[Scheduler], kept: KeptWork) -> None:
        self.schedulers = tuple(schedulers)
        self._kept = kept
        self._devices = [_Device(scheduler) for scheduler in schedulers]
        self._lock = threading.Lock()
        self._next = 0

    @property
    def alive(self) -> bool:
        return all(scheduler.alive for scheduler in self.schedulers)

    @property
    def ready(self) -> bool:
        return all(scheduler.ready for scheduler in self.schedulers)

    @property
    def warming(self) -> WarmUpStep | None:
        """Of the device that is behind the others."""
        steps = [step for scheduler in self.schedulers if (step := scheduler.warming) is not None]
        return min(steps, key=lambda step: step.number, default=None)

    @property
    def failure(self) -> str | None:
        return next((failure for scheduler in self.schedulers if (failure := scheduler.failure) is not None), None)

    @property
    def slots(self) -> int:
        return sum(scheduler.slots for scheduler in self.schedulers)

    @property
    def lanes(self) -> tuple[Lanes, ...]:
        return tuple(lanes for scheduler in self.schedulers for lanes in scheduler.lanes)

    @property
    def running(self) -> tuple[Running, ...]:
        return tuple(batch for scheduler in self.schedulers for batch in scheduler.running)

    @property
    def waiting(self) -> list[int]:
        return [sum(images) for images in zip(*(scheduler.waiting for scheduler in self.schedulers), strict=True)]

    def start(self) -> None:
        """All at once, so that they warm up side by side."""
        for scheduler in self.schedulers:
            scheduler.start()

    def submit(self, job: Job, pixels: Pixels | None = None) -> None:
        if pixels is None:
            assert job.work is not None, "only kept work can be gone on with"
            device = self._devices[job.work.device]  # Its slot there was promised when it was claimed.
        elif (found := self._promise_quickest(job)) is None:
            job.close(NotReadyError("the engine has stopped; try again in a moment", retry_after_s=5))
            return
        else:
            device = found
        job.vacate = partial(self._vacate, device)
        device.scheduler.submit(job, pixels)

    def claim(self, work: Work) -> Slot | None:
        device = self._devices[work.device]
        with self._lock:
            has_room = device.has_room
            device.promised += has_room
        if not has_room:
            # As many slots are promised as there are, this one among them, to somebody who is on his way.
            self._kept.make_way(work)
            return None
        slot = self._kept.claim(work)
        if slot is None:
            self._vacate(device)
        return slot

    def notice_done(self) -> None:
        for scheduler in self.schedulers:
            scheduler.notice_done()

    def work_s(self, images: int) -> float:
        """As if all devices shared what is there evenly, which by the way that images are sent they nearly do."""
        each_s = [lanes.newcomer_s for lanes in self.lanes]
        waiting = [sum(scheduler.waiting) for scheduler in self.schedulers]
        if not all(each_s):
            return 0.0
        # By device, what waits there in newcomers' worth.
        worth = [
            scheduler.work_s(there) / seconds
            for scheduler, there, seconds in zip(self.schedulers, waiting, each_s, strict=True)
        ]
        return (sum(worth) + max(0, images - sum(waiting))) * together_s(each_s)

    def stop(self, timeout_s: float | None = None) -> None:
        for scheduler in self.schedulers:
            scheduler.begin_to_stop()
        for scheduler in self.schedulers:
            scheduler.stop(timeout_s)

    def give_up(self, failure: str | None = None) -> None:
        for scheduler in self.schedulers:
            scheduler.give_up(failure)

    def _promise_quickest(self, job: Job) -> _Device | None:
        """The device that would be done with all that is promised there and this job soonest, by turns among equals;
        a slot there is promised to the job. None where every device with room is lost."""
        count = len(self._devices)
        with self._lock:
            open_ = [number for number, device in enumerate(self._devices) if device.has_room]
            if not open_:
                assert any(device.scheduler.stopped for device in self._devices), "more images were let in than fit"
                return None

            def until_done(number: int) -> tuple[float, int, int]:
                device = self._devices[number]
                return device.scheduler.work_s(device.promised + 1), device.promised, (number - self._next) % count

            number = min(open_, key=until_done)
            self._next = (number + 1) % count
            device = self._devices[number]
            device.promised += 1
        if job.work is not None:
            job.work.device = number
        return device

    def _vacate(self, device: _Device) -> None:
        with self._lock:
            device.promised -= 1
