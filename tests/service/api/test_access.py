"""Which requests the log tells of."""

import itertools
import logging
from dataclasses import replace

import pytest

from service.api.access import Access, AccessLog

GOOD = Access("id", "POST", "/classify", 200, 0.002, None)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    return [(record.levelname, getattr(record, "why", None)) for record in caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.INFO)
    return logging.getLogger("dvt.test.access")


def test_a_share_of_good_requests_is_told(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    chances = itertools.cycle((0.05, 0.1, 0.5, 0.99))
    access = AccessLog(log, 0.1, 1.0, lambda: next(chances))
    for _ in range(40):
        access.tell(GOOD)
    assert told(caplog) == [("INFO", "sampled")] * 10


def test_whoever_failed_or_was_slow_is_told_always(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    access = AccessLog(log, 0.0, 1.0)
    for status in (200, 404, 429, 0):
        access.tell(replace(GOOD, status=status))
    assert told(caplog) == []
    access.tell(replace(GOOD, status=503, code="overloaded"))
    access.tell(replace(GOOD, seconds=1.2))
    assert told(caplog) == [("INFO", "failed"), ("INFO", "slow")]
    failed = vars(caplog.records[0])
    seen = {name: failed[name] for name in ("request_id", "method", "route", "status", "ms", "code")}
    assert seen == {
        "request_id": "id",
        "method": "POST",
        "route": "/classify",
        "status": 503,
        "ms": 2.0,
        "code": "overloaded",
    }


def test_probes_and_scrapes_are_for_the_level_debug(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    access = AccessLog(log, 1.0, 0.0)
    for route in ("/health/ready", "/v2/health/live", "/metrics"):
        access.tell(replace(GOOD, route=route, status=503))
    assert told(caplog) == []
    caplog.set_level(logging.DEBUG)
    access.tell(replace(GOOD, route="/metrics"))
    assert told(caplog) == [("DEBUG", "slow")]


def test_the_level_debug_tells_of_every_request(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    AccessLog(log, 0.0, 1.0).tell(GOOD)
    assert told(caplog) == [("DEBUG", None)]
