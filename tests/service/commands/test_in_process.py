"""The transport that hands requests to an application in the same process."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.commands.in_process import InProcess

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def chunk(body: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def with_client(app: ASGIApp, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(transport=InProcess(app), base_url="http://in-process") as client:
            await asyncio.wait_for(work(client), 10)

    asyncio.run(run())


def test_chunks_come_as_they_are_sent() -> None:
    may_go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (scope["path"], scope["query_string"]) == ("/a b", b"x=1")
        assert (await receive())["body"] == b"sent"
        await send(START)
        await send(chunk(b"first"))
        await may_go_on.wait()
        await send(chunk(b"last", more=False))

    async def work(client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/a b?x=1", content=b"sent") as response:
            chunks = response.aiter_raw()
            assert await anext(chunks) == b"first"
            may_go_on.set()
            assert [each async for each in chunks] == [b"last"]

    with_client(app, work)


def test_who_closes_the_answer_is_gone_for_the_application() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        await send(chunk(b"first"))
        heard.append((await receive())["type"])

    async def work(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/") as response:
            await anext(response.aiter_raw())
            assert heard == []
        assert heard == ["http.disconnect"]

    with_client(app, work)


def test_an_error_of_the_application_is_not_lost() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("bug")

    async def work(client: httpx.AsyncClient) -> None:
        with pytest.raises(KeyError, match="bug"):
            await client.get("/")

    with_client(app, work)


def test_an_answer_that_never_came_is_an_error_of_the_protocol() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def work(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")

    with_client(app, work)
