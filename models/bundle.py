"""A bundle: one folder with all that serving a cascade needs. Read, write, verify. No torch, nothing unpickled.

    config.json         DVTConfig
    model.safetensors   weights, float32 or float16 (always computed with in float32)
    onnx/stage{k}.onnx  graphs without weights, k from 1; optional
    profiles.json       where to leave and what that achieves; optional
    splits.json         which training images were held out; optional
    SHA256SUMS          hashes of config, weights, graphs and splits (`sha256sum -c SHA256SUMS` agrees)
    README.md           model card

profiles.json names the hashes of the weights and the configuration that it was measured on, so it is replaced alone.
A bundle is written beside its place and then renamed: a half-written one is never seen.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from models.config import DVTConfig
from models.policy import ExitMeasure
from models.profiles import Profiles
from models.strict_json import SchemaError

CONFIG, WEIGHTS, PROFILES, SPLITS, SUMS, README = (
    "config.json",
    "model.safetensors",
    "profiles.json",
    "splits.json",
    "SHA256SUMS",
    "README.md",
)


class BundleError(ValueError):
    """A bundle is missing, incomplete or not what its hashes say. The message names the file and the way out."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk. `onnx` has one path a stage, or is None where the graphs were not exported."""

    path: Path
    config: DVTConfig
    config_sha256: str
    weights_sha256: str
    profiles: Profiles | None
    onnx: tuple[Path, ...] | None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def measure(self) -> ExitMeasure:
        """How confident its exits are; as they are written where it was never profiled."""
        if self.profiles is None:
            return ExitMeasure("max_softmax", (1.0,) * self.config.exits)
        return ExitMeasure(self.profiles.confidence, tuple(exit_.temperature for exit_ in self.profiles.exits))

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """State-dict name -> float32 array. Raises `BundleError`."""
        try:
            stored = safetensors.numpy.load_file(self.path / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{self.path / WEIGHTS} cannot be read: {error}") from error
        return {name: array.astype(np.float32) for name, array in stored.items()}


def read_bundle(path: str | Path) -> Bundle:
    """Open the bundle at `path` and verify its hashes. Raises `BundleError` that names what differs."""
    path = Path(path).resolve()
    if not path.is_dir():
        raise BundleError(f"there is no bundle at {path}: give a folder made by `dvt train` or `dvt convert`")
    sums = _read_sums(path)
    for name, expected in sums.items():
        actual = _file_sha256(path / name)
        if actual != expected:
            raise BundleError(
                f"{path / name} has SHA-256 {actual[:12]}..., {SUMS} says {expected[:12]}...: "
                "the file was changed or damaged; restore it or make the bundle anew"
            )
    profiles_path = path / PROFILES
    try:
        config = DVTConfig.from_json(_read_text(path / CONFIG), str(path / CONFIG))
        profiles = Profiles.from_json(_read_text(profiles_path), str(profiles_path)) if profiles_path.exists() else None
    except SchemaError as error:
        raise BundleError(str(error)) from error
    graphs = tuple(path / _graph_name(number) for number in range(1, config.exits + 1))
    has_graphs = any(name.startswith("onnx/") for name in sums)
    missing = [graph.name for graph in graphs if has_graphs and str(graph.relative_to(path)) not in sums]
    if missing:
        raise BundleError(f"{path} lacks {', '.join(missing)}: run `dvt export` on it")
    bundle = Bundle(path, config, sums[CONFIG], sums[WEIGHTS], profiles, graphs if has_graphs else None)
    if profiles is not None:
        _check_profiles(bundle, profiles)
    return bundle


def write_bundle(
    path: str | Path,
    config: DVTConfig,
    weights: Mapping[str, NDArray[np.floating]],
    *,
    readme: str,
    dtype: Literal["float32", "float16"] = "float32",
    splits: str | None = None,
    onnx: Sequence[bytes] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle without profiles and return it verified. Raises `BundleError` if `path` is taken.

    `weights` maps state-dict names to arrays, `splits` is the text of splits.json, `onnx` one graph a stage.
    """
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise BundleError(f"{path} exists already: choose another folder or remove it")
    if onnx is not None and len(onnx) != config.exits:
        raise BundleError(f"{len(onnx)} graphs for {config.exits} stages")
    tensors = {name: np.ascontiguousarray(array.astype(dtype)) for name, array in weights.items()}
    files = {CONFIG: config.to_json().encode(), WEIGHTS: safetensors.numpy.save(tensors)}
    if splits is not None:
        files[SPLITS] = splits.encode()
    for number, graph in enumerate(onnx or (), start=1):
        files[_graph_name(number)] = graph
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    _replace_folder(path, {**files, SUMS: sums.encode(), README: readme.encode()})
    return read_bundle(path)


def write_graphs(bundle: Bundle, graphs: Sequence[bytes]) -> Bundle:
    """Give a bundle its ONNX graphs, one a stage, in place of those it has; everything else is kept as it is."""
    assert len(graphs) == bundle.config.exits
    kept = {
        str(file.relative_to(bundle.path)): file.read_bytes()
        for file in sorted(bundle.path.rglob("*"))
        if file.is_file() and file.suffix != ".onnx"
    }
    new = {_graph_name(number): graph for number, graph in enumerate(graphs, start=1)}
    sums = {name: digest for name, digest in _read_sums(bundle.path).items() if not name.startswith("onnx/")}
    sums |= {name: hashlib.sha256(graph).hexdigest() for name, graph in new.items()}
    kept[SUMS] = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
    _replace_folder(bundle.path, kept | new)
    return read_bundle(bundle.path)


def write_profiles(bundle: Bundle, profiles: Profiles) -> Bundle:
    """Give a bundle its profiles.json, atomically. Raises `BundleError` for profiles of other weights."""
    _check_profiles(bundle, profiles)
    write_file_atomically(bundle.path / PROFILES, profiles.to_json().encode())
    return read_bundle(bundle.path)


def write_file_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a crash, finds the old content or the new, never a part."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _check_profiles(bundle: Bundle, profiles: Profiles) -> None:
    for what, measured, present in (
        ("weights", profiles.weights_sha256, bundle.weights_sha256),
        ("config.json", profiles.config_sha256, bundle.config_sha256),
    ):
        if measured != present:
            raise BundleError(
                f"{bundle.path / PROFILES} was measured on {what} {measured[:12]}..., "
                f"the bundle has {present[:12]}...: thresholds belong to their weights; run `dvt profile` again"
            )
    if len(profiles.exits) != bundle.config.exits:
        raise BundleError(
            f"{bundle.path / PROFILES} has {len(profiles.exits)} exits, the model has {bundle.config.exits}: "
            "run `dvt profile` again"
        )


def _graph_name(number: int) -> str:
    return f"onnx/stage{number}.onnx"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error


def _read_sums(path: Path) -> dict[str, str]:
    sums: dict[str, str] = {}
    for line in _read_text(path / SUMS).splitlines():
        digest, separator, name = line.partition("  ")
        inside = Path(name).parts and not Path(name).is_absolute() and ".." not in Path(name).parts
        if not separator or len(digest) != 64 or not inside:
            raise BundleError(f"{path / SUMS} has a line that is not `hash  name`: {line!r}")
        sums[name] = digest
    missing = [name for name in (CONFIG, WEIGHTS) if name not in sums]
    if missing:
        raise BundleError(f"{path / SUMS} lacks {', '.join(missing)}: the bundle is incomplete")
    return sums


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: no path, such as one with a NUL in it
        raise BundleError(f"{path} cannot be read: {error}") from error


def _replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        os.chmod(new, 0o755)
        for name, data in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            write_file_atomically(new / name, data)
        if path.exists():
            old = new.with_name(f"{new.name}.old")
            os.rename(path, old)
            try:
                os.rename(new, path)
            except BaseException:
                os.rename(old, path)
                raise
            shutil.rmtree(old)
        else:
            os.rename(new, path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
