"""Pieces of docs/performance.md: paragraphs, tables, and where something was measured."""

import textwrap

from benchmarks.machine import Environment
from models.tables import Table


def where(environment: Environment) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    machine = f"{environment.cpu}, {environment.cores} cores"
    return f"{machine}, Python {environment.python}, {packages}; {environment.date} UTC."


def paragraph(text: str) -> list[str]:
    """Lines of readable length, and an empty one after them."""
    return [*textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False), ""]


def markdown(table: Table, *, headed: bool = False) -> list[str]:
    """The table with an empty line after it."""
    lines = [f"**{table.title}**", ""] if headed else []
    lines += ["| " + " | ".join(row) + " |" for row in (table.columns, ("---",) * len(table.columns), *table.rows)]
    return [*lines, ""]
