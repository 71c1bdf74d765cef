"""What `dvt top` does: look at a server again and again, and draw what happened in between."""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass

from dvt_client import Budget, Client, UnavailableError, UnreachableError
from models.tables import Table, drawn, write_tables
from service.commands.budget_run import flags_of, point_in_words
from service.commands.connection import operator_key, url_or_local
from service.commands.ending import Ending, printable
from service.commands.load import Load, Look, load_between, read_look


@dataclass(frozen=True)
class View:
    """What is shown: the load of the last while, and the budget now."""

    url: str
    model: str
    load: Load
    budget: Budget


def run(args: argparse.Namespace) -> int:
    """Raises as the client does, and `ValueError` where there is no terminal to draw on."""
    is_single = args.once or args.json
    if not is_single and not sys.stdout.isatty():
        raise ValueError("standard output is no terminal; --once or --json take a single look")
    url = url_or_local(args.url, os.environ)
    with Client(url, key=operator_key(os.environ, url)) as client:
        model = client.model().name
        before = _look(client)
        if is_single:
            time.sleep(args.every)
            view = View(url, model, load_between(before, _look(client)), client.budget())
            _write(view, is_json=args.json)
        else:
            _draw_for_ever(client, url, model, before, args.every)
    return Ending.DONE


def tables_of(view: View, title: str) -> list[Table]:
    """For people."""
    load = view.load
    rates = [
        ("requests/s", f"{load.requests_per_s:.1f}"),
        ("images/s", f"{load.images_per_s:.1f}"),
        ("refused/s", f"{load.refused_per_s:.1f}"),
        ("images inside", str(load.in_flight)),
        ("computation saved", "" if load.saved is None else f"{100 * load.saved:.0f} %"),
        ("takes work", "yes" if load.ready else "no"),
    ]
    exits = tuple(
        (
            f"exit {each.number}",
            "" if each.share is None else f"{100 * each.share:.1f} %",
            f"{each.images_per_s:.1f}",
            _ms(each.p50_ms),
            _ms(each.p99_ms),
            str(waiting),
        )
        for each, waiting in zip(load.exits, load.queued, strict=False)
    )
    budget = (
        ("asked", printable(flags_of(view.budget.request) or json.dumps(view.budget.request))),
        ("in force", printable(point_in_words(view.budget.in_force))),
    )
    return [
        Table(title, ("", ""), tuple(rates)),
        Table("exits", ("", "share", "images/s", "p50 ms", "p99 ms", "waiting for it"), exits),
        Table(f"budget, revision {view.budget.revision}", ("", ""), budget),
    ]


def _look(client: Client) -> Look:
    return read_look(client.metrics(), time.monotonic())


def _write(view: View, *, is_json: bool) -> None:
    if is_json:
        sys.stdout.write(json.dumps({"url": view.url, "model": view.model, **asdict(view.load)} | _budget(view)) + "\n")
    else:
        write_tables(tables_of(view, _title(view)), sys.stdout)


def _budget(view: View) -> dict[str, object]:
    return {"budget": asdict(view.budget)}


def _draw_for_ever(client: Client, url: str, model: str, before: Look, every_s: float) -> None:
    """Until Ctrl-C. A server that is away for a while, to restart, say, is waited for."""
    from rich.console import Group
    from rich.live import Live

    view: View | None = None
    try:
        with Live(auto_refresh=False, screen=True) as live:
            live.update(Group(f"{printable(url)}: looking for {every_s:g} s"), refresh=True)
            while True:
                time.sleep(every_s)
                away = ""
                try:
                    now = _look(client)
                    view, before = View(url, model, load_between(before, now), client.budget()), now
                except (UnreachableError, UnavailableError) as error:
                    away = f" - no answer: {printable(str(error))}"
                title = time.strftime("%H:%M:%S") + away
                if view is not None:
                    title = f"{_title(view)}  {title}"
                    live.update(Group(*map(drawn, tables_of(view, title))), refresh=True)
                else:
                    live.update(Group(title), refresh=True)
    except KeyboardInterrupt:
        return


def _title(view: View) -> str:
    return printable(f"{view.model} at {view.url}")


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
