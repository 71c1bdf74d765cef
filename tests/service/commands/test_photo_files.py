from pathlib import Path

import pytest

from service.commands.photo_files import PhotoFile, find_photos


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "odd[1].jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(*words: str) -> list[str]:
    return [photo.name for photo in find_photos(words) if photo.missing is None]


def test_a_folder_stands_for_its_photos_by_name_however_deep(folder: Path) -> None:
    assert names(".") == ["a.PNG", "b.jpg", "deep/c.webp", "odd[1].jpg"]


def test_a_file_is_taken_whatever_its_name(folder: Path) -> None:
    assert names("notes.txt", "odd[1].jpg") == ["notes.txt", "odd[1].jpg"]


def test_a_pattern_that_the_shell_left_alone_is_one_here(folder: Path) -> None:
    assert names("*.jpg") == ["b.jpg", "odd[1].jpg"]
    assert names("**/*.webp") == ["deep/c.webp"]
    assert names(f"{folder}/*.PNG") == [f"{folder}/a.PNG"]


def test_a_photo_that_is_named_twice_is_taken_once(folder: Path) -> None:
    assert names("b.jpg", "*.jpg", "-", "-") == ["b.jpg", "odd[1].jpg", "-"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [("none.jpg", "no such file"), ("*.gif", "nothing matches"), ("empty", "no photo in this folder")],
)
def test_what_is_not_there_is_told_and_hides_nothing_else(folder: Path, word: str, reason: str) -> None:
    first, missing = find_photos(["b.jpg", word])
    assert first.read() == b"b.jpg"
    with pytest.raises(OSError, match=reason):
        missing.read()


def test_a_device_is_not_read_for_ever() -> None:
    (device,) = find_photos(["/dev/zero"])
    with pytest.raises(OSError, match="no regular file"):
        device.read()


def test_a_link_in_a_circle_ends(folder: Path) -> None:
    (folder / "deep" / "again").symlink_to(folder)
    assert names("deep") == ["deep/c.webp"]


def test_what_cannot_be_opened_is_told_without_its_name(folder: Path) -> None:
    with pytest.raises(OSError, match=r"^No such file or directory$"):
        PhotoFile("gone.jpg").read()
