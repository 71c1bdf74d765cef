"""The image's health check: exit code 0 while the service at DVT_PORT takes work, 1 otherwise with what it said.

By a bare socket: it runs every few seconds beside a service that wants the CPU, and importing an HTTP client takes
longer than all the rest.
"""

import os
import socket
import sys

TIMEOUT_S = 2.0


def main() -> int:
    """0 or 1, as Docker wants it."""
    port = int(os.environ.get("DVT_PORT", "8000"))
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = connection.makefile("rb").read(4096)
    except OSError as error:
        print(error)
        return 1
    status, _, rest = answer.partition(b"\r\n")
    if status.split(b" ")[1:2] == [b"200"]:
        return 0
    print(status.decode(errors="replace"), rest.rpartition(b"\r\n\r\n")[2].decode(errors="replace"))
    return 1


if __name__ == "__main__":
    sys.exit(main())
