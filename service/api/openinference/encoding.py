"""Compressed bodies (RFC 9110, section 8.4): expanded under a limit on the way in, compressed on the way out if asked.

Deflate is meant as that section has it, in zlib's format.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Literal

from service.errors import BadEncodingError, BodyTooLargeError, UnsupportedEncodingError

Encoding = Literal["gzip", "deflate"]

# zlib's own numbers for its two formats.
_WINDOW_BITS: Mapping[str, int] = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# Of what goes in and of what comes out, so that nothing is expanded far beyond what is allowed.
_STEP_BYTES = 64 * 1024
# An answer is small; its sender's time is worth more than a few bytes of it.
_LEVEL = 1


def expand(body: bytes, content_encoding: str, limit_bytes: int, take: Callable[[int], None]) -> bytes:
    """The body as it was before `Content-Encoding`. `take` accounts for its bytes as they appear, and may refuse.

    Raises `UnsupportedEncodingError`, `BadEncodingError`, `BodyTooLargeError`, or what `take` raises.
    """
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW_BITS:
        raise UnsupportedEncodingError(
            f"Content-Encoding is {content_encoding[:64]!r}; send the body as it is, or by gzip or deflate"
        )
    expander = zlib.decompressobj(_WINDOW_BITS[encoding])
    expanded = bytearray()
    try:
        for start in range(0, len(body), _STEP_BYTES):
            rest = body[start : start + _STEP_BYTES]
            if expander.eof:
                raise _more_follows(encoding)
            while rest and not expander.eof:
                part = expander.decompress(rest, _STEP_BYTES)
                rest = expander.unconsumed_tail
                if len(expanded) + len(part) > limit_bytes:
                    raise BodyTooLargeError(
                        f"the body's {len(body)} bytes expand to more than {limit_bytes} (DVT_MAX_BODY_BYTES); "
                        "send fewer or smaller images at a time"
                    )
                take(len(part))
                expanded += part
    except zlib.error as error:
        raise BadEncodingError(f"the body cannot be expanded by {encoding}: {error}") from error
    if not expander.eof:
        raise BadEncodingError(f"the body ends within its {encoding} data; was it cut off?")
    if expander.unused_data:
        raise _more_follows(encoding)
    return bytes(expanded)


def _more_follows(encoding: str) -> BadEncodingError:
    return BadEncodingError(f"more follows the end of the body's {encoding} data")


def wanted(accept_encoding: str) -> Encoding | None:
    """What an answer may be compressed by, of an `Accept-Encoding` header; None for nothing that is known here."""
    accepted = set()
    for entry in accept_encoding.lower().split(","):
        name, _, weight = entry.replace(" ", "").partition(";q=")
        if not _is_zero(weight):
            accepted.add(name)
    for encoding in ("gzip", "deflate"):
        if encoding in accepted:
            return encoding
    return None


def _is_zero(weight: str) -> bool:
    return weight.startswith("0") and not weight.strip("0.")


def compress(body: bytes, encoding: Encoding) -> bytes:
    return zlib.compress(body, _LEVEL, wbits=_WINDOW_BITS[encoding])
