import csv
import json
from pathlib import Path

import pytest

from dvt_client import DoneEvent, Event, ExitEvent, ImageResult, ResultEvent
from dvt_client.events import EventParser, events_in
from dvt_client.parsing import read
from service.commands.classify_report import Answered, Failed, Report, Tally
from tests.dvt_client.samples import RESULT, WHOLE_STREAM

ANSWERED = Answered("cat.jpg", read(ImageResult, RESULT))
FAILED = Failed("c.jpg", "corrupt_image", "truncated")


def events() -> list[Event]:
    return list(events_in(EventParser().feed(WHOLE_STREAM)))


def test_a_followed_photo_is_told_exit_by_exit(capsys: pytest.CaptureFixture[str]) -> None:
    with Report(is_json=False, csv_file=None) as report:
        for event in events():
            report.event("cat.jpg", event)
        report.outcome(ANSWERED)
    name, first, second, result, other = capsys.readouterr().out.splitlines()
    assert name == "cat.jpg"
    assert first == "  exit 1 of 3, 7x7 tokens: cat 61.0 %, goes on, confidence 0.610 of 0.830, 0.100 GMACs, 12.3 ms"
    assert "exit 2 of 3" in second
    assert "leaves here" in second
    assert result.startswith(
        "  cat.jpg: cat 61.0 %, exit 1 of 3 (7x7 tokens, confident), 0.100 GMACs (90 % saved), 5.0"
    )
    assert other == "    dog 30.0 %"


def test_for_programs_events_tell_all_and_nothing_is_told_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with Report(is_json=True, csv_file=None) as report:
        for event in (each for each in events() if isinstance(each, ExitEvent | ResultEvent | DoneEvent)):
            report.event("cat.jpg", event)
        report.outcome(ANSWERED)
        report.outcome(FAILED)
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line.get("event") for line in lines] == ["exit", "exit", "result", "done", None]
    assert lines[2]["result"]["id"] == RESULT["id"]
    assert lines[4] == {"photo": "c.jpg", "error": {"code": "corrupt_image", "detail": "truncated"}}
    assert captured.err == "dvt classify: c.jpg: truncated\n"


def test_a_table_keeps_whatever_stands_in_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = 'a,"b"\n\x1b[2J.jpg'
    with Report(is_json=False, csv_file=tmp_path / "t.csv") as report:
        report.outcome(Answered(odd, ANSWERED.result))
        report.outcome(FAILED)
    with (tmp_path / "t.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["photo"], first["label"], first["gmacs"], first["error"]) == (odd, "cat", "0.1", "")
    assert (second["label"], second["error"]) == ("", "corrupt_image: truncated")
    assert capsys.readouterr().out == "", "who asks for a file has no lines too"


def test_a_table_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Report(is_json=False, csv_file=tmp_path / "none" / "t.csv")


def test_the_sum_of_it_counts_what_was_answered() -> None:
    tally = Tally()
    for outcome in (ANSWERED, FAILED, ANSWERED):
        tally.add(outcome)
    assert tally.in_words() == "2 of 3 photos answered; 100 % at exit 1; 0.100 GMACs each"
    none = Tally()
    none.add(FAILED)
    assert none.in_words() == "0 of 1 photos answered"
