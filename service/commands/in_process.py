"""The service without a server: its application called by the client in the same process.

So there is one way to an answer, whether it comes over the wire or from a bundle right here.
"""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from starlette.types import ASGIApp, Message

from dvt_client import NEVER, AsyncClient
from service import log, main
from service.api.app import create_app
from service.settings import Loaded, load_settings

_POLL_S = 0.005


@asynccontextmanager
async def client_in_process(
    environment: Mapping[str, str], bundle: Path | None, images: int
) -> AsyncIterator[AsyncClient]:
    """A client of a service that is made for it, of the same settings as `dvt serve`, but for those of a server: it
    keeps nothing, knows no keys, and has room for so many images at once.

    Raises `ValueError` or a `ServiceError` with the way out.
    """
    from dvt import __version__

    log.configure("plain", "error")
    flags = {} if bundle is None else {"bundle": str(bundle)}
    loaded = load_settings(environment, flags)
    with tempfile.TemporaryDirectory(prefix="dvt-") as folder:
        own: dict[str, Any] = {
            "state_dir": Path(folder),
            "admin_key": SecretStr(secrets.token_urlsafe()),
            "api_keys": SecretStr(""),
            "redis_url": SecretStr(""),
            "allowed_hosts": "*",
            "audit_share": 0.0,
            "feedback_results": 0,
            "guard_share": 1.0,
            "queue_limit": images,
            # Sizes of batches that never come need no warming up.
            "max_batch": min(images, loaded.settings.max_batch),
        }
        settings = loaded.settings.model_copy(update=own)
        service = main.build_service(Loaded(settings, {}, ()), main.open_bundle(settings), log.get_logger())
        app = create_app(service, __version__)
        async with app.router.lifespan_context(app):
            while not service.is_ready:
                if service.scheduler.failure is not None:
                    raise ValueError(f"the bundle cannot be computed here: {service.scheduler.failure}")
                await asyncio.sleep(_POLL_S)
            async with AsyncClient("http://in-process", retry=NEVER, transport=InProcess(app)) as client:
                yield client


class InProcess(httpx.AsyncBaseTransport):
    """Hands requests to an ASGI application. Answers come as they are sent, chunk by chunk, and who closes one is gone
    for the application; httpx's own transport of this kind waits for the whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(await request.aread())
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (request.url.host, request.url.port),
            "client": ("127.0.0.1", 0),
        }
        task = asyncio.create_task(exchange.run(self._app, scope))
        try:
            start = await exchange.messages.get()
        except asyncio.CancelledError:
            exchange.gone.set()
            raise
        if start is None:
            await task  # Raises what went wrong before anything was sent.
            raise httpx.RemoteProtocolError("the application has sent nothing")
        body = _Body(exchange, task)
        return httpx.Response(start["status"], headers=start.get("headers", []), stream=body)


class _Exchange:
    """One request and what is sent for it; None after the last message."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.gone = asyncio.Event()
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue()

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self.messages.put)
        finally:
            self.messages.put_nowait(None)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange, task: "asyncio.Task[None]") -> None:
        self._exchange = exchange
        self._task = task

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        while (message := await self._exchange.messages.get()) is not None:
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return
        await self._task

    async def aclose(self) -> None:
        """The client has gone, or has read all: the application ends by itself, as it does behind a server."""
        self._exchange.gone.set()
        with suppress(Exception):  # It was raised already where the body was read, or nobody waits for it.
            await self._task
