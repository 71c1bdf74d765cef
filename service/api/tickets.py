"""One image of a request on its way: decoded in a thread, handed to the engine, answered by whoever is first."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Request

from models.preprocess import Pixels
from service.api.body import ImageInput
from service.api.deps import Service
from service.decode import decode
from service.engine.catalogue import Resolved
from service.engine.draws import Draw
from service.engine.exits import deadline_outcome
from service.engine.job import Job, Outcome
from service.errors import ClientClosedError, InternalError, NotReadyError, ServiceError
from service.types import ExitRule


@dataclass(frozen=True)
class Order:
    """How the images of one request are to be treated. `by_budget`: whether they leave by the budget, so that what is
    promised of it is promised of them."""

    rule: ExitRule
    resolved: Resolved
    by_budget: bool
    revision: int
    operating_point: int
    top_k: int
    priority: int
    owner: str
    arrived_s: float
    deadline_s: float | None


class Ticket:
    """One image in the making: its job, the future that its outcome arrives in, when it did, and how long decoding
    took. `data`: its file, or its pixels, of which there is nothing to decode."""

    def __init__(self, service: Service, order: Order, data: bytes | Pixels) -> None:
        self._service = service
        self._data = data
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Outcome] = self._loop.create_future()
        self.decode_s = 0.0
        self.ended_s = 0.0
        self.draw = service.audit.draw(order.resolved.thresholds) if order.by_budget else None
        self.job = Job(
            order.rule,
            arrived_s=order.arrived_s,
            deadline_s=order.deadline_s,
            priority=order.priority,
            owner=order.owner,
            deliver=self._deliver,
            released=service.admission.release,
            draw=self.draw,
        )

    def start(self) -> None:
        try:
            self._service.decoders.submit(self._decode)
        except RuntimeError:  # The pool was shut down.
            self._refuse(NotReadyError("the service is shutting down; try again in a moment"))

    def expire(self) -> None:
        """Its deadline has passed: the best exit so far is the answer."""
        if self.job.finish(deadline_outcome(self.job)):
            self._service.scheduler.notice_done()

    def leave(self) -> None:
        """Nobody waits for it any more. Of no effect where it was answered."""
        if self.job.abandon():
            self._service.scheduler.notice_done()

    def _decode(self) -> None:
        """In a decoding thread: to pixels, then on to the engine."""
        service = self._service
        if self.job.done:
            self.job.release()
            return
        started_s = service.clock()
        try:
            data = self._data
            pixels = data if isinstance(data, np.ndarray) else decode(data, service.model.config.input, service.limits)
        except ServiceError as error:
            self._refuse(error)
            return
        except Exception:
            service.log.exception("decoding failed by a bug")
            self._refuse(InternalError("a bug in the service kept this image from being decoded"))
            return
        finally:
            self._data = b""
        self.decode_s = service.clock() - started_s
        service.scheduler.submit(self.job, pixels)

    def _refuse(self, error: ServiceError) -> None:
        self.job.close(error)

    def _deliver(self, outcome: Outcome) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            return  # The event loop has ended, and with it everybody who could have been waiting.

    def _settle(self, outcome: Outcome) -> None:
        if not self.future.done():
            self.ended_s = self._service.clock()
            self.future.set_result(outcome)


@dataclass(frozen=True)
class Finished:
    """How one image ended, after so long since its request came, how long its decoding took, and its audit."""

    outcome: Outcome
    total_s: float
    decode_s: float
    draw: Draw | None = None


async def finish_all(service: Service, order: Order, images: Sequence[ImageInput]) -> list[Finished]:
    """How every image ended, in order. Raises `OverloadedError` when there is no room for all of them."""
    whole = [image for image in images if not isinstance(image, ServiceError)]
    service.admission.acquire(len(whole))
    tickets = [None if isinstance(image, ServiceError) else Ticket(service, order, image) for image in images]
    inside = [ticket for ticket in tickets if ticket is not None]
    timer = None
    if order.deadline_s is not None:
        remaining_s = max(0.0, order.deadline_s - service.clock())
        timer = asyncio.get_running_loop().call_later(remaining_s, _expire, inside)
    try:
        for started in inside:
            started.start()
        finished = []
        for image, ticket in zip(images, tickets, strict=True):
            if ticket is not None:
                outcome = await ticket.future
                total_s = ticket.ended_s - order.arrived_s
                finished.append(Finished(outcome, total_s, ticket.decode_s, ticket.draw))
            else:
                assert isinstance(image, ServiceError)
                finished.append(Finished(image, 0.0, 0.0))
        return finished
    finally:
        if timer is not None:
            timer.cancel()
        for left in inside:
            left.leave()


def _expire(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.expire()


async def until_gone(request: Request, work: Coroutine[Any, Any, list[Finished]]) -> list[Finished]:
    """The outcome of `work`, unless the client leaves first: then it is cancelled. Raises `ClientClosedError`."""
    own = asyncio.current_task()
    assert own is not None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = True
        own.cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and own.uncancel() == 0:
            raise ClientClosedError("the client left before its answer") from None
        raise
    finally:
        watcher.cancel()
