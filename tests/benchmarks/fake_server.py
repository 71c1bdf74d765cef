"""A small HTTP server in the test's own event loop: answers as told, stalls when told, counts what comes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.connection import Target

ANSWER = json.dumps({"results": [{"exit": {"number": 2}, "compute": {"gmacs": 0.5}}]}).encode()


@dataclass
class FakeServer:
    """`reply(n)` is the whole answer to request n (from 0), as bytes of HTTP; b"" closes the connection instead.

    Request n waits `delay_s(n)` for it.
    """

    reply: Callable[[int], bytes] = lambda _: ok()
    delay_s: Callable[[int], float] = lambda _: 0.0
    bodies: list[bytes] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                number = len(self.bodies)
                self.bodies.append(await reader.readexactly(length))
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                await asyncio.sleep(self.delay_s(number))
                self._at_once -= 1
                answer = self.reply(number)
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # The client has left, or the test is over.
        finally:
            writer.close()


def ok(body: bytes = ANSWER) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@asynccontextmanager
async def serving(server: FakeServer) -> AsyncIterator[Target]:
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    async with listener:
        yield Target("127.0.0.1", listener.sockets[0].getsockname()[1], "/classify")
