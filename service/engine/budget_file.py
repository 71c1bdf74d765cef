"""budget.json: what was asked and by whom, written so that a crash leaves the old budget or the new, never neither."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models import strict_json
from models.bundle import write_file_atomically
from service.engine.catalogue import BudgetRequest
from service.types import Thresholds

SCHEMA_VERSION = 1
FILE, LOCK = "budget.json", "budget.lock"
# Of a change a day, a third of a year; of one a minute, an hour and a half.
HISTORY = 100


@dataclass(frozen=True)
class Change:
    """One revision: when it was asked for (UTC, ISO 8601), and whose key asked."""

    revision: int
    at: str
    by: str
    request: BudgetRequest


@dataclass(frozen=True)
class Stored:
    """The file. `bundle` is the pair of hashes that the budget belongs to, `thresholds` what the request meant when it
    was put in force, `history` the last changes, the newest last."""

    bundle: str
    revision: int
    request: BudgetRequest
    thresholds: Thresholds | None = None
    history: tuple[Change, ...] = ()
    schema_version: int = SCHEMA_VERSION


class BudgetFile:
    """The file in `folder`, which several processes may share."""

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        self._folder = folder
        self._log = log

    def read(self) -> Stored | None:
        """None where there is none, or one that cannot be read: the log tells, and it will be replaced."""
        path = self._folder / FILE
        try:
            return strict_json.loads(Stored, path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            return None
        except (strict_json.SchemaError, UnicodeDecodeError) as error:
            self._log.warning("stored budget cannot be read and is replaced", extra={"error": str(error)})
            return None

    def write(self, stored: Stored) -> None:
        """Raises `OSError`, and then has changed nothing."""
        write_file_atomically(self._folder / FILE, strict_json.dumps(stored).encode())

    def tidy(self) -> None:
        """Remove what a killed process left half written. Only under the lock, where nobody writes."""
        for left in self._folder.glob(f".{FILE}.*"):
            left.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among processes that share the folder."""
        with (self._folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
