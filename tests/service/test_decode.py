"""Bytes from outside: formats on the list, limits before decoding, and no bytes at all that surprise the service."""

import io
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.config import InputConfig
from service.decode import ImageLimits, decode, silence_pillow
from service.errors import (
    CorruptImageError,
    EmptyImageError,
    ImageTooLargeError,
    ServiceError,
    TooManyPixelsError,
    UnsupportedImageError,
)

CONFIG = InputConfig(size_px=32, resize_px=32)
LIMITS = ImageLimits(max_bytes=200_000, max_side_px=1000)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@pytest.fixture(autouse=True)
def pillow_is_silent() -> None:
    silence_pillow()


def encoded(image_format: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    pixels = np.linspace(0, 255, size[0] * size[1] * 3).astype(np.uint8).reshape(size[1], size[0], 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


SAMPLES = {name: encoded(name) for name in FORMATS} | {
    "TIFF deflate": encoded("TIFF", compression="tiff_adobe_deflate"),
    "TIFF lzw": encoded("TIFF", compression="tiff_lzw"),
    "WEBP lossless": encoded("WEBP", lossless=True),
    "JPEG progressive": encoded("JPEG", progressive=True),
    "JPEG exif": encoded("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_each_format_is_read(name: str) -> None:
    assert decode(SAMPLES[name], CONFIG, LIMITS).shape == (3, 32, 32)


@pytest.mark.parametrize("image_format", ["PPM", "ICO", "TGA", "JPEG2000", "PDF"])
def test_formats_off_the_list_are_refused(image_format: str) -> None:
    with pytest.raises(UnsupportedImageError, match="JPEG, PNG, WebP, GIF, BMP and TIFF"):
        decode(encoded(image_format), CONFIG, LIMITS)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(EmptyImageError, match="0 bytes"):
        decode(b"", CONFIG, LIMITS)


def test_a_file_over_the_limit_names_size_limit_and_setting() -> None:
    with pytest.raises(ImageTooLargeError, match=r"200001 bytes, the limit is 200000 \(DVT_MAX_IMAGE_BYTES\)"):
        decode(b"\xff\xd8\xff" + bytes(199_998), CONFIG, LIMITS)


@pytest.mark.parametrize("size", [(1001, 1000), (1_000_001, 1)])
def test_too_many_pixels_are_refused_by_the_header_alone(size: tuple[int, int]) -> None:
    claimed = bytearray(encoded("PNG"))
    claimed[16:24] = struct.pack(">II", *size)
    claimed[29:33] = struct.pack(">I", zlib.crc32(claimed[12:29]))
    with pytest.raises(TooManyPixelsError, match=rf"{size[0]}x{size[1]} px, the limit is 1000x1000 px"):
        decode(bytes(claimed), CONFIG, LIMITS)


def test_many_pixels_in_a_long_shape_are_fine_within_the_limit() -> None:
    assert decode(encoded("PNG", (100_000, 10)), CONFIG, LIMITS).shape == (3, 32, 32)


@pytest.mark.parametrize(
    "header",
    [
        b"VP8X" + struct.pack("<I", 10) + bytes(4) + struct.pack("<HBHB", 0xFFFF, 0, 0xFFFF, 0),
        b"VP8L" + struct.pack("<I", 99) + b"\x2f" + struct.pack("<I", 0x0FFFFFFF) + bytes(20),
        b"VP8 " + struct.pack("<I", 99) + b"\x10\x02\x00\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(20),
    ],
)
def test_a_webp_canvas_is_measured_before_its_decoder_allocates_it(
    header: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("the decoder was asked first")

    monkeypatch.setattr(Image, "open", too_late)
    data = b"RIFF" + struct.pack("<I", 4 + len(header)) + b"WEBP" + header
    with pytest.raises(TooManyPixelsError, match="the limit is 1000x1000 px"):
        decode(data, CONFIG, LIMITS)


def test_an_absurd_size_is_the_files_fault_without_a_warning_of_pillow() -> None:
    claimed = bytearray(encoded("BMP"))
    claimed[18:26] = struct.pack("<ii", 2**30, 2**30)
    with pytest.raises(TooManyPixelsError):
        decode(bytes(claimed), CONFIG, LIMITS)


def test_a_png_that_hides_megabytes_in_a_text_chunk_does_not_get_them() -> None:
    bomb = b"key\0\0" + zlib.compress(bytes(100_000_000), 9)
    plain = encoded("PNG")
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", zlib.crc32(b"zTXt" + bomb))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptImageError):
            decode(plain[:33] + chunk + plain[33:], CONFIG, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_tiff_tile_larger_than_the_limit_is_refused() -> None:
    entries = [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    entries += [(322, 4, 1 << 20), (323, 4, 1 << 20), (324, 4, 150), (325, 4, 20)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in entries)
    data = b"II*\0" + struct.pack("<I", 8) + directory + bytes(200)
    with pytest.raises(TooManyPixelsError, match="1048576x1048576"):
        decode(data, CONFIG, LIMITS)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_file_is_corrupt_or_whole_but_never_a_surprise(name: str) -> None:
    data = SAMPLES[name]
    outcomes = {outcome(data[:length]) for length in range(1, len(data), max(1, len(data) // 60))}
    assert outcomes <= {"ok", "corrupt_image", "unsupported_image"}
    assert "corrupt_image" in outcomes


def test_a_jpeg_cut_in_half_says_what_to_check() -> None:
    data = encoded("JPEG", (200, 200))
    with pytest.raises(CorruptImageError, match=r"truncated or damaged .*check that the whole file was sent"):
        decode(data[: len(data) // 2], CONFIG, LIMITS)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_with_a_4xx(data: bytes) -> None:
    assert outcome(data) != "ok"


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_files_with_a_few_bytes_changed_are_read_or_refused_with_a_4xx(name: str, data: st.DataObject) -> None:
    changed = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        # Most of the meaning, and most of the trouble, is in the first bytes.
        place = data.draw(st.integers(0, min(len(changed), 300) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    outcome(bytes(changed))


@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=64), st.integers(0, 200))
def test_files_with_a_piece_replaced_are_read_or_refused_with_a_4xx(name: str, piece: bytes, place: int) -> None:
    data = SAMPLES[name]
    outcome(data[:place] + piece + data[place + len(piece) :])


def outcome(data: bytes) -> str:
    """`ok`, or the code of the refusal, which must be the caller's fault."""
    try:
        assert decode(data, CONFIG, LIMITS).shape == (3, 32, 32)
    except ServiceError as error:
        assert 400 <= error.status < 500
        return error.code
    return "ok"


def test_threads_decode_beside_each_other() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _, data in zip(range(30), _cycle(), strict=False):
                decode(data, CONFIG, LIMITS)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def _cycle() -> Iterator[bytes]:
    while True:
        yield from SAMPLES.values()
