"""An HTTP server that answers by a list, over a real socket, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """A whole answer; `body` may be JSON to be."""

    status: int
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, handler: "Handler") -> None:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        handler.send_response(self.status)
        for name, value in {"Content-Length": str(len(body)), **self.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@dataclass(frozen=True)
class HangUp:
    """The connection is closed without an answer."""

    def send(self, handler: "Handler") -> None:
        handler.close_connection = True


@dataclass(frozen=True)
class Stream:
    """Chunks of a stream of events; then it ends, or is cut off, or waits until the client closes the connection."""

    chunks: Sequence[bytes]
    then: str = "end"
    content_type: str = "text/event-stream; charset=utf-8"

    def send(self, handler: "Handler") -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", self.content_type)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in self.chunks:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if self.then == "end":
            handler.wfile.write(b"0\r\n\r\n")
            return
        handler.close_connection = True
        if self.then == "wait":
            # Nothing more is sent to us, so that this returns (with nothing) when the client has gone.
            with suppress(OSError):
                handler.connection.recv(1)
            handler.script.client_left.set()


@dataclass
class Script:
    """What is answered next, and what was asked: (method, path with query, headers, body)."""

    steps: list[Answer | HangUp | Stream]
    asked: list[tuple[str, str, Mapping[str, str], bytes]] = field(default_factory=list)
    client_left: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.script.asked.append((self.command, self.path, headers, body))
        self.script.steps.pop(0).send(self)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 (names of the base class)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (name of the base class)
        """Nothing: the test tells."""


@contextmanager
def serving(*steps: Answer | HangUp | Stream) -> Iterator[Script]:
    script = Script(list(steps))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Scripted", (Handler,), {"script": script}))
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
