"""A request's body: read under limits, then taken apart into images. Three forms, told apart by what the bytes are.

A raw image is known by its first bytes, whatever the Content-Type says (curl's `--data-binary` claims to send a form).
"""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.decode import image_too_large, looks_like_an_image
from service.errors import (
    BadBase64Error,
    BadJsonError,
    BadMultipartError,
    BodyTimeoutError,
    BodyTooLargeError,
    EmptyBodyError,
    MissingImageError,
    ServiceError,
    TooManyImagesError,
    WrongFieldError,
)

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "image"
FORMS = (
    "send a multipart form with the field `image` (curl -F image=@photo.jpg), the bytes of an image "
    '(curl --data-binary @photo.jpg), or JSON {"images": ["<base64>"]}'
)

# So much is taken apart, or hashed, faster than a thread is woken for it.
INLINE_BYTES = 128 * 1024

ImageInput = bytes | ServiceError
"""An image's bytes, or why this one (of several) cannot be had."""


@dataclass(frozen=True)
class BodyLimits:
    """Bytes of one body and of one image, images (or parts) of one body, and seconds for all of it to arrive."""

    body_bytes: int
    image_bytes: int
    images: int
    seconds: float


async def read_body(
    chunks: AsyncIterator[bytes], content_length: str | None, limits: BodyLimits, take: Callable[[int], None]
) -> bytes:
    """The whole body. `take` accounts for its bytes as they come, and may refuse.

    Raises `BodyTooLargeError` (at once where Content-Length tells, else when the limit is crossed),
    `BodyTimeoutError`, or what `take` raises.
    """
    if content_length is not None and content_length.isdecimal() and len(content_length) < 20:
        _check_body(int(content_length), limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in chunks:
                _check_body(len(body) + len(chunk), limits)
                take(len(chunk))
                body += chunk
    except TimeoutError as error:
        raise BodyTimeoutError(
            f"the body did not arrive within {limits.seconds:g} s (DVT_BODY_SECONDS), {len(body)} bytes of it did"
        ) from error
    return bytes(body)


def _check_body(size_bytes: int, limits: BodyLimits) -> None:
    if size_bytes > limits.body_bytes:
        raise BodyTooLargeError(
            f"the body has {size_bytes} bytes or more, the limit is {limits.body_bytes} (DVT_MAX_BODY_BYTES); "
            "send fewer or smaller images at a time"
        )


def images_of(body: bytes, content_type: str, limits: BodyLimits) -> tuple[ImageInput, ...]:
    """The images of a body, in order. Raises a `ServiceError` for a body that as a whole makes no sense."""
    if not body:
        raise EmptyBodyError(f"the body has 0 bytes; {FORMS}")
    kind, options = parse_options_header(content_type)
    if looks_like_an_image(body):
        return (body,)
    if kind == b"multipart/form-data":
        return _from_multipart(body, options.get(b"boundary"), limits)
    if kind == b"application/json" or body.lstrip()[:1] == b"{":
        return _from_json(body, limits)
    # Not recognisable: decoding says so, with the formats that it reads.
    return (body,)


def _from_json(body: bytes, limits: BodyLimits) -> tuple[ImageInput, ...]:
    document = parse_json(body)
    if not isinstance(document, dict) or set(document) != {"images"} or not isinstance(document["images"], list):
        raise BadJsonError('the JSON body must be {"images": ["<base64>", ...]} and nothing else')
    images = document["images"]
    if not images:
        raise MissingImageError("`images` is empty; send at least one image")
    _check_count(len(images), limits)
    return tuple(_from_base64(number, text, limits) for number, text in enumerate(images))


def parse_json(body: bytes) -> object:
    """The parsed JSON of a body. Raises `BadJsonError`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise BadJsonError(f"the body is not JSON: {reason}") from error


def _from_base64(number: int, text: object, limits: BodyLimits) -> ImageInput:
    if not isinstance(text, str):
        return BadBase64Error(f"images[{number}] is no string; send each image as base64")
    text = "".join(text.split())  # Line feeds, as the command base64 writes them.
    if len(text) // 4 * 3 - 2 > limits.image_bytes:
        return image_too_large(len(text) // 4 * 3, limits.image_bytes)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return BadBase64Error(
            f"images[{number}] is not base64 ({error}); encode the file by RFC 4648, section 4, without a prefix"
        )


def _from_multipart(body: bytes, boundary: bytes | None, limits: BodyLimits) -> tuple[ImageInput, ...]:
    if not boundary:
        raise BadMultipartError("the Content-Type names no boundary; let the client set it (curl -F image=@photo.jpg)")
    parts = _Parts(limits)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
    except (MultipartParseError, ValueError) as error:
        raise BadMultipartError(f"the multipart body cannot be taken apart: {error}; {FORMS}") from error
    if not parts.ended:
        raise BadMultipartError("the multipart body ends before its closing boundary; was it cut off?")
    if not parts.images:
        raise MissingImageError(f"the form has no part named `{FIELD}`; {FORMS}")
    return tuple(parts.images)


class _Parts:
    """Collects the parts of one multipart body; an unknown field or one part too many ends it."""

    def __init__(self, limits: BodyLimits) -> None:
        self.images: list[ImageInput] = []
        self.ended = False
        self._limits = limits
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._field: str | None = None
        self._data = bytearray()
        self._size = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        _check_count(len(self.images) + 1, self._limits)
        self._field = None
        self._size = 0
        self._data.clear()

    def _header(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._header_value))
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        if self._field != FIELD:
            shown = "without a name" if self._field is None else repr(self._field[:64])
            raise WrongFieldError(
                f"the form has a field {shown}, expected only `{FIELD}` (repeated for more images); {FORMS}"
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size <= self._limits.image_bytes:
            self._data += data[start:end]

    def _end(self) -> None:
        limit = self._limits.image_bytes
        self.images.append(bytes(self._data) if self._size <= limit else image_too_large(self._size, limit))

    def _finish(self) -> None:
        self.ended = True


def _check_count(images: int, limits: BodyLimits) -> None:
    if images > limits.images:
        raise TooManyImagesError(
            f"the request has {images} images or more, the limit is {limits.images} (DVT_MAX_IMAGES); "
            "send them in several requests"
        )
