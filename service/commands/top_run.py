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


def tables_of(view: View, away: str = "") -> list[Table]:
    """For people; `away` tells why there was no answer lately."""
    load = view.load
    server = (
        ("address", printable(view.url)),
        ("model", printable(view.model)),
        ("takes work", away or ("yes" if load.ready else "no")),
        ("budget", printable(flags_of(view.budget.request) or json.dumps(view.budget.request))),
        ("in force", printable(point_in_words(view.budget.in_force))),
        ("revision", str(view.budget.revision)),
    )
    rates = (
        f"{load.requests_per_s:.1f}",
        f"{load.images_per_s:.1f}",
        f"{load.refused_per_s:.1f}",
        str(load.in_flight),
        "" if load.saved is None else f"{100 * load.saved:.0f} %",
    )
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
    return [
        Table("server", ("", ""), server),
        Table("load", ("requests/s", "images/s", "refused/s", "images inside", "computation saved"), (rates,)),
        Table("exits", ("", "share", "images/s", "p50 ms", "p99 ms", "waiting for it"), exits),
    ]


def _look(client: Client) -> Look:
    return read_look(client.metrics(), time.monotonic())


def _write(view: View, *, is_json: bool) -> None:
    if is_json:
        document = {"url": view.url, "model": view.model, **asdict(view.load), "budget": asdict(view.budget)}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        write_tables(tables_of(view), sys.stdout)


def _draw_for_ever(client: Client, url: str, model: str, before: Look, every_s: float) -> None:
    """Until Ctrl-C. A server that is away for a while, to restart, say, is waited for."""
    from rich.console import Group
    from rich.live import Live

    view, away = View(url, model, load_between(before, before), client.budget()), ""
    try:
        with Live(auto_refresh=False, screen=True) as live:
            while True:
                live.update(Group(*map(drawn, tables_of(view, away))), refresh=True)
                time.sleep(every_s)
                try:
                    now = _look(client)
                    view, before, away = View(url, model, load_between(before, now), client.budget()), now, ""
                except (UnreachableError, UnavailableError) as error:
                    away = f"no answer: {printable(str(error))}"
    except KeyboardInterrupt:
        return


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
