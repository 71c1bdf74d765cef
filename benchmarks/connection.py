"""A lean HTTP/1.1 client: the load generator shares its cores with the server, so a request must cost it little.

httptools parses; requests are bytes made once and sent many times. A general client such as httpx costs about a
millisecond a request, which on two cores would be measured as the server's.
"""

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode, urlsplit

import httptools

_BOUNDARY = "benchmark-boundary-7d1f0c"


@dataclass(frozen=True)
class Target:
    """Where requests go: `path` begins with a slash and holds the query."""

    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether requests stay on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def with_query(self, query: Mapping[str, str]) -> "Target":
        if not query:
            return self
        separator = "&" if "?" in self.path else "?"
        return Target(self.host, self.port, f"{self.path}{separator}{urlencode(query)}")


def parse_target(url: str) -> Target:
    """`http://127.0.0.1:8000` means its `/classify`. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is no URL that can be measured; write http://HOST:PORT[/PATH]")
    path = parts.path if parts.path not in ("", "/") else "/classify"
    return Target(parts.hostname, parts.port or 80, f"{path}?{parts.query}" if parts.query else path)


def raw_request(target: Target, image: bytes) -> bytes:
    """A whole request whose body is the image file as it is."""
    return _request(target, "application/octet-stream", image)


def form_request(target: Target, image: bytes) -> bytes:
    """A whole request that sends the image file as the multipart field `image`."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return _request(target, f"multipart/form-data; boundary={_BOUNDARY}", body)


def _request(target: Target, content_type: str, body: bytes) -> bytes:
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\nAccept: application/json\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request on its way at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._body: list[bytes] = []

    @property
    def usable(self) -> bool:
        """Whether another request can be sent on it."""
        return self._transport is not None and not self._transport.is_closing() and self._answer is None

    async def ask(self, request: bytes) -> Response:
        """Raises `ConnectionError` when the server closes before its answer is complete."""
        assert self._answer is None, "one request at a time"
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._body = []
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(ConnectionResetError(f"the server closed the connection ({exc or 'without an error'})"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        answer, self._answer = self._answer, None
        keep = self._parser.should_keep_alive()
        if answer is not None and not answer.done():
            answer.set_result(Response(self._parser.get_status_code(), b"".join(self._body)))
        if not keep:
            self.close()

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)


class Pool:
    """Connections to one target, opened when none is idle."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()

    async def ask(self, request: bytes, timeout_s: float) -> Response:
        """Raises `OSError` or `TimeoutError`; the connection is closed then."""
        async with asyncio.timeout(timeout_s):
            connection = await self._take()
            try:
                return await connection.ask(request)
            except BaseException:
                connection.close()
                raise
            finally:
                self._busy.discard(connection)
                if connection.usable:
                    self._idle.append(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._busy.add(connection)
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._target.host, self._target.port)
        self._busy.add(connection)
        return connection

    def close(self) -> None:
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
