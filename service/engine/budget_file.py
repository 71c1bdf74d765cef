"""budget.json: what was asked and by whom, written so that a crash leaves the old budget or the new, never neither."""

import logging
from dataclasses import dataclass
from pathlib import Path

from service.engine.catalogue import BudgetRequest
from service.engine.state_file import StateFile
from service.types import Thresholds

SCHEMA_VERSION = 1
NAME = "budget"
FILE, LOCK = f"{NAME}.json", f"{NAME}.lock"
# Of a change a day, a third of a year; of one a minute, an hour and a half.
HISTORY = 100


@dataclass(frozen=True)
class Change:
    """One revision: when it was asked for (UTC, ISO 8601), and whose key asked.

    Or, with a `note`, what happened under it without anybody asking.
    """

    revision: int
    at: str
    by: str
    request: BudgetRequest
    note: str | None = None


@dataclass(frozen=True)
class Stored:
    """The file. `bundle` is the pair of hashes that the budget belongs to, `thresholds` what the request meant when it
    was put in force, `history` the last changes, the newest last. `fallback`: the profile that stands in for all of it
    until the next change."""

    bundle: str
    revision: int
    request: BudgetRequest
    thresholds: Thresholds | None = None
    history: tuple[Change, ...] = ()
    fallback: str | None = None
    schema_version: int = SCHEMA_VERSION


class BudgetFile(StateFile[Stored]):
    """The file in `folder`, which several processes may share."""

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        super().__init__(folder, NAME, Stored, log)
