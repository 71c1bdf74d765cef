"""`dvt bench` from its command line: a real load on a tiny server, results for machines, and mistakes in one line."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dvt
from benchmarks.connection import Target
from tests.benchmarks.fake_server import FakeServer, serving

QUICK = ("--seconds", "0.4", "--warmup", "0.1", "--photos", "3")


@contextmanager
def served(server: FakeServer) -> Iterator[Target]:
    """In a thread of its own, since the command runs its own event loop."""
    ready, stop = threading.Event(), asyncio.Event()
    found: list[tuple[Target, asyncio.AbstractEventLoop]] = []

    async def session() -> None:
        async with serving(server) as target:
            found.append((target, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(session(),))
    thread.start()
    assert ready.wait(10)
    target, loop = found[0]
    try:
        yield target
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def test_results_for_machines_stand_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer()
    with served(server) as target:
        url = f"http://127.0.0.1:{target.port}"
        assert dvt.main(["bench", "load", "--url", url, "--clients", "2", "--json", *QUICK]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    (run,) = document["runs"]
    assert run["clients"] == 2
    assert run["requests"] > 0
    assert run["errors"] == {}
    assert run["exit_shares"] == {"2": 1.0}
    assert run["server_cpu_ms"] is None, "that server is not ours to look into"
    assert "2 clients" in err
    assert all(body.startswith(b"\xff\xd8\xff") for body in server.bodies), "real JPEGs go over HTTP"


def test_a_picture_of_latency_against_offered_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = tmp_path / "latency.png"
    with served(FakeServer()) as target:
        url = f"http://127.0.0.1:{target.port}"
        arguments = ["bench", "load", "--url", url, "--rate", "50,100", "--png", str(png), "--json", *QUICK]
        assert dvt.main(arguments) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["offered_per_s"] for run in runs] == [50.0, 100.0]
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_any_answer_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with served(FakeServer(reply=lambda _: b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")) as target:
        url = f"http://127.0.0.1:{target.port}"
        assert dvt.main(["bench", "load", "--url", url, "--clients", "1", *QUICK]) == 1
    assert "500" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("load", "--url", "https://example.com"), "write http://HOST:PORT"),
        (("load", "--png", "x.png"), "--png needs --rate"),
        (("load", "bundle", "--url", "http://127.0.0.1:1"), "exclude each other"),
        (("load", "--pid", "1"), "--pid is for --url"),
        (("load", "--query", "top_k"), "write KEY=VALUE"),
        (("load", "--data", "nowhere"), "has no JPEG files below it"),
        (("engine", "nowhere"), "make it with `dvt bench geometry nowhere`"),
        (("geometry", "out", "--architecture", "dvt_nothing"), "unknown architecture"),
        (("peers", "--bundle", "nowhere"), "there is no bundle at"),
        (("server", "cpu", "--data", "nowhere"), "has no JPEG files below it"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dvt.main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"dvt bench {arguments[0]}: ")
    assert says in line


@pytest.mark.parametrize(
    "arguments", [("load", "--rate", "0"), ("load", "--rate", "many"), ("load", "--clients", "1", "--rate", "5"), ()]
)
def test_numbers_that_cannot_be_meant_are_refused_before_anything_runs(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stopped:
        dvt.main(["bench", *arguments])
    assert stopped.value.code == 2
