"""Results that are kept: one JSON file a subject, written after each piece: a run can go on where it stopped."""

from pathlib import Path
from typing import TypeVar

from benchmarks.photos import ROOT
from models import strict_json
from models.bundle import write_file_atomically

RESULTS = ROOT / "benchmarks" / "results"

T = TypeVar("T")


def read_results(cls: type[T], path: Path) -> T | None:
    """None where nothing was kept yet. Raises `strict_json.SchemaError` for a file of another version."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return strict_json.loads(cls, text, str(path))


def write_results(document: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file_atomically(path, strict_json.dumps(document).encode())
