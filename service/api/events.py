"""An answer as a stream of server-sent events: each exit as it is reached, then the result; `done` is the last.

A reader that is slow holds nothing but its connection and its own few events: images are computed and let go of at the
engine's pace.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.answers import budget_ref, compute_of, milliseconds, model_ref, predictions_of, result_of
from service.api.deps import Service, service_of
from service.api.handlers import problem_of, request_id_of
from service.api.mailbox import Mailbox
from service.api.schemas import BudgetRef, Compute, ExitSeen, ImageResult, ModelRef, Prediction, Problem, Strict
from service.api.tickets import Finished, News, Order, Reached, until_gone
from service.errors import ClientClosedError, InternalError, ServiceError
from service.types import Answer

EVENT_STREAM = "text/event-stream"
# Proxies close connections that are silent for a minute, some after ten seconds.
HEARTBEAT_S = 5.0

_HEADERS = {"Content-Type": f"{EVENT_STREAM}; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*(;|$)")
_HEARTBEAT = b": heartbeat\n\n"

# What a path that can answer so says of it in /docs.
EVENTS_DOC: dict[str, Any] = {
    "description": "With `Accept: text/event-stream`: events `exit` (each exit as an image reaches it), `result` or "
    "`error` for each image, all with its `index`, and `done`.",
    "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
}


class ExitEvent(Strict):
    """`leaves`: whether the image's rule has it leave here. Where it has not, a deadline or the guard still may."""

    index: int
    exit: ExitSeen
    leaves: bool
    predictions: list[Prediction]
    compute: Compute
    elapsed_ms: float


class ResultEvent(Strict):
    index: int
    result: ImageResult


class ErrorEvent(Strict):
    """In place of a result; `index` is null where it concerns the whole request."""

    index: int | None
    error: Problem


class DoneEvent(Strict):
    request_id: str
    model: ModelRef
    budget: BudgetRef


def wants_events(request: Request) -> bool:
    """Whether the client accepts a stream of events, by that name."""
    ranges = request.headers.get("accept", "").lower().split(",")
    return any(each.partition(";")[0].strip() == EVENT_STREAM and _REFUSED.search(each) is None for each in ranges)


class Outbox:
    """Writes events to one client as fast as it reads; nobody who puts one in waits for that."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._events: deque[tuple[str, BaseModel]] = deque()
        self._more = asyncio.Event()
        self._is_complete = False
        self._writer: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a status of 200 is on its way, so that no error can have another one."""
        return self._writer is not None

    def open(self) -> None:
        self._writer = asyncio.create_task(self._write())

    def put(self, name: str, data: BaseModel) -> None:
        self._events.append((name, data))
        self._more.set()

    async def finish(self) -> None:
        """Returns when all is written, or the client has left."""
        assert self._writer is not None, "the outbox was never opened"
        self._is_complete = True
        self._more.set()
        await self._writer

    def drop(self) -> None:
        """Nobody reads any more."""
        if self._writer is not None:
            self._writer.cancel()

    async def _write(self) -> None:
        headers = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        while not self._is_complete or self._events:
            text = _HEARTBEAT
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._more.wait()
            except TimeoutError:
                pass
            else:
                self._more.clear()
                text = b"".join(self._take())
            await self._send({"type": "http.response.body", "body": text, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _take(self) -> list[bytes]:
        taken = []
        while self._events:
            name, data = self._events.popleft()
            taken.append(f"event: {name}\ndata: {data.model_dump_json()}\n\n".encode())
        return taken


class EventStream(Response):
    """Answers by what `tell` puts into the outbox, and `done`. What it raises before that is open is an ordinary
    problem document; after that, an event."""

    def __init__(self, request: Request, order: Order, tell: Callable[[Outbox], Awaitable[None]]) -> None:
        super().__init__()
        self._request = request
        self._order = order
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox, service = Outbox(send), service_of(self._request)
        try:
            try:
                await self._tell(outbox)
            except ClientClosedError as error:
                service.metrics.refusal(error.code)
                return
            except ServiceError as error:
                if not outbox.is_open:
                    raise
                self._put_error(outbox, error)
            except Exception:
                if not outbox.is_open:
                    raise
                request_id = request_id_of(self._request)
                service.log.exception("bug", extra={"request_id": request_id})
                detail = f"a bug in the service; its log has the cause under request_id {request_id}"
                self._put_error(outbox, InternalError(detail))
            outbox.put("done", self._done())
            await outbox.finish()
        finally:
            outbox.drop()

    def _put_error(self, outbox: Outbox, error: ServiceError) -> None:
        problem = problem_of(service_of(self._request), error, request_id_of(self._request))
        outbox.put("error", ErrorEvent(index=None, error=problem))

    def _done(self) -> DoneEvent:
        return DoneEvent(
            request_id=request_id_of(self._request),
            model=model_ref(service_of(self._request).model),
            budget=budget_ref(self._order),
        )


async def tell_all(
    request: Request,
    order: Order,
    images: int,
    mailbox: Mailbox[News],
    outbox: Outbox,
    refined_id: str | None = None,
) -> None:
    """Events of so many images, until each has its result or its error. Raises `ClientClosedError`.

    `refined_id`: the id of the earlier result that theirs is to replace.
    """

    async def pass_on() -> None:
        left = set(range(images))
        while left:
            for news in await mailbox.take():
                # An exit that is reached while the deadline's answer goes out comes too late to be told.
                if news.index in left:
                    outbox.put(*_event(request, order, news, refined_id))
                if isinstance(news, Finished):
                    left.discard(news.index)

    await until_gone(request, pass_on())


def _event(request: Request, order: Order, news: News, refined_id: str | None) -> tuple[str, BaseModel]:
    service = service_of(request)
    if isinstance(news, Reached):
        return "exit", _exit_event(service, order, news)
    if isinstance(news.outcome, Answer):
        result = result_of(service, order, news, news.outcome, refined_id)
        return "result", ResultEvent(index=news.index, result=result)
    problem = problem_of(service, news.outcome, request_id_of(request))
    return "error", ErrorEvent(index=news.index, error=problem)


def _exit_event(service: Service, order: Order, reached: Reached) -> ExitEvent:
    model, taken = service.model, reached.exit
    return ExitEvent(
        index=reached.index,
        exit=ExitSeen(
            number=taken.number,
            of=model.config.exits,
            grid=model.config.stages[taken.number - 1].grid,
            confidence=taken.confidence,
            threshold=taken.threshold,
        ),
        leaves=reached.leaves,
        predictions=predictions_of(model, taken.ranking, order.top_k),
        compute=compute_of(model, taken.number),
        elapsed_ms=milliseconds(reached.elapsed_s),
    )
