"""Small image folders on disk for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, value: int, size_px: int = 8) -> None:
    """A PNG of noise that depends on `value` alone; its upper left pixel is (value, 0, 0)."""
    pixels = np.random.default_rng(value).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    pixels[0, 0] = (value % 256, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_tree(root: Path, train: dict[str, int], report: dict[str, int], report_name: str = "test") -> Path:
    """`train` and `report`: class folder name -> how many images; every image is different."""
    value = 0
    for split, classes in (("train", train), (report_name, report)):
        for name, count in classes.items():
            for number in range(count):
                write_image(root / split / name / f"{number:04}.png", value)
                value += 1
    return root
