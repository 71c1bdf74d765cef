"""One image of a request on its way: decoded in a thread, handed to the engine, answered by whoever is first."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from fastapi import Request

from models.preprocess import Pixels
from service.api.body import INLINE_BYTES, ImageInput
from service.api.deps import Service
from service.api.mailbox import Mailbox
from service.decode import decode
from service.engine.catalogue import Resolved
from service.engine.draws import Draw
from service.engine.exits import Word, deadline_outcome, replay
from service.engine.job import Job, Outcome
from service.engine.kept import Work
from service.errors import ClientClosedError, InternalError, NotReadyError, ServiceError
from service.types import Answer, ContentKey, ExitRule, ExitTaken, JobTimes

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """How the images of one request are to be treated. `by_budget`: whether they leave by the budget, so that what is
    promised of it is promised of them. Of an exit `top_k` predictions are quoted; it is to tell of the best `classes`.
    """

    rule: ExitRule
    resolved: Resolved
    by_budget: bool
    revision: int
    operating_point: int
    top_k: int
    classes: int
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
    """How image `index` ended, so long after its request came; when its decoding began (None where there was none) and
    how long that took; its audit; and where what was computed of it is kept."""

    index: int
    outcome: Outcome
    total_s: float = 0.0
    decode_s: float = 0.0
    decode_began_s: float | None = None
    draw: Draw | None = None
    work: Work | None = None


News = Reached | Finished


class Ticket:
    """One image in the making. `post` takes its news, from any thread: exits where `tells_exits`, then how it ended."""

    def __init__(
        self, service: Service, order: Order, index: int, post: Callable[[News], None], *, tells_exits: bool
    ) -> None:
        self._service = service
        self._order = order
        self._index = index
        self._post = post
        self._tells_exits = tells_exits
        self._data: bytes | Pixels = b""
        self._decode_s = 0.0
        self._decode_began_s: float | None = None
        self._draw: Draw | None = None
        self._work: Work | None = None
        self._job: Job | None = None

    def start(self, data: bytes | Pixels, key: ContentKey | None) -> None:
        """With its permit, from an image file or its pixels. What is known of the same is used."""
        service, order = self._service, self._order
        self._draw = service.audit.draw(order.resolved.thresholds) if order.by_budget else None
        # Who is drawn is computed from the start: the lottery must not depend on what was seen before, and the audit is
        # to see what is computed, not what is remembered.
        if key is not None and self._draw is None and self._start_from_known(key):
            return
        self._data = data
        job = self._make_job(service.kept.begin(key))
        try:
            service.decoders.submit(contextvars.copy_context().run, self._decode, job)
        except RuntimeError:  # The pool was shut down.
            job.close(NotReadyError("the service is shutting down; try again in a moment"))

    def resume(self, work: Work, words: Sequence[Word], *, told: int = 0) -> bool:
        """With its permit, from kept state, after the exits of `words`, of which the first were told before; says
        whether that state is still there."""
        slot, reached = self._service.scheduler.claim(work), words[-1].taken
        if slot is None or reached is None:
            return False
        for word in words[told:]:
            self.tell(word)
        job = self._make_job(work)
        job.resume(slot, reached)
        self._service.scheduler.submit(job)
        return True

    def tell(self, word: Word) -> None:
        """Of an exit that was reached before."""
        if word.taken is not None and self._tells_exits:
            self._reached(word.taken, word.reason is not None)

    def answer(self, work: Work, word: Word) -> None:
        """With what was computed before, at the exit where the rule has it leave."""
        assert word.taken is not None and word.reason is not None
        self._work = work
        self._deliver(Answer(word.taken, word.reason, word.taken.number, JobTimes()))

    def answer_late(self, work: Work, word: Word) -> None:
        """With the best exit that was reached, since there is no time to wait for a better one."""
        assert word.taken is not None
        self._work = work
        self._deliver(Answer(word.taken, "deadline", word.taken.number, JobTimes()))

    def expire(self) -> None:
        """Its deadline has passed: the best exit so far is the answer."""
        if self._job is not None and self._job.finish(deadline_outcome(self._job)):
            self._service.scheduler.notice_done()

    def leave(self) -> None:
        """Nobody waits for it any more, or it was answered."""
        # A job and its ticket hold each other: parted, they are gone with the request, and not when memory is swept.
        job, self._job = self._job, None
        if job is not None and job.abandon():
            if self._work is not None:
                self._service.kept.forget(self._work)
            self._service.scheduler.notice_done()

    def _start_from_known(self, key: ContentKey) -> bool:
        service, order = self._service, self._order
        work = service.kept.find(key)
        words = () if work is None else replay(work.exits, order.rule, service.model.config.exits)
        # Any of its exits may be told of, and be the answer when time is up.
        if work is None or not words or not all(_tells(word, order.classes) for word in words):
            service.metrics.reuse("classify", "missed")
            return False
        if words[-1].reason is not None:
            service.admission.waive()
            service.metrics.reuse("classify", "stored")
            for word in words:
                self.tell(word)
            self.answer(work, words[-1])
            return True
        is_resumed = self.resume(work, words)
        service.metrics.reuse("classify", "resumed" if is_resumed else "missed")
        return is_resumed

    def _make_job(self, work: Work | None) -> Job:
        order = self._order
        self._work = work
        self._job = Job(
            order.rule,
            arrived_s=order.arrived_s,
            deadline_s=order.deadline_s,
            priority=order.priority,
            owner=order.owner,
            classes=order.classes,
            deliver=self._deliver,
            released=self._service.admission.release,
            reached=self._reached if self._tells_exits else None,
            draw=self._draw,
            work=work,
        )
        return self._job

    def _decode(self, job: Job) -> None:
        """In a decoding thread: to pixels, then on to the engine."""
        service = self._service
        if job.done:
            job.release()
            return
        started_s = service.clock()
        try:
            data = self._data
            pixels = data if isinstance(data, np.ndarray) else decode(data, service.model.config.input, service.limits)
        except ServiceError as error:
            job.close(error)
            return
        except Exception:
            service.log.exception("decoding failed by a bug")
            job.close(InternalError("a bug in the service kept this image from being decoded"))
            return
        finally:
            self._data = b""
        self._decode_began_s, self._decode_s = started_s, service.clock() - started_s
        service.scheduler.submit(job, pixels)

    def _reached(self, taken: ExitTaken, leaves: bool) -> None:
        self._post(Reached(self._index, taken, leaves, self._elapsed_s()))

    def _deliver(self, outcome: Outcome) -> None:
        self._post(
            Finished(
                self._index,
                outcome,
                self._elapsed_s(),
                self._decode_s,
                self._decode_began_s,
                self._draw,
                self._work,
            )
        )

    def _elapsed_s(self) -> float:
        return self._service.clock() - self._order.arrived_s


@asynccontextmanager
async def under_way(
    service: Service, order: Order, images: Sequence[ImageInput], *, tells_exits: bool = False
) -> AsyncIterator[Mailbox[News]]:
    """Has every image computed; their news arrive in the mailbox, each image's in order, one `Finished` the last.

    Whatever has not ended when this is left is abandoned. Raises `OverloadedError` when there is no room for all.
    """
    mailbox: Mailbox[News] = Mailbox()
    keys = await _content_keys(service, order, images)
    service.admission.acquire(len(keys))
    tickets = {index: Ticket(service, order, index, mailbox.post, tells_exits=tells_exits) for index in keys}
    timer = None
    if order.deadline_s is not None:
        remaining_s = max(0.0, order.deadline_s - service.clock())
        timer = asyncio.get_running_loop().call_later(remaining_s, _expire, tickets.values())
    try:
        for index, image in enumerate(images):
            if isinstance(image, ServiceError):
                mailbox.post(Finished(index, image))
            else:
                tickets[index].start(image, keys[index])
        yield mailbox
    finally:
        if timer is not None:
            timer.cancel()
        for ticket in tickets.values():
            ticket.leave()


async def _content_keys(service: Service, order: Order, images: Sequence[ImageInput]) -> dict[int, ContentKey | None]:
    """Of the images that came whole, by their index; None where nothing is known by content."""
    whole = {index: image for index, image in enumerate(images) if not isinstance(image, ServiceError)}
    contents = service.contents
    if contents is None:
        return dict.fromkeys(whole)

    def keys() -> dict[int, ContentKey | None]:
        return {index: contents.of(image, order.owner) for index, image in whole.items()}

    is_quick = sum(map(_size_bytes, whole.values())) <= INLINE_BYTES
    return keys() if is_quick else await asyncio.to_thread(keys)


def _size_bytes(image: bytes | Pixels) -> int:
    return len(image) if isinstance(image, bytes) else image.nbytes


async def first_finished(mailbox: Mailbox[News]) -> Finished:
    """How the one image ended that is under way."""
    while True:
        for news in await mailbox.take():
            if isinstance(news, Finished):
                return news


async def finish_all(service: Service, order: Order, images: Sequence[ImageInput]) -> list[Finished]:
    """How every image ended, in order. Raises `OverloadedError` when there is no room for all of them."""
    finished: dict[int, Finished] = {}
    async with under_way(service, order, images) as mailbox:
        while len(finished) < len(images):
            finished |= {news.index: news for news in await mailbox.take() if isinstance(news, Finished)}
    return [finished[index] for index in range(len(images))]


def _tells(word: Word, classes: int) -> bool:
    return word.taken is not None and word.taken.ranking.tells(classes)


def _expire(tickets: Iterable[Ticket]) -> None:
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

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and own.uncancel() == 0:
            raise ClientClosedError("the client left before its answer") from None
        raise
    finally:
        watcher.cancel()
