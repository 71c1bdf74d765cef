import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.image_trees import write_image, write_tree
from training.folders import DataError, ImageFolder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path, train={"dog": 3, "cat": 2}, report={"dog": 1, "cat": 1})


def test_classes_are_the_sorted_folder_names_and_paths_are_relative(tree: Path) -> None:
    folder = ImageFolder.scan(tree)
    assert folder.classes == folder.labels == ("cat", "dog")
    assert folder.train.paths[:3] == ("train/cat/0000.png", "train/cat/0001.png", "train/dog/0000.png")
    np.testing.assert_array_equal(folder.train.targets, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(folder.train.counts(), [2, 3])


def test_a_subset_keeps_paths_and_targets_together(tree: Path) -> None:
    part = ImageFolder.scan(tree).train.subset(np.array([4, 0]))
    assert part.paths == ("train/dog/0002.png", "train/cat/0000.png")
    np.testing.assert_array_equal(part.targets, [1, 0])


def test_results_are_reported_on_test_if_there_is_one_and_on_val_otherwise(tmp_path: Path) -> None:
    root = write_tree(tmp_path, train={"a": 1, "b": 1}, report={"a": 1}, report_name="val")
    assert ImageFolder.scan(root).report_name == "val"
    (root / "test").mkdir()
    write_image(root / "test" / "unsorted.png", 7)
    assert ImageFolder.scan(root).report_name == "val"
    write_image(root / "test" / "b" / "x.png", 8)
    assert ImageFolder.scan(root).report.paths == ("test/b/x.png",)


def test_images_in_subfolders_count_and_other_files_do_not(tree: Path) -> None:
    write_image(tree / "train" / "cat" / "more" / "z.PNG", 99)
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (tree / "train" / "cat" / name).write_bytes(b"x")
    write_image(tree / "train" / "cat" / ".thumbnails" / "small.png", 98)
    (tree / "train" / ".cache").mkdir()
    assert ImageFolder.scan(tree).train.paths[:3] == (
        "train/cat/0000.png",
        "train/cat/0001.png",
        "train/cat/more/z.PNG",
    )


def test_an_empty_class_is_named(tree: Path) -> None:
    (tree / "train" / "bird").mkdir()
    (tree / "train" / "bird" / "readme.txt").write_text("soon")
    with pytest.raises(DataError, match=r"class bird of train is empty.*add images or remove the folder"):
        ImageFolder.scan(tree)


def test_one_class_alone_is_an_error(tmp_path: Path) -> None:
    root = write_tree(tmp_path, train={"cat": 3}, report={"cat": 1})
    with pytest.raises(DataError, match=r"one class only \(cat\).*add the folder of another class"):
        ImageFolder.scan(root)


def test_missing_folders_are_named_with_the_layout_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder; expected PATH/train"):
        ImageFolder.scan(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"train holds no class folders; expected PATH/train"):
        ImageFolder.scan(tmp_path)
    write_tree(tmp_path, train={"a": 1, "b": 1}, report={})
    with pytest.raises(DataError, match=r"neither .*test nor .*val holds class folders; move some images"):
        ImageFolder.scan(tmp_path)


def test_a_report_class_that_train_lacks_is_named(tree: Path) -> None:
    write_image(tree / "test" / "fish" / "x.png", 50)
    with pytest.raises(DataError, match=r"classes that .*train lacks: fish; rename these folders, or add them"):
        ImageFolder.scan(tree)


def test_imagenette_folders_get_readable_labels(tmp_path: Path) -> None:
    root = write_tree(tmp_path, train={"n03028079": 1, "n01440764": 1, "mine": 1}, report={"mine": 1})
    assert ImageFolder.scan(root).labels == ("mine", "tench", "church")


def test_labels_json_gives_names_to_folders(tree: Path) -> None:
    (tree / "labels.json").write_text(json.dumps({"cat": "Katze"}), "utf-8")
    assert ImageFolder.scan(tree).labels == ("Katze", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be an object of folder names to labels"),
        ('{"cat": 3}', "must be an object of folder names to labels"),
        ('{"cat": ""}', "must be an object of folder names to labels"),
        ('{"cow": "Kuh"}', "names folders that train lacks: cow; known are cat, dog"),
        ('{"cat": "dog"}', "two classes are both called 'dog'"),
    ],
)
def test_a_labels_json_that_does_not_fit_is_refused(tree: Path, text: str, message: str) -> None:
    (tree / "labels.json").write_text(text, "utf-8")
    with pytest.raises(DataError, match=message):
        ImageFolder.scan(tree)
