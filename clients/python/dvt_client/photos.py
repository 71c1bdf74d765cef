"""Where the bytes of an image come from."""

import os
from pathlib import Path
from typing import BinaryIO

Photo = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""The bytes of an image file, the path of one, or one that is open for reading bytes."""


def photo_bytes(photo: Photo) -> bytes:
    """Raises `OSError` where it cannot be read, and `TypeError` for a file that is open for text."""
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, str | os.PathLike):
        return Path(photo).read_bytes()
    data = photo.read()
    if not isinstance(data, bytes):
        raise TypeError(f"a photo was read as {type(data).__name__}, not as bytes; open it with mode 'rb'")
    return data
