"""The commands of serving: `dvt serve`."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from service.settings import DEFAULT_BUNDLE, add_flags, flags_given, load_settings

if TYPE_CHECKING:
    from service import main


def add_serve(parser: argparse.ArgumentParser) -> None:
    """`dvt serve [BUNDLE] [--host] [--port] [--check]` and one flag a setting."""
    parser.add_argument(
        "setting_bundle",
        nargs="?",
        metavar="BUNDLE",
        help=f"folder of the bundle (DVT_BUNDLE; else {DEFAULT_BUNDLE.name})",
    )
    parser.add_argument("--check", action="store_true", help="load everything, say what would be served, and end")
    add_flags(parser)
    parser.set_defaults(run=run_serve)


def run_serve(arguments: argparse.Namespace) -> int:
    """Exit code 0 after a drain, 1 when the engine is lost, 2 for what the user can mend (one line says what)."""
    from service.errors import ServiceError

    try:
        return _serve(arguments)
    except ServiceError as error:
        print(f"dvt serve: {error.detail}", file=sys.stderr)
    except ValueError as error:  # Settings, bundle and backend errors are all of this kind.
        print(f"dvt serve: {error}", file=sys.stderr)
    return 2


def _serve(arguments: argparse.Namespace) -> int:
    loaded = load_settings(os.environ, flags_given(arguments))
    settings = loaded.settings

    from dvt import __version__
    from service import log, main, server

    log.configure(settings.log_format, settings.log_level)
    logger = log.get_logger()
    for warning in loaded.warnings:
        logger.warning(warning)
    # The port first: a taken one is the commonest mistake, and opening the bundle takes a while.
    listener = server.bind(settings.host, settings.port)
    try:
        opened = main.open_bundle(settings)
        if arguments.check:
            return _report(opened)
        service = main.build_service(loaded, opened, logger)
        return server.serve(service, listener, __version__, lambda: server.announce(service, listener))
    finally:
        listener.close()


def _report(opened: "main.Opened") -> int:
    bundle = opened.bundle
    profiles = "none, budget by thresholds only" if bundle.profiles is None else ", ".join(bundle.profiles.named)
    print(
        f"{bundle.path}: {bundle.config.architecture}, {bundle.config.exits} exits, {bundle.config.classes} classes, "
        f"backend {opened.backend.name}, profiles: {profiles}. Ready to serve.",
        file=sys.stderr,
    )
    return 0
