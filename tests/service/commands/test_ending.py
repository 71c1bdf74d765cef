from collections.abc import Callable

import pytest

from dvt_client import AnswerError, Problem, ProblemError, UnauthorizedError, UnavailableError, UnreachableError
from service.commands.ending import Ending, end, printable
from service.errors import UnknownProfileError


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


def problem(status: int) -> Problem:
    return Problem(status, "some_code", "", "the server's words")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnreachableError("nothing answers"), Ending.UNREACHABLE),
        (AnswerError("no JSON"), Ending.UNREACHABLE),
        (UnauthorizedError(problem(401)), Ending.REFUSED),
        (ProblemError(problem(422)), Ending.REFUSED),
        (UnavailableError(problem(429)), Ending.UNAVAILABLE),
        (ProblemError(problem(500)), Ending.UNAVAILABLE),
        (UnknownProfileError("no such profile"), Ending.MISUSE),
        (ValueError("two\nlines"), Ending.MISUSE),
        (FileNotFoundError(2, "No such file", "table.csv"), Ending.MISUSE),
    ],
)
def test_each_kind_of_error_is_one_line_and_a_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end("dvt classify", raising(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dvt classify: ")
    assert captured.err.count("\n") == 1


def test_what_went_well_keeps_its_code() -> None:
    assert end("dvt classify", lambda: 1) == 1


def test_a_bug_is_not_dressed_up() -> None:
    with pytest.raises(KeyError):
        end("dvt classify", raising(KeyError("bug")))


def test_a_name_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202ed é") == "a?[2Jb c?d é"
