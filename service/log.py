"""Logs to standard error: plain lines for people, JSON lines for machines. Never image bytes, keys or result ids.

Every line that is about a request has its `request_id`.
"""

import json
import logging
import sys
import time
from typing import Literal, TextIO

from service.in_hand import IN_HAND

LOGGER = "dvt"

# What every LogRecord has by itself; the rest came in through `extra` and belongs to the event.
_STANDARD = set(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, event, then whatever the event carries."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(_extras(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class PlainFormatter(logging.Formatter):
    """Time of day, level, event, then key=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is logging's)
        pairs = " ".join(f"{key}={value}" for key, value in _extras(record).items())
        # A value from outside may hold a line feed: it must not look like a line of ours.
        line = super().formatMessage(record)
        return f"{line} {pairs}".rstrip().replace("\n", "\\n").replace("\r", "\\r")


def _extras(record: logging.LogRecord) -> dict[str, object]:
    """What the event carries, and whose work it was."""
    extras = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    in_hand = IN_HAND.get()
    return extras if in_hand is None else {"request_id": in_hand.request_id, **extras}


def configure(form: Literal["auto", "plain", "json"], level: str, stream: TextIO | None = None) -> None:
    """Send our logs, and the libraries' warnings, to `stream` (standard error). Called once, by the command."""
    stream = stream or sys.stderr
    as_json = form == "json" or (form == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    for name, threshold in (
        (LOGGER, level.upper()),
        ("uvicorn", "WARNING"),
        ("asyncio", "WARNING"),
        ("opentelemetry", "WARNING"),
    ):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(threshold)


def get_logger() -> logging.Logger:
    return logging.getLogger(LOGGER)
