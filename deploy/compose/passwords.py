"""Makes the password of Redis, once: FOLDER/redis.conf for Redis, FOLDER/redis-url for replicas. No dependencies."""

import os
import secrets
import sys
from pathlib import Path

URL, CONF = "redis-url", "redis.conf"


def make(folder: Path) -> bool:
    """Says whether anything was made; what is there stays. The URL comes last and at once: with it all is there."""
    if (folder / URL).exists():
        return False
    password = secrets.token_urlsafe(32)
    # The budget is all that is kept, and each replica has it in a file and offers it again: no disk.
    lines = (
        f"requirepass {password}",
        "bind * -::*",
        "dir /data",
        'save ""',
        "maxmemory 8mb",
        "maxmemory-policy noeviction",
    )
    _write(folder / CONF, "\n".join(lines) + "\n")
    _write(folder / f".{URL}", f"redis://:{password}@redis:6379/0\n")
    os.replace(folder / f".{URL}", folder / URL)
    return True


def _write(path: Path, text: str) -> None:
    """For its owner's eyes alone, from the first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


if __name__ == "__main__":
    print("made" if make(Path(sys.argv[1])) else "there already")
