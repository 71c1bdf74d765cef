"""Tables for people: with rich and without."""

import builtins
import io

import pytest

from models.tables import Table, plain, write_tables

TABLE = Table("Exits", ("exit", "top-1"), (("1 (7x7)", "92.10%"), ("2 (10x10)", "9.00%")))


def test_a_plain_table_is_aligned() -> None:
    assert plain(TABLE) == "Exits\nexit        top-1\n1 (7x7)    92.10%\n2 (10x10)   9.00%\n"


def test_without_rich_the_plain_table_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_rich(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("rich"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_rich)
    out = io.StringIO()
    write_tables([TABLE, TABLE], out)
    assert out.getvalue() == plain(TABLE) + "\n" + plain(TABLE)


def test_with_rich_every_cell_is_there() -> None:
    out = io.StringIO()
    write_tables([TABLE], out)
    assert all(cell in out.getvalue() for row in (TABLE.columns, *TABLE.rows) for cell in row)
