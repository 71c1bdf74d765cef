import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.strict_json import SchemaError
from tests.training.image_trees import write_image, write_tree
from training.folders import DataError, ImageFolder, ImageList
from training.splits import (
    FILE_NAME,
    SplitRecord,
    Splits,
    SplitSizes,
    cut,
    find_again,
    hash_of_set,
    read_record,
    record,
    sizes_for,
)

SIZES = SplitSizes(search=6, certify=9)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data", train={"a": 20, "b": 10}, report={"a": 2, "b": 2})


def listed(counts: list[int]) -> ImageFolder:
    """A folder of that many images a class that exist in name only."""
    classes = tuple(f"c{number:02}" for number in range(len(counts)))
    paths = tuple(f"train/{name}/{i:04}.png" for name, count in zip(classes, counts, strict=True) for i in range(count))
    train = ImageList(Path("nowhere"), classes, paths, np.repeat(np.arange(len(counts)), counts))
    return ImageFolder(Path("nowhere"), classes, classes, train, train.subset(np.array([], dtype=np.int64)), "test")


def paths_of(splits: Splits) -> list[tuple[str, ...]]:
    return [splits.train.paths, splits.search.paths, splits.certify.paths]


@given(
    counts=st.lists(st.integers(30, 90), min_size=2, max_size=12),
    share=st.tuples(st.floats(0.02, 0.3), st.floats(0.02, 0.3)),
    seed=st.integers(0, 1000),
)
def test_sets_are_disjoint_complete_stratified_and_of_the_size_asked_for(
    counts: list[int], share: tuple[float, float], seed: int
) -> None:
    folder = listed(counts)
    total = sum(counts)
    sizes = SplitSizes(*(max(len(counts), round(part * total)) for part in share))
    splits = cut(folder, sizes, seed)
    train, search, certify = paths_of(splits)
    assert sorted(train + search + certify) == sorted(folder.train.paths)
    assert (len(search), len(certify)) == (sizes.search, sizes.certify)
    for size, images in ((sizes.search, splits.search), (sizes.certify, splits.certify)):
        exact = size * np.array(counts) / total
        assert (np.abs(images.counts() - exact) <= 1 + (exact < 1)).all()
        assert (images.counts() >= 1).all()
        for path, target in zip(images.paths, images.targets, strict=True):
            assert path.startswith(f"train/c{target:02}/")


def test_the_cut_depends_on_names_and_seed_alone() -> None:
    folder = listed([40, 60])
    backwards = ImageFolder(
        folder.root,
        folder.classes,
        folder.labels,
        folder.train.subset(np.arange(100)[::-1].copy()),
        folder.report,
        "test",
    )
    expected = [set(paths) for paths in paths_of(cut(folder, SIZES, 1))]
    assert [set(paths) for paths in paths_of(cut(backwards, SIZES, 1))] == expected
    assert [set(paths) for paths in paths_of(cut(folder, SIZES, 2))] != expected


def test_the_cut_of_a_known_folder_never_changes() -> None:
    """Bundles out there were trained without these images: another rule would train on what they certify with."""
    splits = cut(listed([20, 10]), SplitSizes(3, 3), seed=0)
    assert splits.search.paths == ("train/c00/0009.png", "train/c00/0012.png", "train/c01/0004.png")
    assert splits.certify.paths == ("train/c00/0001.png", "train/c00/0015.png", "train/c01/0009.png")


def test_even_the_smallest_class_is_in_every_set() -> None:
    splits = cut(listed([1000, 3, 3]), SplitSizes(10, 10), seed=0)
    assert splits.search.counts().tolist() == splits.certify.counts().tolist() == [8, 1, 1]
    assert splits.train.counts().tolist() == [984, 1, 1]


def test_a_class_too_small_to_hold_anything_out_is_named() -> None:
    with pytest.raises(DataError, match=r"class c01 has 2 training images and 2 would be held out.*add images"):
        cut(listed([100, 2]), SplitSizes(5, 5), seed=0)


@pytest.mark.parametrize(
    ("images", "wanted", "expected"),
    [
        (50_000, SplitSizes(2500, 2500), SplitSizes(2500, 2500)),
        (9_469, SplitSizes(1000, 1500), SplitSizes(1000, 1500)),
        (600, SplitSizes(1000, 1500), SplitSizes(60, 60)),
        (30, SplitSizes(5, 5), SplitSizes(5, 5)),
        (29, SplitSizes(5, 5), SplitSizes(3, 3)),
        (1000, None, SplitSizes(100, 100)),
        (4, None, SplitSizes(1, 1)),
    ],
)
def test_sizes_are_those_asked_for_unless_the_data_is_too_small(
    images: int, wanted: SplitSizes | None, expected: SplitSizes
) -> None:
    assert sizes_for(images, wanted) == expected


def test_the_hash_of_a_set_is_that_of_its_sorted_file_hashes(root: Path) -> None:
    report = ImageFolder.scan(root).report
    lines = sorted(hashlib.sha256((root / path).read_bytes()).hexdigest() + "\n" for path in report.paths)
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    kept = record(cut(ImageFolder.scan(root), SIZES, 0), 0)
    assert kept.report.sha256 == kept.as_profile("report").sha256 == expected
    assert hash_of_set([]) == hashlib.sha256(b"").hexdigest()


def test_a_record_survives_the_bundle_and_finds_its_images_again_elsewhere(root: Path, tmp_path: Path) -> None:
    splits = cut(ImageFolder.scan(root), SIZES, seed=4)
    seen: list[tuple[int, int]] = []
    kept = record(splits, 4, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (34, 34)
    assert [kept.get(name).size for name in ("train", "search", "certify", "report")] == [15, 6, 9, 4]
    (tmp_path / FILE_NAME).write_text(kept.to_json(), "utf-8")
    again = read_record(tmp_path)
    assert again == kept
    moved = root.rename(tmp_path / "elsewhere")
    for name in ("search", "certify", "report"):
        found = find_again(again, name, moved)
        assert found.paths == splits.get(name).paths
        np.testing.assert_array_equal(found.targets, splits.get(name).targets)


def test_what_differs_from_the_record_is_named(root: Path) -> None:
    splits = cut(ImageFolder.scan(root), SIZES, seed=4)
    kept = record(splits, 4)
    changed, missing = splits.search.paths[2], splits.certify.paths[5]
    write_image(root / changed, 250)
    with pytest.raises(DataError, match=rf"1 file \(the first: {changed}\).*changed since search was cut"):
        find_again(kept, "search", root)
    find_again(kept, "certify", root)
    (root / missing).unlink()
    with pytest.raises(DataError, match=rf"1 file \(the first: {missing}\) of the certify set missing"):
        find_again(kept, "certify", root)


def test_another_report_set_is_noticed(root: Path) -> None:
    kept = record(cut(ImageFolder.scan(root), SIZES, 0), 0)
    shutil.copy(root / "test" / "a" / "0000.png", root / "test" / "a" / "copy.png")
    with pytest.raises(DataError, match=r"report set under .* is not the one of this bundle: 5 images.*recorded are 4"):
        find_again(kept, "report", root)
    (root / "test" / "a" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"4 images with sha256"):
        find_again(kept, "report", root)


def test_a_bundle_without_or_with_a_damaged_record_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"splits\.json is missing"):
        read_record(tmp_path)
    data = json.loads(record(cut(ImageFolder.scan(root), SIZES, 0), 0).to_json())
    with pytest.raises(SchemaError, match="schema_version 9"):
        SplitRecord.from_json(json.dumps(data | {"schema_version": 9}))
    with pytest.raises(SchemaError, match="size"):
        SplitRecord.from_json(json.dumps(data | {"train": {"sha256": "", "files": {}}}))
