"""The request that is in hand, for those who are not told of it: lines of the log, and whoever counts an answer.

A context variable, so that requests side by side do not mix; threads that work for one request are started in its
context. What a request is about is handed down as values; this says only whose work it is.
"""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class InHand:
    """`code`: of the problem that it was answered with, if any."""

    request_id: str
    code: str | None = None


IN_HAND: ContextVar[InHand | None] = ContextVar("dvt_in_hand", default=None)
