"""Which images are for what: search and certify are cut from the training images before training, and recorded.

search sets thresholds and temperatures, certify proves, report (the official test set) reports; train is the rest.
A bundle keeps the record as splits.json, so that those very images are found again, or their absence is noticed.

The sha256 of a set is that of its files' sha256 (64 lower-case hex digits each), sorted, each followed by a newline:
`sha256sum FILES | cut -c1-64 | LC_ALL=C sort | sha256sum`.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from models import strict_json
from models.profiles import Split
from training.data import available_cpus
from training.folders import DataError, ImageFolder, ImageList
from training.seeds import IntArray

SCHEMA_VERSION = 1
FILE_NAME = "splits.json"

SplitName = Literal["train", "search", "certify", "report"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "search", "certify", "report")

# A file is told from others of its set by this much of its sha256; the whole set by all of it.
_DIGEST_CHARS = 16
_CHUNK = 256

# Held-out images are worth less than training images once they are more than this share of them.
LARGEST_SHARE = 1 / 3
DEFAULT_SHARE = 1 / 10

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitSizes:
    """How many training images to hold out."""

    search: int
    certify: int

    def __post_init__(self) -> None:
        if min(self.search, self.certify) < 1:
            raise ValueError(f"search {self.search} and certify {self.certify} must be 1 or more")


@dataclass(frozen=True, eq=False)
class Splits:
    """The four sets of a data folder; disjoint but for identical files."""

    train: ImageList
    search: ImageList
    certify: ImageList
    report: ImageList

    def get(self, name: SplitName) -> ImageList:
        images: ImageList = getattr(self, name)
        return images


@dataclass(frozen=True)
class SetRecord:
    """One set as measured: `sha256` as the module says; `files` maps paths under the data folder to 16 digits.

    `files` is empty for train and report, which are found by their folders.
    """

    size: int
    sha256: str
    files: dict[str, str]


@dataclass(frozen=True)
class SplitRecord:
    """splits.json."""

    seed: int
    train: SetRecord
    search: SetRecord
    certify: SetRecord
    report: SetRecord
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"schema_version {self.schema_version} is not {SCHEMA_VERSION}, the one this version reads; "
                "make the bundle anew with `dvt train` of this version"
            )

    def get(self, name: SplitName) -> SetRecord:
        record: SetRecord = getattr(self, name)
        return record

    def as_profile(self, name: SplitName) -> Split:
        """What profiles.json says of a set."""
        record = self.get(name)
        return Split(name, record.size, record.sha256)

    def to_json(self) -> str:
        return strict_json.dumps(self)

    @staticmethod
    def from_json(text: str, where: str = FILE_NAME) -> "SplitRecord":
        """Raises `strict_json.SchemaError` (a `ValueError`) that names the place."""
        return strict_json.loads(SplitRecord, text, where)


def sizes_for(images: int, wanted: SplitSizes | None) -> SplitSizes:
    """`wanted` if that is at most a third of the training images; otherwise, or if None, a tenth of them each."""
    if wanted is not None and wanted.search + wanted.certify <= images * LARGEST_SHARE:
        return wanted
    tenth = max(1, round(images * DEFAULT_SHARE))
    return SplitSizes(tenth, tenth)


def cut(folder: ImageFolder, sizes: SplitSizes, seed: int) -> Splits:
    """Hold out search and certify, each class by its share of the training images.

    Which images, depends on their paths and the seed alone: in the order of sha256("seed/path"), the first of a class
    go to search, the next to certify. Raises `DataError` if a class would keep nothing to train on.
    """
    counts = folder.train.counts()
    search, certify = _apportion(sizes.search, counts), _apportion(sizes.certify, counts)
    for name, count, taken in zip(folder.classes, counts, search + certify, strict=True):
        if taken >= count:
            raise DataError(
                f"class {name} has {count} training images and {taken} would be held out for search and certify; "
                "add images of this class, or hold out fewer"
            )
    chosen: dict[str, list[int]] = {"search": [], "certify": [], "train": []}
    for target in range(len(folder.classes)):
        members = np.flatnonzero(folder.train.targets == target).tolist()
        ordered = sorted(members, key=lambda i: _rank(seed, folder.train.paths[i]))
        first, second = int(search[target]), int(search[target] + certify[target])
        chosen["search"] += ordered[:first]
        chosen["certify"] += ordered[first:second]
        chosen["train"] += ordered[second:]
    parts = {name: folder.train.subset(np.array(sorted(places), dtype=np.int64)) for name, places in chosen.items()}
    return Splits(parts["train"], parts["search"], parts["certify"], folder.report)


def record(splits: Splits, seed: int, *, progress: Progress | None = None) -> SplitRecord:
    """Hash every file of the four sets. Raises `OSError` if one cannot be read at all."""
    sets = [splits.get(name) for name in SPLIT_NAMES]
    digests = iter(hash_files(splits.train.root, [path for images in sets for path in images.paths], progress))
    train, search, certify, report = (list(itertools.islice(digests, len(images))) for images in sets)
    return SplitRecord(
        seed=seed,
        train=SetRecord(len(train), hash_of_set(train), {}),
        search=_record_files(splits.search, search),
        certify=_record_files(splits.certify, certify),
        report=SetRecord(len(report), hash_of_set(report), {}),
    )


def read_record(bundle: Path) -> SplitRecord:
    """The record that a bundle keeps. Raises `DataError` if it has none, `strict_json.SchemaError` if it is damaged."""
    path = Path(bundle) / FILE_NAME
    if not path.is_file():
        raise DataError(f"{path} is missing: this bundle does not say which images were held out; train it anew")
    return SplitRecord.from_json(path.read_text("utf-8"), str(path))


def find_again(splits: SplitRecord, name: Literal["search", "certify", "report"], root: Path) -> ImageList:
    """The images of a set under the data folder `root`, verified by hash.

    Raises `DataError` that names what differs.
    """
    folder = ImageFolder.scan(root)
    expected = splits.get(name)
    images = folder.report if name == "report" else _select(folder, expected, name)
    digests = hash_files(images.root, images.paths)
    differing = [
        path
        for path, digest in zip(images.paths, digests, strict=True)
        if name != "report" and digest[:_DIGEST_CHARS] != expected.files[path]
    ]
    if differing:
        raise DataError(f"{_some(differing)} under {root} changed since {name} was cut; unpack the data again")
    found = hash_of_set(digests)
    if len(images) != expected.size or found != expected.sha256:
        raise DataError(
            f"the {name} set under {root} is not the one of this bundle: {len(images)} images with sha256 "
            f"{found[:12]}..., recorded are {expected.size} with {expected.sha256[:12]}...; "
            "point --data at the folder that the bundle was trained on"
        )
    return images


def hash_files(root: Path, paths: Sequence[str], progress: Progress | None = None) -> list[str]:
    """The sha256 of each of `paths` under `root`, hexadecimal, in their order."""

    def digests_of(start: int) -> list[str]:
        chunk = paths[start : start + _CHUNK]
        return [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in chunk]

    digests: list[str] = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for chunk in pool.map(digests_of, range(0, len(paths), _CHUNK)):
            digests += chunk
            if progress is not None:
                progress(len(digests), len(paths))
    return digests


def hash_of_set(digests: Sequence[str]) -> str:
    """One sha256 for a set of files, whatever their names and order."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(digests)).encode("ascii")).hexdigest()


def _record_files(images: ImageList, digests: Sequence[str]) -> SetRecord:
    files = {path: digest[:_DIGEST_CHARS] for path, digest in zip(images.paths, digests, strict=True)}
    return SetRecord(len(images), hash_of_set(digests), files)


def _select(folder: ImageFolder, expected: SetRecord, name: str) -> ImageList:
    places = {path: i for i, path in enumerate(folder.train.paths)}
    missing = [path for path in expected.files if path not in places]
    if missing:
        raise DataError(
            f"{_some(missing)} of the {name} set missing under {folder.root}; "
            "point --data at the folder that the bundle was trained on"
        )
    return folder.train.subset(np.array(sorted(places[path] for path in expected.files), dtype=np.int64))


def _some(paths: Sequence[str]) -> str:
    return f"{len(paths)} file{'s' if len(paths) > 1 else ''} (the first: {paths[0]})"


def _apportion(size: int, counts: IntArray) -> IntArray:
    """`size` over classes by their share, at least one each; what rounding leaves goes to the largest remainders."""
    exact = size * counts / counts.sum()
    shares: IntArray = np.maximum(np.floor(exact), 1).astype(np.int64)
    left = size - int(shares.sum())
    if left > 0:
        shares[np.argsort(shares - exact, kind="stable")[:left]] += 1
    for _ in range(-left):  # the classes that got one for free are paid for by the largest
        if shares.max() > 1:
            shares[shares.argmax()] -= 1
    return shares


def _rank(seed: int, path: str) -> bytes:
    return hashlib.sha256(f"{seed}/{path}".encode()).digest()
