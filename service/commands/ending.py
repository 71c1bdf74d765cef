"""How a command ends: an exit code for each kind of ending, and one line on standard error that tells the way out."""

import os
import sys
from collections.abc import Callable
from enum import IntEnum


class Ending(IntEnum):
    """Exit codes. Misuse is 2 for all of `dvt`, as argparse has it; an interrupt gives 130, a closed pipe 141."""

    DONE = 0
    IMAGES_FAILED = 1
    MISUSE = 2
    UNREACHABLE = 3
    REFUSED = 4
    UNAVAILABLE = 5
    PIPE_CLOSED = 141


EPILOG = (
    "Exit codes: 0 done; 1 images failed, the others were answered; 2 misuse; 3 no answer from the server; "
    "4 it refuses; 5 it cannot now. Errors are one line on standard error."
)


def end(command: str, work: Callable[[], int]) -> int:
    """What `work` returns, or the code of its error, told in one line that begins with `command`."""
    from dvt_client import AnswerError, ProblemError, UnauthorizedError, UnreachableError
    from service.errors import ServiceError

    try:
        code = work()
        sys.stdout.flush()
        return code
    except UnreachableError as error:
        return _tell(command, f"{error}; start one with `dvt serve`, or name another with --url", Ending.UNREACHABLE)
    except UnauthorizedError as error:
        way_out = "put the key into DVT_KEY, or the name of a file with it into DVT_KEY_FILE"
        return _tell(command, f"{error.detail}; {way_out}", Ending.REFUSED)
    except ProblemError as error:
        is_for_now = error.status >= 500 or error.status == 429
        return _tell(command, f"{error.detail} ({error.code})", Ending.UNAVAILABLE if is_for_now else Ending.REFUSED)
    except AnswerError as error:
        return _tell(command, f"{error}; is that a dvt service of this version?", Ending.UNREACHABLE)
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Ending.PIPE_CLOSED
    except ServiceError as error:  # Of a bundle that is opened here, and settings that do not fit it.
        return _tell(command, error.detail, Ending.MISUSE)
    except (ValueError, OSError) as error:
        return _tell(command, str(error), Ending.MISUSE)


def _tell(command: str, text: str, code: Ending) -> int:
    print(f"{command}: {printable(text)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    """On one line, and without what would command a terminal: names of files and labels come from anywhere."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))
