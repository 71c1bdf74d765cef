"""Which server a command talks to, and with which key. Reads the environment that it is given, and key files."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from service.settings import URL_VARIABLE, USER_KEY_FILE_VARIABLE, USER_KEY_VARIABLE

ADMIN_KEY, ADMIN_KEY_FILE, STATE_DIR = "DVT_ADMIN_KEY", "DVT_ADMIN_KEY_FILE", "DVT_STATE_DIR"


def asked_url(flag: str | None, environment: Mapping[str, str]) -> str | None:
    """What --url or DVT_URL says."""
    return flag or environment.get(URL_VARIABLE) or None


def url_or_local(flag: str | None, environment: Mapping[str, str]) -> str:
    """The same, else the service that `dvt serve` starts here by the same environment."""
    port = environment.get("DVT_PORT", "")
    return asked_url(flag, environment) or f"http://127.0.0.1:{port if port.isdecimal() else 8000}"


def user_key(environment: Mapping[str, str]) -> str | None:
    """Of DVT_KEY or DVT_KEY_FILE; None without either. Raises `ValueError`."""
    return _key(environment, USER_KEY_VARIABLE, USER_KEY_FILE_VARIABLE)


def operator_key(environment: Mapping[str, str], url: str) -> str | None:
    """The admin key, as the service itself is told it or as it made it in its state folder; else the user's.

    The one in the state folder is that of a service on this machine, so it is sent to no other. Raises `ValueError`.
    """
    found = _key(environment, ADMIN_KEY, ADMIN_KEY_FILE)
    if found is None and is_loopback(url):
        file = Path(environment.get(STATE_DIR) or "state") / "admin-key"
        if file.is_file():
            found = _read(file, STATE_DIR)
    return found or user_key(environment)


def is_loopback(url: str) -> bool:
    """Whether the address is one of this machine for sure."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(environment: Mapping[str, str], variable: str, file_variable: str) -> str | None:
    if environment.get(variable):
        return first_key(environment[variable].replace(",", "\n"), variable)
    if environment.get(file_variable):
        return _read(Path(environment[file_variable]), file_variable)
    return None


def _read(file: Path, variable: str) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(
            f"the key file {file} ({variable}) cannot be read: {reason}; run this as whoever owns it, or set "
            f"{ADMIN_KEY} or {USER_KEY_VARIABLE}"
        ) from error
    return first_key(text, str(file))


def first_key(text: str, place: str) -> str:
    """Of a text as the service reads it: one key a line, a name before it if wanted, `#` starts a comment.

    Raises `ValueError` where there is none.
    """
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            return words[-1]
    raise ValueError(f"{place} holds no key")
