"""Logs: one line an event, whatever it carries."""

import contextvars
import io
import json

import pytest

from service import log
from service.in_hand import IN_HAND, InHand

pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def test_json_lines_carry_what_the_event_does() -> None:
    stream = io.StringIO()
    log.configure("auto", "info", stream)
    log.get_logger().info("request", extra={"status": 200, "route": "/x\ny"})
    log.get_logger().debug("unheard")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert {key: event[key] for key in ("level", "event", "status", "route")} == {
        "level": "info",
        "event": "request",
        "status": 200,
        "route": "/x\ny",
    }
    assert event["time"].endswith("Z")


def test_plain_lines_stay_one_line_each() -> None:
    stream = io.StringIO()
    log.configure("plain", "info", stream)
    log.get_logger().info("request", extra={"route": "/x\nINFO forged"})
    (line,) = stream.getvalue().splitlines()
    assert "request route=/x\\nINFO forged" in line


def test_an_exception_is_told() -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    try:
        raise KeyError("why")
    except KeyError:
        log.get_logger().exception("bug")
    assert "KeyError: 'why'" in json.loads(stream.getvalue())["exception"]


def test_a_line_says_whose_work_it_is_about() -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    in_context = contextvars.copy_context()
    in_context.run(IN_HAND.set, InHand("mine"))
    in_context.run(log.get_logger().info, "of a request")
    log.get_logger().info("of none")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("request_id") for line in lines] == ["mine", None]
