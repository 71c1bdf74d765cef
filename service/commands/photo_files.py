"""Which photos are meant by the words of a command line: files, folders, patterns, and `-` for standard input."""

import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
STDIN = "-"
# Far above what any service takes (DVT_MAX_IMAGE_BYTES): a pipe without end must not fill the memory.
_MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class PhotoFile:
    """One photo that was named; `missing` tells why there is none by that name."""

    name: str
    missing: str | None = None

    def read(self) -> bytes:
        """Raises `OSError` with a reason for people."""
        if self.missing is not None:
            raise OSError(self.missing)
        if self.name == STDIN:
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            try:
                with Path(self.name).open("rb") as file:
                    # A device or a pipe by that name might never end.
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        raise OSError("it is no regular file")
                    data = file.read(_MOST_BYTES + 1)
            except OSError as error:
                raise OSError(error.strerror or str(error)) from error
        if len(data) > _MOST_BYTES:
            raise OSError(f"it has more than {_MOST_BYTES} bytes")
        return data


def find_photos(words: Sequence[str]) -> list[PhotoFile]:
    """In the order of the words; folders and patterns in the order of names, each photo once."""
    found: dict[str, PhotoFile] = {}
    for word in words:
        for photo in _named(word):
            found.setdefault(photo.name, photo)
    return list(found.values())


def _named(word: str) -> Iterator[PhotoFile]:
    path = Path(word)
    if word == STDIN or path.is_file():
        yield PhotoFile(word)
    elif path.is_dir():
        inside = sorted(_inside(path))
        yield from map(PhotoFile, inside)
        if not inside:
            yield PhotoFile(word, f"there is no photo in this folder ({', '.join(SUFFIXES)})")
    elif path.exists():
        yield PhotoFile(word)  # A device, say: reading tells.
    elif glob.has_magic(word):
        # Not Path.glob, which takes no absolute pattern.
        names = glob.iglob(word, recursive=True)  # noqa: PTH207
        matches = sorted(name for name in names if Path(name).is_file())
        yield from map(PhotoFile, matches)
        if not matches:
            yield PhotoFile(word, "nothing matches this pattern")
    else:
        yield PhotoFile(word, "there is no such file")


def _inside(folder: Path) -> Iterator[str]:
    """Photos by their suffix, in all folders below; links to folders are not followed."""
    for at, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield str(Path(at) / name)
