"""A JSON file of the state folder: shared by processes under a lock, and after a crash the old content or the new."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from models import strict_json
from models.bundle import write_file_atomically

T = TypeVar("T")


class StateFile(Generic[T]):
    """`folder`/`name`.json, which holds a dataclass of `kind`, beside its lock."""

    def __init__(self, folder: Path, name: str, kind: type[T], log: logging.Logger) -> None:
        self._folder = folder
        self._name = name
        self._path = folder / f"{name}.json"
        self._kind = kind
        self._log = log

    def read(self) -> T | None:
        """None where there is none, or one that cannot be read: the log tells, and it will be replaced."""
        try:
            return strict_json.loads(self._kind, self._path.read_text(encoding="utf-8"), str(self._path))
        except FileNotFoundError:
            return None
        except (strict_json.SchemaError, UnicodeDecodeError) as error:
            self._log.warning(f"stored {self._name} cannot be read and is replaced", extra={"error": str(error)})
            return None

    def write(self, stored: T) -> None:
        """Raises `OSError`, and then has changed nothing."""
        write_file_atomically(self._path, strict_json.dumps(stored).encode())

    def tidy(self) -> None:
        """Remove what a killed process left half written. Only under the lock, where nobody writes."""
        for left in self._folder.glob(f".{self._path.name}.*"):
            left.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among processes that share the folder."""
        with (self._folder / f"{self._name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
