"""The commands of serving: `dvt serve`."""

import argparse
import os
import signal
import sys

from service.settings import DEFAULT_BUNDLE, add_flags, flags_given, load_settings


def add_serve(parser: argparse.ArgumentParser) -> None:
    """`dvt serve [BUNDLE] [--host] [--port] [--check]` and one flag a setting."""
    parser.add_argument(
        "setting_bundle",
        nargs="?",
        metavar="BUNDLE",
        help=f"folder of the bundle (DVT_BUNDLE; else {DEFAULT_BUNDLE.name})",
    )
    parser.add_argument("--check", action="store_true", help="say whether this would start, and end")
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
    # Process 1 of a container is sent no signal that it does not handle, and starting takes a while.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    loaded = load_settings(os.environ, flags_given(arguments))
    settings = loaded.settings

    from dvt import __version__
    from service import check, log, main, server

    log.configure(settings.log_format, settings.log_level)
    logger = log.get_logger()
    for warning in loaded.warnings:
        logger.warning(warning)
    if arguments.check:
        print(check.check(loaded, logger), file=sys.stderr)
        return 0
    # The port first: a taken one is the commonest mistake, and opening the bundle takes a while.
    listener = server.bind(settings.host, settings.port)
    try:
        opened = main.open_bundle(settings)
        service = main.build_service(loaded, opened, logger)
        return server.serve(service, listener, __version__, lambda: server.announce(service, listener))
    finally:
        listener.close()
