"""Tables for people: by rich where it is installed, plain otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True)
class Table:
    """Text cells under column heads; every row is as long as `columns`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_tables(tables: Sequence[Table], out: TextIO) -> None:
    """Write the tables one after another; the first column is left-aligned, the others are numbers."""
    try:
        import rich.console
    except ModuleNotFoundError:
        out.write("\n".join(plain(table) for table in tables))
        return
    # Where the output is no terminal rich would take 80 columns and break lines that a log has room for.
    console = rich.console.Console(file=out, width=None if out.isatty() else 120)
    for table in tables:
        console.print(drawn(table))


def drawn(table: Table) -> "rich.table.Table":
    """The table as rich draws it."""
    import rich.table
    from rich.text import Text

    # As text, or what stands in brackets would be taken for markup.
    picture = rich.table.Table(title=Text(table.title), title_justify="left", show_header=any(table.columns))
    for at, column in enumerate(table.columns):
        picture.add_column(column, justify="right" if at else "left")
    for row in table.rows:
        picture.add_row(*map(Text, row))
    return picture


def plain(table: Table) -> str:
    """The table as aligned text."""
    lines = (table.columns, *table.rows)
    widths = [max(len(line[at]) for line in lines) for at in range(len(table.columns))]
    text = [table.title]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text) + "\n"
