"""`dvt budget get|set|frontier|history|watch`: what a server's images may cost."""

import argparse
from collections.abc import Callable

from models.arguments import natural, positive_number, share, thresholds


def add_budget(parser: argparse.ArgumentParser) -> None:
    from service.commands.ending import EPILOG

    parser.description = (
        "See or change the budget of a running server. The admin key is found by itself: DVT_ADMIN_KEY, "
        "DVT_ADMIN_KEY_FILE, or for a server on this machine the file admin-key in DVT_STATE_DIR (state)."
    )
    parser.epilog = EPILOG
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    for name, text, add in (
        ("get", "what is asked for, what that means, what images leave by now", _add_get),
        ("set", "put another budget in force, by one of its forms", _add_set),
        ("frontier", "what can be asked for: profiles, and points that no other beats", _add_get),
        ("history", "who changed what", _add_get),
        ("watch", "print the budget whenever it changes, until Ctrl-C", _add_watch),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EPILOG)
        command.add_argument(
            "--url", metavar="URL", help="of the server (DVT_URL; else this machine, DVT_PORT or 8000)"
        )
        add(command)
        command.add_argument("--json", action="store_true", help="JSON on standard output, and nothing else there")
        command.set_defaults(run=_runner(name))


def _add_get(parser: argparse.ArgumentParser) -> None:
    """Nothing beyond what all have."""


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=positive_number, default=1.0, metavar="S", help="seconds (default: 1)")


def _add_set(parser: argparse.ArgumentParser) -> None:
    forms = parser.add_argument_group("one of").add_mutually_exclusive_group(required=True)
    forms.add_argument("--profile", metavar="NAME", help="a profile of the bundle: fast, balanced, accurate, full")
    forms.add_argument("--thresholds", type=thresholds, metavar="T,T", help="one an exit but the last: 0.9,null")
    forms.add_argument("--gmacs", type=positive_number, metavar="G", help="mean GMACs of an image, at most")
    forms.add_argument("--latency-ms", type=positive_number, metavar="MS", help="computation of an image, at most")
    forms.add_argument("--max-disagreement", type=share, metavar="P", help="certified: answers unlike the last exit's")
    forms.add_argument("--max-accuracy-drop", type=share, metavar="P", help="certified: right answers that are lost")
    forms.add_argument(
        "--auto-p99-ms", type=positive_number, metavar="MS", help="by load, between --floor and --ceiling"
    )
    parser.add_argument("--quantile", type=share, metavar="Q", help="of images, for --latency-ms: 0.95")
    parser.add_argument("--floor", metavar="NAME", help="for --auto-p99-ms: nothing cheaper than this profile")
    parser.add_argument(
        "--ceiling",
        metavar="NAME",
        help="for --auto-p99-ms: this profile where the load allows it; else the dearest that a request may ask for",
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what it would mean")
    parser.add_argument("--if-match", type=natural, metavar="REVISION", help="only if this revision is in force")


def _runner(name: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        from service.commands import budget_run
        from service.commands.ending import end

        return end(f"dvt budget {name}", lambda: budget_run.run(name, args))

    return run
