"""One HTTP exchange without a socket, whose client reads at its own pace and leaves when it wants to."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from service.api.app import create_app
from service.api.deps import Service
from tests.service.cascades import wait_until


@dataclass(frozen=True)
class Event:
    """A server-sent event."""

    name: str
    data: dict[str, Any]


def parse(text: str) -> list[Event]:
    """The events of a stream, without its comments."""
    events = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = lines
            events.append(Event(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


class Exchange:
    """`takes`: whether the client reads; what is sent while it does not waits, as with a full socket."""

    def __init__(self, app: ASGIApp, path: str, body: bytes, headers: Iterable[tuple[str, str]]) -> None:
        self.status = 0
        self.text = ""
        self.takes = asyncio.Event()
        self.takes.set()
        self._gone = asyncio.Event()
        self._body = [body]
        path, _, query = path.partition("?")
        fields = [("host", "localhost"), *headers]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields],
            "scheme": "http",
            "server": ("localhost", 80),
            "client": ("localhost", 1),
            "root_path": "",
        }
        self.ended = asyncio.ensure_future(app(scope, self._receive, self._send))

    def leave(self) -> None:
        self._gone.set()

    def json(self) -> Any:
        return json.loads(self.text)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once it holds, looked at beside the exchange."""
        await asyncio.to_thread(wait_until, condition)

    async def _receive(self) -> Message:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.takes.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.text += message.get("body", b"").decode()


@asynccontextmanager
async def application_of(service: Service) -> AsyncIterator[ASGIApp]:
    """Its application, with the engine warm."""
    app = create_app(service, "0")
    async with app.router.lifespan_context(app):
        await asyncio.to_thread(wait_until, lambda: service.scheduler.ready)
        yield app
