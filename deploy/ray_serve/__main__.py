"""`python -m deploy.ray_serve BUILDER [name=value ...]`: `serve run`, but that it ends without losing a request.

`serve run` has Ray shut down as a whole when it is interrupted, the proxy first: whoever waits for an answer is cut
off, and SIGTERM does not even drain. Here both signals have newcomers refused (503) and everybody inside answered,
while the proxy is still there.
"""

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, ValidationError

from deploy.ray_serve.retry import IMPORT_PATH, VARIABLE

NAME = "dvt"


def main(words: Sequence[str]) -> int:
    """Exit code 0 after a drain, 2 for options that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m deploy.ray_serve", description=__doc__)
    parser.add_argument("builder", help="deploy.ray_serve.replicas:app or deploy.ray_serve.stages:app")
    parser.add_argument("options", nargs="*", metavar="name=value", help="how many replicas and the like")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args(words)
    try:
        builder, options = read(arguments.builder, arguments.options)
    except (ImportError, AttributeError, ValueError) as error:
        print(f"{parser.prog}: {_in_words(error)}", file=sys.stderr)
        return 2
    # Before Ray starts: its proxy and replicas inherit them. Unless told, ONNX Runtime reports its use to its maker.
    os.environ.setdefault(VARIABLE, IMPORT_PATH)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    _serve(builder, options, arguments.host, arguments.port)
    return 0


def read(path: str, words: Sequence[str]) -> tuple[Any, BaseModel]:
    """A builder by its `module:function`, and its options. Raises `ImportError`, `AttributeError` or `ValueError`."""
    module, colon, function = path.partition(":")
    if not colon:
        raise ValueError(f"{path[:64]!r} names no builder: write MODULE:FUNCTION")
    builder = getattr(importlib.import_module(module), function)
    kind: type[BaseModel] | None = get_type_hints(builder).get("options")
    if kind is None:
        raise ValueError(f"{path} builds no application")
    return builder, kind.model_validate(dict(word.partition("=")[::2] for word in words))


def _serve(builder: Any, options: BaseModel, host: str, port: int) -> None:
    import ray
    from ray import serve

    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():  # A second one: whoever sends it does not want to wait.
            sys.exit(1)
        stop.set()

    ray.init()
    # In place of Ray's own, which end the process there and then. The application takes requests before `run` returns.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    serve.start(http_options={"host": host, "port": port})
    ingress = serve.run(builder(options), name=NAME, route_prefix="/")
    stop.wait()
    # Ray takes all deployments of an application away at once, the stages too that an ingress still needs.
    ingress.broadcast("drain").results(return_exceptions=True)
    serve.delete(NAME)
    serve.shutdown()
    ray.shutdown()


def _in_words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
