"""The photos that are sent: JPEG files of a tree of images, or the samples of this repository. Nothing is written."""

import io
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
_ENDINGS = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Photos:
    """JPEG files in the order in which they are sent; `source` says in words where they are from."""

    source: str
    files: tuple[bytes, ...]

    @property
    def mean_bytes(self) -> float:
        return sum(map(len, self.files)) / len(self.files)


def load_photos(data: Path | None, count: int, seed: int) -> Photos:
    """`count` JPEG files drawn from anywhere below `data`, or all samples without one. Same seed, same photos.

    Raises `ValueError` where there are none.
    """
    folder = SAMPLES if data is None else data
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    if not found:
        raise ValueError(f"{folder} has no JPEG files below it; give a folder of photos with --data")
    if data is None:
        return Photos(f"the {len(found)} samples of the repository", tuple(path.read_bytes() for path in found))
    chosen = random.Random(seed).sample(found, min(count, len(found)))
    source = f"{len(chosen)} of the {len(found)} JPEG files in {folder.name}"
    return Photos(source, tuple(path.read_bytes() for path in chosen))


def cropped(photos: Photos, count: int, seed: int) -> Photos:
    """`count` crops of the photos in turn, no two alike, as JPEG. Same seed, same crops."""
    numbers = random.Random(seed)
    files = []
    for number in range(count):
        with Image.open(io.BytesIO(photos.files[number % len(photos.files)])) as photo:
            width, height = (round(side * numbers.uniform(0.6, 1.0)) for side in photo.size)
            left, top = (
                numbers.randint(0, side - kept) for side, kept in zip(photo.size, (width, height), strict=True)
            )
            buffer = io.BytesIO()
            photo.convert("RGB").crop((left, top, left + width, top + height)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return Photos(f"{count} crops of {photos.source}", tuple(files))
