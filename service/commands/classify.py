"""`dvt classify PHOTO...`: by a server, or without one by a bundle in this process."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from models.arguments import positive, positive_number, share, thresholds

if TYPE_CHECKING:
    from dvt_client import ClassifyOptions

# On the way at once: enough to keep a server's batches full, few enough to be no crowd.
JOBS = 8
_OPTIONS = ("top_k", "profile", "thresholds", "min_confidence", "max_exit", "deadline_ms", "priority")


def add_classify(parser: argparse.ArgumentParser) -> None:
    from service.commands.ending import EPILOG

    parser.description = (
        "Tell what photos show. With --url (or DVT_URL) a server answers, and its key comes from DVT_KEY or "
        "DVT_KEY_FILE; without, a bundle is loaded and answers here."
    )
    parser.epilog = EPILOG
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="file, folder, pattern such as 'photos/**/*.jpg', or - for stdin"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", metavar="URL", help="of a running server (DVT_URL)")
    where.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="answer here by this bundle (DVT_BUNDLE; else the shipped one)"
    )
    rule = parser.add_argument_group("when an image leaves the cascade").add_mutually_exclusive_group()
    rule.add_argument("--profile", metavar="NAME", help="by a profile: fast, balanced, accurate, full")
    rule.add_argument("--thresholds", type=thresholds, metavar="T,T", help="by these: 0.9,null")
    rule.add_argument("--min-confidence", type=share, metavar="P", help="at the first exit that is so confident")
    parser.add_argument("--max-exit", type=positive, metavar="N", help="at this exit at the latest")
    parser.add_argument("--deadline-ms", type=positive_number, metavar="MS", help="answer within this time")
    parser.add_argument("--priority", type=positive, metavar="N", help="1 goes first, 9 last")
    parser.add_argument("--top-k", type=positive, metavar="N", help="predictions of each photo (default: one)")
    out = parser.add_argument_group("output")
    out.add_argument("--stream", action="store_true", help="show each exit as it is reached, one photo at a time")
    out.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
    out.add_argument("--csv", type=Path, metavar="FILE", help="write a table, one row a photo")
    out.add_argument("--jobs", type=positive, default=JOBS, metavar="N", help=f"photos at once (default: {JOBS})")
    parser.set_defaults(run=run_classify)


def run_classify(args: argparse.Namespace) -> int:
    from service.commands.ending import end

    return end("dvt classify", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    import asyncio
    import os

    from service.commands import classify_run
    from service.commands.connection import asked_url, user_key
    from service.commands.photo_files import find_photos

    environment = dict(os.environ)
    url = None if args.bundle is not None else asked_url(args.url, environment)
    order = classify_run.Order(
        photos=tuple(find_photos(args.photos)),
        options=options_of(args),
        url=url,
        key=None if url is None else user_key(environment),
        bundle=args.bundle,
        jobs=args.jobs,
        is_stream=args.stream,
        is_json=args.json,
        csv=args.csv,
    )
    return asyncio.run(classify_run.classify_all(order, environment))


def options_of(args: argparse.Namespace) -> "ClassifyOptions":
    """What was asked for; a single prediction unless told otherwise."""
    options: ClassifyOptions = {"top_k": 1}
    options.update({name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None})  # type: ignore[typeddict-item]  # its keys
    return options
