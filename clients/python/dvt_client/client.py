"""`Client`: every call of a dvt service, for code that waits. `AsyncClient` is the same for asyncio."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
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


class Client:
    """Holds connections: use it as a context manager, or `close` it. Thread-safe.

    `key` is that of an API, or the admin's. `timeout_s` is the longest silence of the server. What can be safely sent
    again is, as `retry` has it. Calls raise a `ClientError`; `ValueError` and `OSError` for what was never sent.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retry: Retry = DEFAULT,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._setup = Setup(url, key, timeout_s, retry)
        self._sleep = sleep
        self._http = httpx.Client(transport=transport, **self._setup.httpx_options())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def classify(self, *photos: Photo, **options: Unpack[ClassifyOptions]) -> answers.Classification:
        """Bytes, paths or open files to what they show: `.result` of a single photo, `.results` of several.

        A single photo that cannot be answered raises; of several, it has an `ImageFailure` unless all failed.
        """
        return self._send(calls.classify([photo_bytes(photo) for photo in photos], Options(**options)))

    def stream(self, *photos: Photo, **options: Unpack[ClassifyOptions]) -> Generator[Event, None, None]:
        """Events as the exits are reached. The request goes out when the first is asked for; `close` the generator (or
        leave it to be collected) and the connection is closed, which stops the computation."""
        yield from self._events(calls.classify([*map(photo_bytes, photos)], Options(**options), stream=True))

    def refine(
        self,
        result_id: str,
        to: To | None = None,
        *,
        min_confidence: float | None = None,
        **options: Unpack[RefineOptions],
    ) -> answers.Classification:
        """Go on from an early answer: one exit more, or `to` an exit, or as far as `min_confidence` needs.

        Raises `StateGoneError` where the server has let go of what it would go on from.
        """
        return self._send(calls.refine(result_id, to, min_confidence, Options(**options)))

    def stream_refine(
        self,
        result_id: str,
        to: To | None = None,
        *,
        min_confidence: float | None = None,
        **options: Unpack[RefineOptions],
    ) -> Generator[Event, None, None]:
        """As `refine`, with events as `stream` has them."""
        yield from self._events(calls.refine(result_id, to, min_confidence, Options(**options), stream=True))

    def budget(self) -> answers.Budget:
        """The budget in force."""
        return self._send(calls.budget())

    def put_budget(
        self, form: BudgetForm | Mapping[str, object], *, if_match: int | None = None, dry_run: bool = False
    ) -> answers.Budget:
        """Put another budget in force (admin); with `if_match` only in the place of that revision.

        Raises `BudgetNotMetError`, which knows the nearest that could be had, or `RevisionChangedError`.
        """
        return self._send(calls.put_budget(form, if_match, dry_run))

    def frontier(self) -> answers.Frontier:
        """What can be asked for."""
        return self._send(calls.frontier())

    def history(self) -> answers.History:
        """Who changed the budget (admin)."""
        return self._send(calls.history())

    def audit(self) -> answers.Audit:
        """Whether certificates hold for the images that come."""
        return self._send(calls.audit())

    def model(self) -> answers.Model:
        """What is served."""
        return self._send(calls.model())

    def health(self, what: Literal["ready", "live"] = "ready") -> answers.Health:
        """Whether it takes work, or whether its process is worth keeping; what is in the way is an answer, no error."""
        return self._send(calls.health(what))

    def metrics(self) -> str:
        """In Prometheus's text format."""
        return self._send(calls.metrics())

    def feedback(self) -> answers.Feedback:
        """How often answers were right (admin)."""
        return self._send(calls.feedback())

    def send_feedback(self, result_id: str, label: str) -> answers.FeedbackTaken:
        """Tell what an image really showed, once a result."""
        return self._send(calls.send_feedback(result_id, label))

    def _send(self, call: Call[T]) -> T:
        with closing(self._open(call)) as response:
            try:
                response.read()
            except httpx.HTTPError as error:
                raise self._setup.broken(error) from error
            return call.read(transport.reply_of(response))

    def _open(self, call: Call[Any]) -> httpx.Response:
        """The response to a call, its body not read yet; errors are raised here."""
        attempts = self._setup.attempts(call)
        while True:
            try:
                request = self._http.build_request(**transport.request_options(call))
                response = self._http.send(request, stream=True)
                if transport.is_answer(call, response.status_code):
                    return response
                with closing(response):
                    response.read()
                error, is_safe = transport.refusal(response)
            except httpx.HTTPError as broken:
                error, is_safe = self._setup.broken(broken), transport.may_repeat(call, broken)
            self._sleep(attempts.wait_s(error, is_safe=is_safe))

    def _events(self, call: Call[Any]) -> Generator[Event, None, None]:
        parser, seen = EventParser(), 0
        with closing(self._open(call)) as response:
            calls.check_stream(response.headers)
            try:
                for chunk in response.iter_bytes():
                    for event in events_in(parser.feed(chunk)):
                        seen += 1
                        yield event
                        if isinstance(event, DoneEvent):
                            return
            except httpx.HTTPError as error:
                raise self._setup.broken(error) from error
        raise transport.ended_early(seen)
