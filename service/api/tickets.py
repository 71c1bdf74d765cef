"""One image of a request on its way: decoded in a thread, handed to the engine, answered by whoever is first."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request

from service.api.body import ImageInput
from service.api.deps import Service
from service.api.mailbox import Mailbox
from service.decode import decode
from service.engine.catalogue import Resolved
from service.engine.draws import Draw
from service.engine.exits import deadline_outcome
from service.engine.job import Job, Outcome
from service.errors import ClientClosedError, InternalError, NotReadyError, ServiceError
from service.types import ExitRule, ExitTaken

T = TypeVar("T")


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


@dataclass(frozen=True)
class Reached:
    """Image `index` of a request has come to an exit, so long after the request; its rule has it leave there or not."""

    index: int
    exit: ExitTaken
    leaves: bool
    elapsed_s: float


@dataclass(frozen=True)
class Finished:
    """How image `index` ended, so long after its request came, how long its decoding took, and its audit."""

    index: int
    outcome: Outcome
    total_s: float = 0.0
    decode_s: float = 0.0
    draw: Draw | None = None


News = Reached | Finished


class Ticket:
    """One image in the making. `post` takes its news, from any thread: exits where `tells_exits`, then how it ended."""

    def __init__(
        self,
        service: Service,
        order: Order,
        index: int,
        data: bytes,
        post: Callable[[News], None],
        *,
        tells_exits: bool,
    ) -> None:
        self._service = service
        self._arrived_s = order.arrived_s
        self._index = index
        self._data = data
        self._post = post
        self._decode_s = 0.0
        self._draw = service.audit.draw(order.resolved.thresholds) if order.by_budget else None
        self._job = Job(
            order.rule,
            arrived_s=order.arrived_s,
            deadline_s=order.deadline_s,
            priority=order.priority,
            owner=order.owner,
            deliver=self._deliver,
            released=service.admission.release,
            reached=self._reached if tells_exits else None,
            draw=self._draw,
        )

    def start(self) -> None:
        try:
            self._service.decoders.submit(self._decode)
        except RuntimeError:  # The pool was shut down.
            self._job.close(NotReadyError("the service is shutting down; try again in a moment"))

    def expire(self) -> None:
        """Its deadline has passed: the best exit so far is the answer."""
        if self._job.finish(deadline_outcome(self._job)):
            self._service.scheduler.notice_done()

    def leave(self) -> None:
        """Nobody waits for it any more. Of no effect where it was answered."""
        if self._job.abandon():
            self._service.scheduler.notice_done()

    def _decode(self) -> None:
        """In a decoding thread: to pixels, then on to the engine."""
        service, job = self._service, self._job
        if job.done:
            job.release()
            return
        started_s = service.clock()
        try:
            pixels = decode(self._data, service.model.config.input, service.limits)
        except ServiceError as error:
            job.close(error)
            return
        except Exception:
            service.log.exception("decoding failed by a bug")
            job.close(InternalError("a bug in the service kept this image from being decoded"))
            return
        finally:
            self._data = b""
        self._decode_s = service.clock() - started_s
        service.scheduler.submit(job, pixels)

    def _reached(self, taken: ExitTaken, leaves: bool) -> None:
        self._post(Reached(self._index, taken, leaves, self._elapsed_s()))

    def _deliver(self, outcome: Outcome) -> None:
        self._post(Finished(self._index, outcome, self._elapsed_s(), self._decode_s, self._draw))

    def _elapsed_s(self) -> float:
        return self._service.clock() - self._arrived_s


@contextmanager
def under_way(
    service: Service, order: Order, images: Sequence[ImageInput], *, tells_exits: bool = False
) -> Iterator[Mailbox[News]]:
    """Has every image computed; their news arrive in the mailbox, each image's in order, one `Finished` the last.

    Whatever has not ended when this is left is abandoned. Raises `OverloadedError` when there is no room for all.
    """
    mailbox: Mailbox[News] = Mailbox()
    whole = [(index, image) for index, image in enumerate(images) if not isinstance(image, ServiceError)]
    service.admission.acquire(len(whole))
    tickets = [Ticket(service, order, index, data, mailbox.post, tells_exits=tells_exits) for index, data in whole]
    timer = None
    if order.deadline_s is not None:
        remaining_s = max(0.0, order.deadline_s - service.clock())
        timer = asyncio.get_running_loop().call_later(remaining_s, _expire, tickets)
    try:
        for index, image in enumerate(images):
            if isinstance(image, ServiceError):
                mailbox.post(Finished(index, image))
        for ticket in tickets:
            ticket.start()
        yield mailbox
    finally:
        if timer is not None:
            timer.cancel()
        for ticket in tickets:
            ticket.leave()


async def finish_all(service: Service, order: Order, images: Sequence[ImageInput]) -> list[Finished]:
    """How every image ended, in order. Raises `OverloadedError` when there is no room for all of them."""
    finished: dict[int, Finished] = {}
    with under_way(service, order, images) as mailbox:
        while len(finished) < len(images):
            finished |= {news.index: news for news in await mailbox.take() if isinstance(news, Finished)}
    return [finished[index] for index in range(len(images))]


def _expire(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.expire()


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
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
