"""An ImageFolder tree on disk: PATH/train/<class>/* and PATH/test or PATH/val, listed once and frozen.

Nothing is decoded here. Paths are relative to PATH with forward slashes, so that lists mean the same everywhere.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.seeds import IntArray
from training.wnids import IMAGENETTE_LABELS

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
REPORT_FOLDERS = ("test", "val")

LAYOUT = "expected PATH/train/<class>/<images> and PATH/test/<class>/<images> (or val)"


class DataError(ValueError):
    """The image folders cannot be trained or measured on. The message says why, and the way out."""


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images of one split: `paths` (n) relative to `root`, `targets` (n,) indices into `classes` (folder names)."""

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    targets: IntArray

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: IntArray) -> "ImageList":
        """The images at `indices` (m,), in that order."""
        return ImageList(self.root, self.classes, tuple(self.paths[i] for i in indices), self.targets[indices])

    def counts(self) -> IntArray:
        """Images a class, (classes,)."""
        return np.bincount(self.targets, minlength=len(self.classes)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """A data set: `classes` are the sorted folder names of train, `labels` what to call them in the same order.

    `report` is the official test set: PATH/test if it holds class folders, otherwise PATH/val, as `report_name` says.
    """

    root: Path
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    train: ImageList
    report: ImageList
    report_name: str

    @staticmethod
    def scan_report(root: Path) -> "ImageFolder":
        """List what a bundle is measured on: a tree without `train` will do, its classes are then those of report.

        Raises `DataError`.
        """
        root = Path(root)
        if (root / "train").is_dir() or not root.is_dir():
            return ImageFolder.scan(root)
        report_name = next((name for name in REPORT_FOLDERS if _class_names(root / name)), None)
        if report_name is None:
            raise DataError(
                f"neither {root / 'test'} nor {root / 'val'} holds class folders; expected PATH/test/<class>/<images> "
                "(or val)"
            )
        classes = _class_names(root / report_name)
        none = ImageList(root, classes, (), np.array([], dtype=np.int64))
        return ImageFolder(
            root, classes, _labels(root, classes), none, _list_images(root, report_name, classes), report_name
        )

    @staticmethod
    def scan(root: Path) -> "ImageFolder":
        """List the tree under `root`. Raises `DataError`."""
        root = Path(root)
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; {LAYOUT}")
        classes = _class_names(root / "train")
        if not classes:
            raise DataError(f"{root / 'train'} holds no class folders; {LAYOUT}")
        if len(classes) == 1:
            raise DataError(
                f"{root / 'train'} holds one class only ({classes[0]}); a classifier needs two or more, "
                "add the folder of another class"
            )
        report_name = next((name for name in REPORT_FOLDERS if _class_names(root / name)), None)
        if report_name is None:
            raise DataError(
                f"neither {root / 'test'} nor {root / 'val'} holds class folders; move some images of each class "
                "there, so that results are reported on images that were not trained on"
            )
        unknown = sorted(set(_class_names(root / report_name)) - set(classes))
        if unknown:
            raise DataError(
                f"{root / report_name} has classes that {root / 'train'} lacks: {', '.join(unknown)}; "
                "rename these folders, or add them to train"
            )
        return ImageFolder(
            root=root,
            classes=classes,
            labels=_labels(root, classes),
            train=_list_images(root, "train", classes),
            report=_list_images(root, report_name, classes),
            report_name=report_name,
        )


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _list_images(root: Path, split: str, classes: tuple[str, ...]) -> ImageList:
    paths: list[str] = []
    targets: list[int] = []
    for target in range(len(classes)):
        folder = root / split / classes[target]
        if not folder.is_dir():
            continue
        found = _images_under(root, folder)
        if not found:
            raise DataError(
                f"class {classes[target]} of {split} is empty: no {', '.join(sorted(EXTENSIONS))} file in {folder}; "
                "add images or remove the folder"
            )
        paths += found
        targets += [target] * len(found)
    return ImageList(root, classes, tuple(paths), np.array(targets, dtype=np.int64))


def _images_under(root: Path, folder: Path) -> list[str]:
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(root).as_posix()
        images = (name for name in names if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS)
        found += [f"{inside}/{name}" for name in images]
    return sorted(found)


def _labels(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Names for people: PATH/labels.json {folder: label}, else the ten of Imagenette, else the folder's own name."""
    own = root / "labels.json"
    names = IMAGENETTE_LABELS | (_read_labels(own, classes) if own.is_file() else {})
    labels = tuple(names.get(name, name) for name in classes)
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise DataError(f"two classes are both called {repeated[0]!r}; give each a label of its own in {own}")
    return labels


def _read_labels(path: Path, classes: tuple[str, ...]) -> dict[str, str]:
    try:
        table = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not JSON ({error}); write {{folder: label, ...}}, or remove it") from error
    if not isinstance(table, dict) or not all(isinstance(label, str) and label for label in table.values()):
        raise DataError(f'{path} must be an object of folder names to labels, such as {{"{classes[0]}": "a label"}}')
    unknown = sorted(set(table) - set(classes))
    if unknown:
        raise DataError(f"{path} names folders that train lacks: {', '.join(unknown)}; known are {', '.join(classes)}")
    return table
