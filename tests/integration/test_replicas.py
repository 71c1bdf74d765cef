"""Several replicas with one budget, through a real Redis: followed, never set back, and kept where Redis is gone."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.deps import Service
from service.redis_channel import KEY
from tests.service.cascades import ADMIN, client_of, make_service, picture, small_profiles, wait_until

PASSWORD = "between-us"

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed (Debian: apt-get install redis-server)"
)


class RedisServer:
    """A real one, without a disk, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port: int = listener.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"port": self._port, "requirepass": PASSWORD, "save": "", "bind": "127.0.0.1", "dir": self._folder}
        command = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: self.command("PING") == "PONG")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def command(self, *words: str) -> str:
        asked = ["redis-cli", "-p", str(self._port), "-a", PASSWORD, "--no-auth-warning", *words]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@contextmanager
def replica(folder: Path, redis: RedisServer) -> Iterator[TestClient]:
    folder.mkdir(exist_ok=True)
    with client_of(make_service(folder, profiles=small_profiles(), redis_url=redis.url)) as client:
        wait_until(lambda: "dvt_replicas_connected 1.0" in client.get("/metrics").text)
        yield client


def service_of(client: TestClient) -> Service:
    return cast(Service, cast(FastAPI, client.app).state.service)


def budget_of(client: TestClient) -> tuple[int, dict[str, object]]:
    budget = client.get("/budget").json()
    return budget["revision"], budget["request"]


def test_a_change_at_one_replica_is_followed_by_the_others_and_by_who_comes_later(
    tmp_path: Path, redis: RedisServer
) -> None:
    with replica(tmp_path / "a", redis) as one, replica(tmp_path / "b", redis) as other:
        put = one.put("/budget", json={"profile": "fast"}, headers={**ADMIN, "If-Match": '"1"'})
        assert (put.status_code, put.json()["revision"]) == (200, 2)
        wait_until(lambda: budget_of(other) == (2, {"profile": "fast"}))
        assert "dvt_budget_revision 2.0" in other.get("/metrics").text
        late = other.put("/budget", json={"profile": "full"}, headers={**ADMIN, "If-Match": '"1"'})
        assert (late.status_code, late.json()["code"]) == (412, "revision_changed")
        assert other.put("/budget", json={"profile": "fast"}, headers=ADMIN).json()["revision"] == 2
        with replica(tmp_path / "c", redis) as third:
            wait_until(lambda: budget_of(third) == (2, {"profile": "fast"}))
            history = third.get("/budget/history", headers=ADMIN).json()["changes"]
            assert [change["revision"] for change in history] == [2, 1]


def test_a_range_is_followed_like_any_budget_and_each_replica_steers_by_its_own_load(
    tmp_path: Path, redis: RedisServer
) -> None:
    auto = {"auto": {"p99_ms": 60_000.0, "floor": "fast", "ceiling": "accurate"}}
    with replica(tmp_path / "a", redis) as one, replica(tmp_path / "b", redis) as other:
        assert one.put("/budget", json=auto, headers=ADMIN).json()["revision"] == 2
        wait_until(lambda: budget_of(other) == (2, auto))
        service = service_of(other)
        service.steering._work_s = lambda images: 1000.0
        wait_until(lambda: other.get("/budget").json()["in_force"]["profile"] == "fast")
        assert one.get("/budget").json()["in_force"]["profile"] == "accurate"
        assert budget_of(one) == budget_of(other) == (2, auto)
        assert one.put("/budget", json={"profile": "full"}, headers={**ADMIN, "If-Match": '"2"'}).status_code == 200
        wait_until(lambda: budget_of(other) == (3, {"profile": "full"}))


def test_replicas_that_change_it_at_once_agree_in_the_end(tmp_path: Path, redis: RedisServer) -> None:
    with replica(tmp_path / "a", redis) as one, replica(tmp_path / "b", redis) as other:

        def put(number: int) -> int:
            client = (one, other)[number % 2]
            answer = client.put("/budget", json={"thresholds": [0.5, number / 100]}, headers=ADMIN)
            assert answer.status_code == 200, answer.text
            return int(answer.json()["revision"])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(12)))
        wait_until(lambda: budget_of(one) == budget_of(other))
        assert budget_of(one)[0] == 13, "each change was one revision"


def test_without_redis_the_last_budget_stays_and_cannot_be_changed_and_nothing_goes_back(
    tmp_path: Path, redis: RedisServer
) -> None:
    with replica(tmp_path / "a", redis) as one, replica(tmp_path / "b", redis) as other:
        one.put("/budget", json={"profile": "fast"}, headers=ADMIN)
        wait_until(lambda: budget_of(other)[0] == 2)
        redis.stop()
        refused = one.put("/budget", json={"profile": "full"}, headers=ADMIN)
        assert (refused.status_code, refused.json()["code"]) == (503, "replicas_unreachable")
        assert "Retry-After" in refused.headers
        wait_until(lambda: "dvt_replicas_connected 0.0" in one.get("/metrics").text)
        assert budget_of(one) == budget_of(other) == (2, {"profile": "fast"})
        assert one.post("/classify", content=picture(1)).json()["budget"]["revision"] == 2
        redis.start()
        wait_until(lambda: "dvt_replicas_connected 1.0" in one.get("/metrics").text)
        wait_until(lambda: '"revision": 2' in redis.command("GET", KEY))
        assert one.put("/budget", json={"profile": "full"}, headers=ADMIN).json()["revision"] == 3
        wait_until(lambda: budget_of(other) == (3, {"profile": "full"}))


@pytest.mark.parametrize("payload", ["{", '{"revision": 99}', '{"schema_version": 2}', "\\xff"])
def test_what_cannot_be_read_is_neither_followed_nor_written_over(
    tmp_path: Path, redis: RedisServer, payload: str
) -> None:
    with replica(tmp_path / "a", redis) as client:
        redis.command("SET", KEY, payload)
        redis.command("PUBLISH", KEY, "99")
        refused = client.put("/budget", json={"profile": "fast"}, headers=ADMIN)
        assert (refused.status_code, refused.json()["code"]) == (503, "replicas_unreachable")
        assert budget_of(client) == (1, {"profile": "balanced"})
        assert redis.command("GET", KEY) == payload


def test_a_budget_that_means_nothing_here_is_not_followed(tmp_path: Path, redis: RedisServer) -> None:
    with replica(tmp_path / "a", redis) as client:
        stored = redis.command("GET", KEY)
        redis.command("SET", KEY, stored.replace('"revision": 1', '"revision": 7').replace("balanced", "turbo"))
        redis.command("PUBLISH", KEY, "7")
        time.sleep(0.2)
        assert budget_of(client) == (1, {"profile": "balanced"})
        assert client.put("/budget", json={"profile": "fast"}, headers=ADMIN).json()["revision"] == 8


def test_a_url_that_makes_no_sense_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DVT_REDIS_URL makes no sense"):
        make_service(tmp_path, profiles=small_profiles(), redis_url="http://nowhere")
