import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvt_client import AnswerError, DoneEvent, ErrorEvent, ExitEvent, ResultEvent
from dvt_client.events import EventParser, RawEvent, events_in
from tests.dvt_client.samples import WHOLE_STREAM, event


def chunks_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(stream) + 1) for cut in cuts})
    return [stream[begin:end] for begin, end in zip([0, *at], [*at, len(stream)], strict=True)]


def parsed(chunks: list[bytes]) -> list[RawEvent]:
    parser = EventParser()
    return [raw for chunk in chunks for raw in parser.feed(chunk)]


LINES = st.lists(
    st.sampled_from(
        ["event: a", "event:b", "data: x", "data:", "data: ä\u2028ö", "data", ": heartbeat", "id: 1", "", ""]
    ),
    max_size=20,
)
ENDS = st.lists(st.sampled_from(["\n", "\r", "\r\n"]), min_size=21, max_size=21)


@given(lines=LINES, ends=ENDS, cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_however_the_stream_is_cut_the_events_are_the_same(lines: list[str], ends: list[str], cuts: list[int]) -> None:
    stream = "".join(line + end for line, end in zip(lines, ends, strict=False)).encode()
    whole = parsed([stream])
    assert parsed(chunks_of(stream, cuts)) == whole
    assert parsed([bytes([byte]) for byte in stream]) == whole


@given(cuts=st.lists(st.integers(0, 10_000), max_size=60))
def test_a_whole_answer_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    events = list(events_in(parsed(chunks_of(WHOLE_STREAM, cuts))))
    assert [type(each) for each in events] == [ExitEvent, ExitEvent, ResultEvent, ErrorEvent, DoneEvent]
    first, second, result, error, done = events
    assert isinstance(first, ExitEvent) and isinstance(second, ExitEvent)
    assert (first.exit.number, first.exit.threshold, first.leaves) == (1, 0.83, False)
    assert (second.exit.threshold, second.leaves, second.predictions[1].label) == (None, True, "dog")
    assert isinstance(result, ResultEvent) and result.result.label == "cat"
    assert isinstance(error, ErrorEvent) and (error.index, error.error.code) == (1, "corrupt_image")
    assert isinstance(done, DoneEvent) and done.budget.revision == 7


def test_an_event_is_whole_only_with_the_empty_line_after_it() -> None:
    assert parsed([b"data: 1\n"]) == []
    assert parsed([b"data: 1\n", b"\n"]) == [RawEvent("message", "1")]


def test_a_cr_ends_a_line_without_waiting_for_what_comes_next() -> None:
    assert parsed([b"data: 1\r", b"\r"]) == [RawEvent("message", "1")]
    assert parsed([b"data: 1\r", b"\n", b"data: 2\r\n\r", b"\n"]) == [RawEvent("message", "1\n2")]


def test_lines_of_data_are_joined_one_space_and_a_byte_order_mark_are_dropped() -> None:
    assert parsed([b"\xef\xbb\xbfevent: a\ndata:  x\ndata\n\n"]) == [RawEvent("a", " x\n")]


def test_an_event_of_an_unknown_name_is_passed_over() -> None:
    assert list(events_in(parsed([event("news", {"a": 1}) + b"event: done\n\n"]))) == []


@pytest.mark.parametrize("data", ["{", "[]", "{}", '{"index": 0, "result": {}}'])
def test_an_event_that_makes_no_sense_is_an_error_of_the_answer(data: str) -> None:
    with pytest.raises(AnswerError):
        list(events_in([RawEvent("result", data)]))


def test_an_event_without_end_is_not_kept_for_ever() -> None:
    parser, chunk = EventParser(), b"x" * (1 << 20)
    with pytest.raises(AnswerError, match="more than"):
        for _ in range(20):
            list(parser.feed(chunk))
    parser = EventParser()
    with pytest.raises(AnswerError, match="more than"):
        for _ in range(20):
            list(parser.feed(b"data: " + chunk + b"\n"))
