"""The photos that are sent: JPEG files of a tree of images, or the samples of this repository. Nothing is written."""

import random
from dataclasses import dataclass
from pathlib import Path

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
