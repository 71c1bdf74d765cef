"""Server-sent events (the HTML standard, section 9.2) out of chunks cut anywhere, and what they mean here.

For each image come its exits in order, then its result or its error; images interleave. `Done` is the last of all.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dvt_client.answers import BudgetRef, Compute, ImageResult, ModelRef, Prediction
from dvt_client.errors import AnswerError, Problem
from dvt_client.parsing import load, read

# An event holds at most one result; whoever sends so much without ending it sends none.
_LONGEST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class ExitWord:
    """What one exit says: `threshold` is what it asks for, None at the last and where nobody may leave."""

    number: int
    of: int
    grid: int
    confidence: float
    threshold: float | None


@dataclass(frozen=True)
class ExitEvent:
    """Image `index` has reached an exit; `leaves` if that one decides. `compute` is the cost so far."""

    index: int
    exit: ExitWord
    leaves: bool
    predictions: tuple[Prediction, ...]
    compute: Compute
    elapsed_ms: float


@dataclass(frozen=True)
class ResultEvent:
    """The answer to image `index`."""

    index: int
    result: ImageResult


@dataclass(frozen=True)
class ErrorEvent:
    """There is no answer to image `index`, or to none that is left if that is None."""

    index: int | None
    error: Problem


@dataclass(frozen=True)
class DoneEvent:
    """The end: every image has its result or its error."""

    request_id: str
    model: ModelRef
    budget: BudgetRef


Event = ExitEvent | ResultEvent | ErrorEvent | DoneEvent

_KINDS: Mapping[str, type[Event]] = {
    "exit": ExitEvent,
    "result": ResultEvent,
    "error": ErrorEvent,
    "done": DoneEvent,
}


@dataclass(frozen=True)
class RawEvent:
    """Name and data of an event, as sent."""

    name: str
    data: str


class EventParser:
    """Bytes in, whole events out. Lines end in LF, CR or CR LF; comments and what nobody asked for are passed over.

    An event that is cut off by the end of the stream is none, as the standard has it.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skips_lf = False
        self._is_first = True
        self._name = ""
        self._data: list[str] = []
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[RawEvent]:
        """Events that this chunk completes. Raises `AnswerError` for one that is far too long."""
        if self._skips_lf and chunk:
            self._skips_lf = False
            chunk = chunk.removeprefix(b"\n")
        lines = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        # A CR at the very end has ended its line; the LF that may follow belongs to it.
        self._skips_lf = self._skips_lf or chunk.endswith(b"\r")
        self._rest = lines.pop()
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event
        if self._held_bytes + len(self._rest) > _LONGEST_BYTES:
            raise AnswerError(f"an event has more than {_LONGEST_BYTES} bytes")

    def _line(self, line: bytes) -> RawEvent | None:
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._end()
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
            self._held_bytes += len(line)
        return None

    def _end(self) -> RawEvent | None:
        event = RawEvent(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name, self._data, self._held_bytes = "", [], 0
        return event


def events_in(raws: Iterable[RawEvent]) -> Iterator[Event]:
    """What events mean; those of a name that this client does not know are passed over. Raises `AnswerError`."""
    for raw in raws:
        if raw.name in _KINDS:
            yield read(_KINDS[raw.name], load(raw.data.encode()), f"event {raw.name}")
