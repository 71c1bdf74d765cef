"""Serves the shipped bundle and, once it answers, prints what to try: the body of `make run`. Standard library only."""

import argparse
import http.client
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
SHIPPED_BUNDLE = "checkpoints/imagenette-hybrid"
SAMPLES = ("samples/church.jpg", "samples/garbage_truck.jpg")
START_SECONDS = 60.0
# A closed terminal is a stop like any other.
FORWARDED = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}


def port_is_free(port: int) -> bool:
    """Whether the service can listen there; as the service itself does, a port in TIME_WAIT counts as free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def is_ready(port: int) -> bool:
    """Whether the service answers that it is ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def what_to_try(port: int) -> str:
    """Lines to copy into another terminal: two photographs that leave at different exits."""
    url = f"http://{HOST}:{port}"
    lines = ["", "Ready. Two photographs that leave at different exits, for another terminal in this folder:", ""]
    lines += [f"  curl -s -F image=@{sample} '{url}/classify?top_k=3'" for sample in SAMPLES]
    return "\n".join([*lines, "", f"Or watch it think: {url}", ""])


def main() -> int:
    """Exit code of the service; 2 when it could not be started for a reason that a user can remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--bundle", default=SHIPPED_BUNDLE)
    arguments = parser.parse_args()
    port: int = arguments.port
    if not port_is_free(port):
        print(
            f"Port {port} of {HOST} is taken. Take another: make run PORT={port + 1}\n"
            f"Or find what has it, and stop it: ss -ltnp 'sport = :{port}'",
            file=sys.stderr,
        )
        return 2
    # In a session of its own, so that Ctrl-C reaches it once, from here: a second one means "stop waiting for answers".
    command = [sys.executable, "dvt.py", "serve", arguments.bundle, "--host", HOST, "--port", str(port)]
    service = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    for received, forwarded in FORWARDED.items():
        signal.signal(received, lambda *_, number=forwarded: service.send_signal(number))
    deadline = time.monotonic() + START_SECONDS
    while service.poll() is None and time.monotonic() < deadline:
        if is_ready(port):
            print(what_to_try(port), flush=True)
            break
        time.sleep(0.1)
    return service.wait()


if __name__ == "__main__":
    sys.exit(main())
