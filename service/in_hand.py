"""The request that is in hand, for those who are not told of it: lines of the log, and whoever counts an answer.

A context variable, so that requests side by side do not mix; threads that work for one request are started in its
context. What a request is about is handed down as values; this says whose work it is, and gathers what is told of it
when it has been answered.
"""

from contextvars import ContextVar
from dataclasses import dataclass

from service.types import Answer


@dataclass(frozen=True)
class TracedImage:
    """How an image was answered, so long after its request came; `decode_began_s` None where nothing was decoded."""

    index: int
    answer: Answer
    total_s: float
    decode_began_s: float | None
    decode_s: float


@dataclass
class InHand:
    """`code`: of the problem that it was answered with, if any. `images`: None where nobody traces them."""

    request_id: str
    code: str | None = None
    body_read_s: float | None = None
    images: list[TracedImage] | None = None


IN_HAND: ContextVar[InHand | None] = ContextVar("dvt_in_hand", default=None)
