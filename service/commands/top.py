"""`dvt top`: a server at work, in a terminal."""

import argparse

from models.arguments import positive_number

EVERY_S = 2.0


def add_top(parser: argparse.ArgumentParser) -> None:
    from service.commands.ending import EPILOG

    parser.description = (
        "Watch a running server until Ctrl-C: requests, shares of the exits, latency by exit, queues, budget. Where "
        "keys are needed, it is the admin's as `dvt budget` finds it, or that of DVT_KEY or DVT_KEY_FILE."
    )
    parser.epilog = EPILOG
    parser.add_argument("--url", metavar="URL", help="of the server (DVT_URL; else this machine, DVT_PORT or 8000)")
    parser.add_argument(
        "--every", type=positive_number, default=EVERY_S, metavar="S", help=f"seconds of a look (default: {EVERY_S:g})"
    )
    parser.add_argument("--once", action="store_true", help="a single look, for scripts")
    parser.add_argument("--json", action="store_true", help="the single look as JSON on standard output")
    parser.set_defaults(run=run_top)


def run_top(args: argparse.Namespace) -> int:
    from service.commands.ending import end

    def work() -> int:
        from service.commands import top_run

        return top_run.run(args)

    return end("dvt top", work)
