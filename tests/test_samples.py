import re
from pathlib import Path

import pytest
from PIL import Image

from scripts.run import SAMPLES

ROOT = Path(__file__).parent.parent
PHOTOS = sorted((ROOT / "samples").glob("*.jpg"))


def test_every_photo_has_its_source_and_licence_and_every_line_its_photo() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", (ROOT / "samples" / "README.md").read_text(), flags=re.MULTILINE)
    assert {name for name, _ in rows} == {photo.name for photo in PHOTOS}
    for name, row in rows:
        shows, source, author, licence = (cell.strip() for cell in row.split("|"))
        assert shows and source and author, name
        assert re.search(r"CC0|CC BY|GPL|Apache", licence), name


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.stem)
def test_a_photo_is_small_and_opens(photo: Path) -> None:
    assert photo.stat().st_size < 150_000
    with Image.open(photo) as image:
        image.load()
        assert image.mode == "RGB"
        assert min(image.size) >= 224


def test_what_make_run_suggests_is_there() -> None:
    assert len(set(SAMPLES)) == 2
    assert all((ROOT / sample) in PHOTOS for sample in SAMPLES)
