"""Who is calling: keys from settings and files, compared in constant time; a file is read again when it changes."""

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.settings import Settings, SettingsError, variable_of

ADMIN_KEY_FILE = "admin-key"


@dataclass(frozen=True)
class Caller:
    """Whoever holds a known key. `name` stands beside the key in its file, or is made from the key's hash."""

    name: str
    is_admin: bool


@dataclass(frozen=True)
class _Key:
    digest: bytes
    name: str


class KeySource:
    """Keys of a text, or of a file that is looked at again whenever it has changed."""

    def __init__(self, text: str = "", file: Path | None = None, log: logging.Logger | None = None) -> None:
        self._file = file
        self._log = log
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys = parse_keys(text.replace(",", "\n"))
        if file is not None:
            self._refresh()

    def keys(self) -> tuple[_Key, ...]:
        if self._file is not None:
            self._refresh()
        return self._keys

    def _refresh(self) -> None:
        assert self._file is not None
        with self._lock:
            try:
                stat = self._file.stat()
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if stamp == self._stamp:
                    return
                self._keys = parse_keys(self._file.read_text(encoding="utf-8"))
                self._stamp = stamp
            except (OSError, UnicodeDecodeError) as error:
                # Being replaced just now, perhaps: the keys known so far stay good, and no door opens.
                if self._log is not None and self._stamp is not None:
                    self._log.warning("key file cannot be read, its last keys stay", extra={"error": str(error)})


class KeyRing:
    """The keys of one service. `api` is None where nobody needs a key."""

    def __init__(self, admin: KeySource, api: KeySource | None) -> None:
        self._admin = admin
        self._api = api

    @property
    def needs_key(self) -> bool:
        return self._api is not None

    def caller(self, authorization: str | None) -> Caller | None:
        """Whose key `Authorization: Bearer KEY` is; None without one, or for one that is not known."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return None
        digest = _digest(key.strip())
        found: Caller | None = None
        # Every key is compared, and all of it, so that the time taken tells nothing.
        for is_admin, source in ((False, self._api), (True, self._admin)):
            for known in source.keys() if source is not None else ():
                if hmac.compare_digest(digest, known.digest):
                    found = Caller("admin" if is_admin else known.name, is_admin)
        return found


def parse_keys(text: str) -> tuple[_Key, ...]:
    """One key a line, a name and white space before it if wanted; `#` starts a comment."""
    keys = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            digest = _digest(words[-1])
            keys.append(_Key(digest, words[0] if len(words) > 1 else f"key-{digest.hex()[:8]}"))
    return tuple(keys)


def open_keys(settings: Settings, files: Mapping[str, Path], log: logging.Logger) -> KeyRing:
    """The ring of these settings; makes the admin key at first start. Raises `SettingsError`."""
    admin_text = settings.admin_key.get_secret_value()
    admin_file = files.get("admin_key")
    if not admin_text and admin_file is None:
        admin_file = make_admin_key(settings.state_dir, log)
    api_text = settings.api_keys.get_secret_value()
    api = None
    if api_text or "api_keys" in files:
        api = KeySource(api_text, files.get("api_keys"), log)
    admin = KeySource(admin_text, admin_file, log)
    for name, source in (("admin_key", admin), ("api_keys", api)):
        if source is not None and not source.keys():
            place = files.get(name) or (admin_file if name == "admin_key" else None) or variable_of(name)
            raise SettingsError(f"{place} holds no key; put one into it, or unset it")
    return KeyRing(admin, api)


def make_admin_key(folder: Path, log: logging.Logger) -> Path:
    """The file with the admin key, made with a new key (readable by its owner alone) if there is none yet."""
    path = folder / ADMIN_KEY_FILE
    descriptor, written = tempfile.mkstemp(prefix=f".{ADMIN_KEY_FILE}.", dir=folder)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        os.link(written, path)  # With its key inside, for several that share the folder may start at once.
        log.info("admin key made", extra={"file": str(path)})
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            log.warning("admin key can be read by others", extra={"file": str(path), "way_out": f"chmod 600 {path}"})
    finally:
        Path(written).unlink()
    return path


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
