"""What `dvt budget` does: one call of the client, then words, a table, or JSON."""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from dvt_client import Budget, BudgetForm, BudgetNotMetError, Client, Frontier, History, Point, RevisionChangedError
from models.tables import Table, write_tables
from service.commands.connection import operator_key, url_or_local
from service.commands.ending import Ending, printable

T = TypeVar("T", Budget, Frontier, History)


def run(what: str, args: argparse.Namespace) -> int:
    """Raises as the client does."""
    url = url_or_local(args.url, os.environ)
    form = form_of(args) if what == "set" else None
    with Client(url, key=operator_key(os.environ, url)) as client:
        if what == "get":
            _show(args, client.budget(), lambda budget: print("\n".join(in_words(budget))))
        elif what == "frontier":
            _show(args, client.frontier(), lambda frontier: write_tables(frontier_tables(frontier), sys.stdout))
        elif what == "history":
            _show(args, client.history(), lambda history: write_tables([history_table(history)], sys.stdout))
        elif what == "watch":
            _watch(client, args)
        else:
            assert form is not None
            return _set(client, form, args)
    return Ending.DONE


def form_of(args: argparse.Namespace) -> BudgetForm:
    """The flags of `dvt budget set` as the server takes them. Raises `ValueError` for one that nothing goes with."""
    if args.quantile is not None and args.latency_ms is None:
        raise ValueError("--quantile goes with --latency-ms")
    if args.floor is not None and args.auto_p99_ms is None:
        raise ValueError("--floor goes with --auto-p99-ms")
    if args.auto_p99_ms is not None:
        if args.floor is None or args.ceiling is None:
            raise ValueError(
                "--auto-p99-ms needs --floor and --ceiling: dvt budget set --auto-p99-ms 50 --floor fast "
                "--ceiling accurate"
            )
        return {"auto": {"p99_ms": args.auto_p99_ms, "floor": args.floor, "ceiling": args.ceiling}}
    form: BudgetForm = {}
    if args.max_disagreement is not None:
        form["max_risk"] = {"disagreement": args.max_disagreement}
    if args.max_accuracy_drop is not None:
        form["max_risk"] = {"accuracy_drop": args.max_accuracy_drop}
    for name in ("profile", "thresholds", "gmacs", "latency_ms", "quantile", "ceiling"):
        if getattr(args, name) is not None:
            form[name] = getattr(args, name)
    return form


def flags_of(form: object) -> str | None:
    """A budget as `dvt budget set` takes it; None for what is none."""
    if not isinstance(form, dict) or not form:
        return None
    words = []
    for name, value in form.items():
        if name == "max_risk" and isinstance(value, dict):
            words += [f"--max-{risk.replace('_', '-')} {_number(limit)}" for risk, limit in value.items()]
        elif name == "auto" and isinstance(value, dict):
            floor, ceiling = (shlex.quote(str(value.get(end))) for end in ("floor", "ceiling"))
            words.append(f"--auto-p99-ms {_number(value.get('p99_ms'))} --floor {floor} --ceiling {ceiling}")
        elif name == "thresholds" and isinstance(value, list | tuple):
            words.append("--thresholds " + ",".join("null" if each is None else _number(each) for each in value))
        else:
            shown = shlex.quote(value) if isinstance(value, str) else _number(value)
            words.append(f"--{name.replace('_', '-')} {shown}")
    return " ".join(words)


def in_words(budget: Budget) -> list[str]:
    """A budget on a few lines."""
    told = {
        "revision": str(budget.revision),
        "asked": flags_of(budget.request) or json.dumps(budget.request),
        "in force": point_in_words(budget.in_force),
    }
    if budget.in_force != budget.resolved:
        told["it means"] = point_in_words(budget.resolved)
    if budget.ceiling is not None:
        told["ceiling"] = budget.ceiling
    return [f"{name:<9} {printable(text)}" for name, text in told.items()]


def point_in_words(point: Point) -> str:
    """Its name or its number on the frontier, and what is known of it."""
    words = [f"thresholds {_thresholds(point)}"]
    if point.profile is not None or point.number is not None:
        words.insert(0, point.profile or f"point {point.number}")
    if point.mean_gmacs is not None:
        words.append(f"{point.mean_gmacs:.4g} GMACs")
    if point.top1 is not None:
        words.append(f"top-1 {100 * point.top1:.2f} %")
    if point.certificate is not None:
        words.append(f"{point.certificate.risk} at most {100 * point.certificate.epsilon:g} %, certified")
    return ", ".join(words)


def frontier_tables(frontier: Frontier) -> list[Table]:
    """The profiles, then the points."""
    return [
        Table(title, (of, "GMACs", "top-1 %", "thresholds", "exits %", "certified"), tuple(map(_frontier_row, points)))
        for title, of, points in (
            ("profiles", "profile", frontier.profiles),
            ("frontier", "point", frontier.frontier),
        )
    ]


def _frontier_row(point: Point) -> tuple[str, ...]:
    name = point.profile or ("" if point.number is None else str(point.number))
    promised = point.certificate
    return (
        printable(name),
        "" if point.mean_gmacs is None else f"{point.mean_gmacs:.4f}",
        "" if point.top1 is None else f"{100 * point.top1:.2f}",
        _thresholds(point),
        "" if point.exit_shares is None else "/".join(f"{100 * each:.0f}" for each in point.exit_shares),
        "" if promised is None else f"{printable(promised.risk)} <= {100 * promised.epsilon:g} %",
    )


def history_table(history: History) -> Table:
    """A change a row."""
    rows = tuple(
        (
            str(change.revision),
            printable(change.at),
            printable(change.by),
            printable(change.note or flags_of(change.request) or json.dumps(change.request)),
        )
        for change in history.changes
    )
    return Table("changes, the newest first", ("revision", "at (UTC)", "by", "what"), rows)


def _set(client: Client, form: BudgetForm, args: argparse.Namespace) -> int:
    try:
        budget = client.put_budget(form, if_match=args.if_match, dry_run=args.dry_run)
    except BudgetNotMetError as error:
        nearest = flags_of(error.nearest)
        way_out = "" if nearest is None else f"; the nearest is `dvt budget set {nearest}`"
        print(f"dvt budget set: {printable(error.detail)}{printable(way_out)}", file=sys.stderr)
        return Ending.REFUSED
    except RevisionChangedError as error:
        print(f"dvt budget set: {printable(error.detail)}; look at `dvt budget get`", file=sys.stderr)
        return Ending.REFUSED
    if args.json:
        _write_json(asdict(budget))
    else:
        would = "would be" if args.dry_run else "in force"
        print(f"{would}: {printable(point_in_words(budget.resolved))} (revision {budget.revision})")
    return Ending.DONE


def _watch(client: Client, args: argparse.Namespace) -> None:
    """Until Ctrl-C, which is how it is meant to end."""
    before: Budget | None = None
    try:
        while True:
            now = client.budget()
            if now != before:
                if args.json:
                    _write_json(asdict(now))
                else:
                    moment = time.strftime("%H:%M:%S")
                    asked = flags_of(now.request) or json.dumps(now.request)
                    point = point_in_words(now.in_force)
                    print(f"{moment}  revision {now.revision}  {printable(asked)}  ->  {printable(point)}", flush=True)
                before = now
            time.sleep(args.every)
    except KeyboardInterrupt:
        return


def _show(args: argparse.Namespace, answer: T, show: Callable[[T], None]) -> None:
    if args.json:
        _write_json(asdict(answer))
    else:
        show(answer)


def _thresholds(point: Point) -> str:
    return ",".join("null" if each is None else f"{each:.4g}" for each in point.thresholds)


def _number(value: object) -> str:
    """Short where that is the same number: a limit that is rounded down cannot be met."""
    if not isinstance(value, int | float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _write_json(document: object) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
