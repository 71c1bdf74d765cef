"""`AsyncClient`: the calls of `Client`, for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import httpx

from dvt_client import answers, calls, transport
from dvt_client.calls import BudgetForm, Call, ClassifyOptions, Options, RefineOptions, To
from dvt_client.events import DoneEvent, Event, EventParser, events_in
from dvt_client.photos import Photo, photo_bytes
from dvt_client.retry import DEFAULT, Retry
from dvt_client.transport import Setup

T = TypeVar("T")


class AsyncClient:
    """As `Client`, which tells what each call is for; for one event loop."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retry: Retry = DEFAULT,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._setup = Setup(url, key, timeout_s, retry)
        self._sleep = sleep
        self._http = httpx.AsyncClient(transport=transport, **self._setup.httpx_options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def classify(self, *photos: Photo, **options: Unpack[ClassifyOptions]) -> answers.Classification:
        return await self._send(calls.classify(await _bytes_of(photos), Options(**options)))

    async def stream(self, *photos: Photo, **options: Unpack[ClassifyOptions]) -> AsyncGenerator[Event, None]:
        """As `Client.stream`; in `async with aclosing(...)` the connection is closed as soon as the loop is left."""
        call = calls.classify(await _bytes_of(photos), Options(**options), stream=True)
        async with aclosing(self._events(call)) as events:
            async for event in events:
                yield event

    async def refine(
        self,
        result_id: str,
        to: To | None = None,
        *,
        min_confidence: float | None = None,
        **options: Unpack[RefineOptions],
    ) -> answers.Classification:
        return await self._send(calls.refine(result_id, to, min_confidence, Options(**options)))

    async def stream_refine(
        self,
        result_id: str,
        to: To | None = None,
        *,
        min_confidence: float | None = None,
        **options: Unpack[RefineOptions],
    ) -> AsyncGenerator[Event, None]:
        call = calls.refine(result_id, to, min_confidence, Options(**options), stream=True)
        async with aclosing(self._events(call)) as events:
            async for event in events:
                yield event

    async def budget(self) -> answers.Budget:
        return await self._send(calls.budget())

    async def put_budget(
        self, form: BudgetForm | Mapping[str, object], *, if_match: int | None = None, dry_run: bool = False
    ) -> answers.Budget:
        return await self._send(calls.put_budget(form, if_match, dry_run))

    async def frontier(self) -> answers.Frontier:
        return await self._send(calls.frontier())

    async def history(self) -> answers.History:
        return await self._send(calls.history())

    async def audit(self) -> answers.Audit:
        return await self._send(calls.audit())

    async def model(self) -> answers.Model:
        return await self._send(calls.model())

    async def health(self, what: Literal["ready", "live"] = "ready") -> answers.Health:
        return await self._send(calls.health(what))

    async def metrics(self) -> str:
        return await self._send(calls.metrics())

    async def feedback(self) -> answers.Feedback:
        return await self._send(calls.feedback())

    async def send_feedback(self, result_id: str, label: str) -> answers.FeedbackTaken:
        return await self._send(calls.send_feedback(result_id, label))

    async def _send(self, call: Call[T]) -> T:
        async with aclosing(await self._open(call)) as response:
            try:
                await response.aread()
            except httpx.HTTPError as error:
                raise self._setup.broken(error) from error
            return call.read(transport.reply_of(response))

    async def _open(self, call: Call[Any]) -> httpx.Response:
        """The response to a call, its body not read yet; errors are raised here."""
        attempts = self._setup.attempts(call)
        while True:
            try:
                request = self._http.build_request(**transport.request_options(call))
                response = await self._http.send(request, stream=True)
                if transport.is_answer(call, response.status_code):
                    return response
                async with aclosing(response):
                    await response.aread()
                error, is_safe = transport.refusal(response)
            except httpx.HTTPError as broken:
                error, is_safe = self._setup.broken(broken), transport.may_repeat(call, broken)
            await self._sleep(attempts.wait_s(error, is_safe=is_safe))

    async def _events(self, call: Call[Any]) -> AsyncGenerator[Event, None]:
        parser, seen = EventParser(), 0
        async with aclosing(await self._open(call)) as response:
            calls.check_stream(response.headers)
            try:
                async for chunk in response.aiter_bytes():
                    for event in events_in(parser.feed(chunk)):
                        seen += 1
                        yield event
                        if isinstance(event, DoneEvent):
                            return
            except httpx.HTTPError as error:
                raise self._setup.broken(error) from error
        raise transport.ended_early(seen)


async def _bytes_of(photos: tuple[Photo, ...]) -> list[bytes]:
    """Read in a thread: a disk may be slow."""
    if all(isinstance(photo, bytes) for photo in photos):
        return [photo_bytes(photo) for photo in photos]
    return [await asyncio.to_thread(photo_bytes, photo) for photo in photos]
