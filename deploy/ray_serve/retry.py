"""A request whose replica has died is sent to another one, where nothing is changed by doing it twice.

Ray's proxy runs this around itself, when the environment of `serve run` (or of the cluster's nodes) has `VARIABLE` with
the value `IMPORT_PATH`. Without it such a request is answered with 500, and sending it again is up to the client.

When a replica dies under a request, the proxy returns without having begun an answer. That is the sign; an error of the
service's own is an answer. What a replica has begun to answer cannot be taken back, and is not sent again.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

VARIABLE, IMPORT_PATH = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "deploy.ray_serve.retry.middlewares"

_TRIES = 4
# Ray notices within about a second that a replica is gone; until then it may be chosen again.
_PAUSE_S = 0.5
# A larger body is not kept for a second try.
KEPT_BYTES = 64 * 1024 * 1024
# Calls that only ask. `PUT /budget` is not sent again: what became of it, GET tells.
_ASKING = ("GET", "HEAD")
_CLASSIFY = re.compile(r"/classify|/v2/models/[^/]+(/versions/[^/]+)?/infer")

_LOST = {
    "type": "urn:dvt:problem:not_ready",
    "title": "Not ready",
    "status": 503,
    "detail": "the replica that had this request was lost; try again",
    "code": "not_ready",
}


def middlewares() -> list[Middleware]:
    """What Ray calls."""
    return [Middleware(RetryLostReplica)]


class RetryLostReplica:
    """Wraps the proxy's application."""

    def __init__(self, app: ASGIApp, pause: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        self._app = app
        self._pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tape = _Tape(receive)
        has_begun = False

        async def begin(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        for left in reversed(range(_TRIES)):
            # A copy: the proxy and what it wraps write into it.
            await self._app({**scope, "headers": list(scope["headers"])}, tape.play(), begin)
            if has_begun or tape.is_over:
                return
            if not (left and _may_be_repeated(scope) and tape.is_whole):
                await _refuse(send)
                return
            await self._pause(_PAUSE_S)


def _may_be_repeated(scope: Scope) -> bool:
    if scope["method"] == "POST":
        return _CLASSIFY.fullmatch(scope["path"]) is not None
    return scope["method"] in _ASKING


class _Tape:
    """What a client sends, kept to be played again. `is_over`: it has left. `is_whole`: all of it could be kept."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._kept_bytes = 0
        self._turn = asyncio.Lock()
        self.is_over = False
        self.is_whole = True

    def play(self) -> Receive:
        """From the start; then what comes new."""
        heard = 0

        async def receive() -> Message:
            nonlocal heard
            if heard >= len(self._kept):
                # One at a time: a try that was given up may still be waiting for the client.
                async with self._turn:
                    if heard >= len(self._kept):
                        message = await self._receive()
                        self._keep(message)
                        heard += 1
                        return message
            heard += 1
            return self._kept[heard - 1]

        return receive

    def _keep(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.is_over = True
        self._kept_bytes += len(message.get("body", b""))
        if self._kept_bytes > KEPT_BYTES:
            self.is_whole = False
            self._kept.clear()
        else:
            self._kept.append(message)


async def _refuse(send: Send) -> None:
    body = json.dumps(_LOST).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
