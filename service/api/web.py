"""The playground at `GET /`: a page without a build step or an outside host, and photographs to try it with.

Its files are read once, when the routes are made. They hold nothing secret and need no key: the page asks for one.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

FOLDER = Path(__file__).resolve().parent.parent / "web"
# Beside the packages in a checkout. They are other people's pictures under licences of their own, so no package holds
# them, and a page that was installed alone has none to offer.
PHOTOS = FOLDER.parent.parent / "samples"
PREFIX = "/playground/"

# Scripts and styles come from here alone, and none is inline.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".jpg": "image/jpeg",
}
# Shorter or already compressed content gains nothing.
_GZIP_FROM_BYTES = 1024
_COMPRESSED = ("image/jpeg",)


@dataclass(frozen=True)
class Sample:
    """A photograph to try: what it shows, how hard the shipped bundle finds it (empty: it does not know it), and whose
    it is."""

    file: str
    shows: str
    note: str
    credit: str


SAMPLES = (
    Sample("church.jpg", "church", "easy", "Gary Todd, CC0 1.0"),
    Sample("garbage_truck.jpg", "garbage truck", "harder", "Tux Paint developers, GPL 2 or later"),
    Sample("coffee.jpg", "cup of coffee", "", "Rachel Michetti, CC0 1.0"),
)


@dataclass(frozen=True)
class WebFile:
    """One file of the page, as it is sent; `packed` is None where gzip gains nothing."""

    media_type: str
    content: bytes
    packed: bytes | None
    tag: str


def is_page(path: str) -> bool:
    """Whether a path is of the page itself, which is open to those without a key too."""
    return path == "/" or path.startswith(PREFIX)


def read_files(labels: Sequence[str]) -> dict[str, WebFile]:
    """All that the page consists of, by path. `labels`: what the served bundle knows."""
    files = {PREFIX + path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in _KINDS}
    files["/"] = files.pop(PREFIX + "index.html")
    photos = [sample for sample in SAMPLES if (PHOTOS / sample.file).is_file()]
    for sample in photos:
        files[f"{PREFIX}samples/{sample.file}"] = _read(PHOTOS / sample.file)
    listed = {"samples": [{**asdict(sample), "known": sample.shows in labels} for sample in photos]}
    files[PREFIX + "samples.json"] = _file(json.dumps(listed).encode(), _KINDS[".json"])
    return files


def make_router(labels: Sequence[str]) -> APIRouter:
    """A route for each file, `GET` and `HEAD`."""
    router = APIRouter()
    for path, file in read_files(labels).items():
        _add_route(router, path, file)
    return router


def _read(path: Path) -> WebFile:
    return _file(path.read_bytes(), _KINDS[path.suffix])


def _file(content: bytes, media_type: str) -> WebFile:
    packed = None
    if media_type not in _COMPRESSED and len(content) >= _GZIP_FROM_BYTES:
        packed = gzip.compress(content, mtime=0)
    return WebFile(media_type, content, packed, hashlib.sha256(content).hexdigest()[:16])


def _add_route(router: APIRouter, path: str, file: WebFile) -> None:
    @router.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def send(request: Request) -> Response:
        return respond(file, request)


def respond(file: WebFile, request: Request) -> Response:
    """The file, packed for those who accept that; 304 for those who have it.

    A browser asks each time whether its copy still holds, so that a page never meets scripts of another version.
    """
    packed = file.packed if accepts_gzip(request.headers.get("accept-encoding", "")) else None
    # Two encodings are two representations, each with a tag of its own (RFC 9110, section 8.8.3).
    tag = f'"{file.tag}"' if packed is None else f'"{file.tag}-gzip"'
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "ETag": tag}
    if file.packed is not None:
        headers["Vary"] = "Accept-Encoding"
    if is_current(tag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    if packed is not None:
        headers["Content-Encoding"] = "gzip"
    return Response(file.content if packed is None else packed, media_type=file.media_type, headers=headers)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the header names gzip, and not with a weight of 0."""
    for each in accept_encoding.split(","):
        name, _, weight = each.partition(";")
        if name.strip().lower() == "gzip":
            return re.fullmatch(r"q=0(\.0*)?", weight.strip().lower()) is None
    return False


def is_current(tag: str, if_none_match: str) -> bool:
    """Whether one of the tags of `If-None-Match` is ours; weak ones count (RFC 9110, section 13.1.2)."""
    known = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return "*" in known or tag in known
