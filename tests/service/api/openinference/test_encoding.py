"""Compressed bodies: what goes in comes out, under a limit, and nothing that is cut off or stuffed passes."""

import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.openinference.encoding import Encoding, compress, expand, wanted
from service.errors import BadEncodingError, BodyTooLargeError, OverloadedError, UnsupportedEncodingError

PLENTY = 1 << 20


def take_all(_: int) -> None:
    """There is room."""


def made(body: bytes, encoding: str) -> bytes:
    return gzip.compress(body) if encoding == "gzip" else zlib.compress(body)


def of_one_step(encoding: str) -> bytes:
    """A body whose compressed form is as long as what is read at once."""
    stored = (zlib.compress(bytes(size), 0, 31 if encoding == "gzip" else 15) for size in range(65_480, 65_536))
    return next(body for body in stored if len(body) == 65_536)


@given(body=st.binary(max_size=2000), encoding=st.sampled_from(["gzip", "deflate"]))
def test_what_a_client_compresses_comes_out_as_it_was(body: bytes, encoding: Encoding) -> None:
    assert expand(made(body, encoding), encoding, PLENTY, take_all) == body
    assert expand(compress(body, encoding), encoding, PLENTY, take_all) == body


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_is_unpacked(encoding: str) -> None:
    bomb = made(bytes(64 << 20), encoding)
    taken: list[int] = []
    with pytest.raises(BodyTooLargeError, match=rf"{len(bomb)} bytes expand to more than {PLENTY}"):
        expand(bomb, encoding, PLENTY, taken.append)
    assert len(bomb) < PLENTY
    assert sum(taken) <= PLENTY


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_of_many_steps_comes_out_whole(encoding: Encoding) -> None:
    body = np.random.default_rng(3).bytes(300_000) + bytes(500_000)
    assert expand(made(body, encoding), encoding, PLENTY, take_all) == body


def test_what_expands_is_accounted_for_and_may_be_refused() -> None:
    taken: list[int] = []
    body = bytes(700_000)
    expand(gzip.compress(body), "gzip", PLENTY, taken.append)
    assert sum(taken) == len(body)

    def full(size_bytes: int) -> None:
        raise OverloadedError("no room")

    with pytest.raises(OverloadedError):
        expand(gzip.compress(body), "gzip", PLENTY, full)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_damaged_body_is_named(encoding: str) -> None:
    whole = made(b"a body" * 100, encoding)
    for body, says in (
        (whole[:-3], "cut off"),
        (whole + b"more", "more follows"),
        (of_one_step(encoding) + b"more", "more follows"),
        (whole[:-8] + bytes(8), "cannot be expanded"),
        (b"no such data", "cannot be expanded"),
    ):
        with pytest.raises(BadEncodingError, match=says):
            expand(body, encoding, PLENTY, take_all)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd", "compress", "x" * 10_000])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedEncodingError, match="gzip or deflate") as refused:
        expand(b"", encoding, PLENTY, take_all)
    assert len(refused.value.detail) < 300


def test_no_encoding_is_none() -> None:
    assert expand(b"body", "", PLENTY, take_all) == expand(b"body", "identity", PLENTY, take_all) == b"body"


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("*", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=0.5, br", "deflate"),
        ("GZIP ; q=1.0", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0.000", None),
        ("gzip;q=0.001", "gzip"),
    ],
)
def test_an_answer_is_compressed_as_asked(header: str, encoding: str | None) -> None:
    assert wanted(header) == encoding
