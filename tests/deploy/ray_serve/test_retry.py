"""A request whose replica dies: sent again where that changes nothing, else refused; never twice to a client."""

import asyncio
import importlib
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from deploy.ray_serve import retry
from deploy.ray_serve.retry import RetryLostReplica

Body = list[bytes]


async def _at_once(_: float) -> None:
    """A pause that takes no time."""


class Proxy:
    """Like Ray's: asks the replicas one after the other; those in `dies` are lost, before or while they answer."""

    def __init__(self, dies: tuple[str, ...] = ()) -> None:
        self._dies = dies
        self.heard: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        how = self._dies[len(self.heard)] if len(self.heard) < len(self._dies) else "lives"
        scope["headers"].append((b"x-seen", b"1"))
        assert len(scope["headers"]) == 1, "a try sees what an earlier one wrote"
        body, more = b"", how != "unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.heard.append(body)
                return
            body += message["body"]
            more = message.get("more_body", False) and not (how == "half" and body)
        self.heard.append(body)
        if how in ("lives", "begun"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if how == "lives":
            await send({"type": "http.response.body", "body": b"answer to " + body})


def client(*parts: bytes, leaves: bool = False) -> Receive:
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": leaves or number < len(parts)}
        for number, part in enumerate(parts, start=1)
    ]

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        return {"type": "http.disconnect"}

    return receive


def ask(proxy: Proxy, receive: Receive, method: str = "POST", path: str = "/classify") -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    asyncio.run(RetryLostReplica(proxy, _at_once)(scope, receive, send))
    return sent


@pytest.mark.parametrize("dies", [(), ("read",), ("unread",), ("half",), ("half", "read", "unread")])
def test_another_replica_gets_the_whole_request_and_the_client_one_answer(dies: tuple[str, ...]) -> None:
    proxy = Proxy(dies)
    sent = ask(proxy, client(b"a pho", b"to"))
    assert len(proxy.heard) == len(dies) + 1
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[1]["body"] == b"answer to a photo"


@pytest.mark.parametrize(
    ("method", "path", "tries"),
    [
        ("GET", "/budget", 2),
        ("POST", "/v2/models/dvt/infer", 2),
        ("PUT", "/budget", 1),
        ("POST", "/feedback", 1),
        ("POST", "/classify/12/refine", 1),
    ],
)
def test_only_what_changes_nothing_is_sent_again(method: str, path: str, tries: int) -> None:
    proxy = Proxy(("read",))
    sent = ask(proxy, client(b"{}"), method, path)
    assert len(proxy.heard) == tries
    assert sent[0]["status"] == (200 if tries == 2 else 503)


def test_when_every_replica_is_lost_the_client_is_told_to_come_again() -> None:
    proxy = Proxy(("read",) * 9)
    sent = ask(proxy, client(b"photo"))
    assert len(proxy.heard) == 4
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"1") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["code"] == "not_ready"


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    proxy = Proxy(("begun",))
    assert [message["type"] for message in ask(proxy, client(b"photo"))] == ["http.response.start"]
    assert len(proxy.heard) == 1


def test_nobody_works_for_a_client_who_has_left() -> None:
    proxy = Proxy()
    assert ask(proxy, client(b"a pho", leaves=True)) == []
    assert proxy.heard == [b"a pho"]


def test_what_is_too_large_to_be_kept_is_passed_on_and_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "KEPT_BYTES", 4)
    whole = Proxy()
    assert ask(whole, client(b"a pho", b"to"))[1]["body"] == b"answer to a photo"
    lost = Proxy(("read",))
    assert ask(lost, client(b"a pho", b"to"))[0]["status"] == 503
    assert len(lost.heard) == 1


def test_a_try_that_was_given_up_in_the_middle_of_an_upload_keeps_nothing_from_the_next_one() -> None:
    """Ray may still be waiting for the client when a try has ended: what it hears then is for the next one."""
    heard: list[bytes] = []
    late: list[asyncio.Task[Message]] = []

    async def run() -> list[Message]:
        parts: asyncio.Queue[Message] = asyncio.Queue()
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
            first = await receive()
            if not late:
                late.append(asyncio.ensure_future(receive()))
                await asyncio.sleep(0)
                return
            asyncio.get_running_loop().call_later(
                0.01, parts.put_nowait, {"type": "http.request", "body": b"to", "more_body": False}
            )
            heard.append(first["body"] + (await receive())["body"])
            await send({"type": "http.response.start", "status": 200, "headers": []})

        parts.put_nowait({"type": "http.request", "body": b"a pho", "more_body": True})
        scope = {"type": "http", "method": "POST", "path": "/classify", "headers": []}
        await asyncio.wait_for(RetryLostReplica(proxy, _at_once)(scope, parts.get, send), 5)
        return sent

    assert asyncio.run(run())[0]["status"] == 200
    assert heard == [b"a photo"]


def test_a_connection_that_is_no_request_is_left_alone() -> None:
    seen: list[str] = []

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing() -> Message:
        return {"type": "lifespan.startup"}

    async def nobody(_: Message) -> None: ...

    asyncio.run(RetryLostReplica(proxy)({"type": "lifespan"}, nothing, nobody))
    assert seen == ["lifespan"]


def test_ray_finds_it_by_the_path_that_is_told() -> None:
    module, _, function = retry.IMPORT_PATH.rpartition(".")
    assert len(getattr(importlib.import_module(module), function)()) == 1
