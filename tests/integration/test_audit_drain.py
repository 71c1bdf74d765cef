"""A service that ends finishes its audits first, within its time."""

import asyncio
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from service.server import Server, drain
from tests.service.cascades import (
    FakeBackend,
    certified_profiles,
    client_of,
    make_service,
    picture,
    sure_at,
    wait_until,
)


class Listening:
    """As much of a server as a drain looks at."""

    def __init__(self) -> None:
        self.looks = 0
        self.has_ended = False
        self.server_state = SimpleNamespace(connections=set())

    @property
    def should_exit(self) -> bool:
        self.looks += 1
        return False

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self.has_ended = value

    async def stop_listening(self, _: socket.socket) -> None:
        pass


@pytest.mark.parametrize("ends_in_time", [True, False])
def test_an_audit_is_waited_for_as_long_as_an_answer_would_be(tmp_path: Path, ends_in_time: bool) -> None:
    gate = threading.Event()
    backend = FakeBackend(sure_at({}), gate=gate, gate_before=2)
    seconds = 60.0 if ends_in_time else 0.1
    service = make_service(tmp_path, backend, profiles=certified_profiles(), audit_share=1.0, drain_seconds=seconds)
    with client_of(service) as client:
        assert client.post("/classify", content=picture(1)).status_code == 200
        wait_until(lambda: service.scheduler.running != ())
        server = Listening()
        with socket.socket() as listener:
            draining = threading.Thread(target=lambda: asyncio.run(drain(cast(Server, server), service, listener, 0.0)))
            draining.start()
            if ends_in_time:
                wait_until(lambda: server.looks > 5)
                assert not server.has_ended, "it left an audit behind"
                gate.set()
            draining.join()
        assert server.has_ended
        assert (service.audit.pending == 0) == ends_in_time
        gate.set()
    assert service.audit.pending == 0
