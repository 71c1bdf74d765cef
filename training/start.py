"""What training starts from: random weights, or a bundle's, for the next round of a run or a user's own classes; and
the bundle that it learns from, if it has a teacher."""

from pathlib import Path

import torch
from torch import nn

from models.bundle import Bundle, BundleError, read_bundle
from models.config import DVTConfig
from models.dvt import DVT, load_bundle
from models.reuse import FeatureReuse, RelationReuse
from training.folders import DataError
from training.splits import FILE_NAME, Splits, hash_files, read_record


def begin_without_reuse(model: DVT) -> None:
    """Let random weights begin with stages that add nothing to each other: noise from one would hold up the next."""
    for module in model.modules():
        if isinstance(module, FeatureReuse | RelationReuse):
            for parameter in module.fc2.parameters():
                nn.init.zeros_(parameter)


def start_from(model: DVT, path: Path, splits: Splits) -> Bundle:
    """Load the weights of the bundle at `path` into `model`; heads of other classes keep their random start.

    Raises `BundleError` if the rest of the network differs, `DataError` if the bundle was trained on images that
    `splits` holds out.
    """
    bundle = read_bundle(path)
    _check_held_out(bundle, splits)
    same_classes = bundle.config.labels == model.config.labels
    weights = {
        name: torch.from_numpy(array)
        for name, array in bundle.weights().items()
        if same_classes or not _is_of_head(name)
    }
    expected = {
        name: tensor.shape for name, tensor in model.state_dict().items() if same_classes or not _is_of_head(name)
    }
    differing = sorted(
        name
        for name in expected | weights
        if name not in expected or name not in weights or weights[name].shape != expected[name]
    )
    if differing:
        raise BundleError(
            f"{path} is {bundle.config.architecture} and its weights do not fit {model.config.architecture} here: "
            f"{len(differing)} differ (the first: {differing[0]}); start from a bundle of the same network"
        )
    model.load_state_dict(weights, strict=False)
    return bundle


def load_teacher(path: Path, config: DVTConfig, splits: Splits) -> DVT:
    """The bundle at `path` as teacher of a network with `config`: its last exit's logits are what all exits learn from.

    Raises `BundleError` if it answers in other classes or sees other pixels, `DataError` if it was trained on images
    that `splits` holds out: through it they would be trained on after all.
    """
    bundle = read_bundle(path)
    for what, theirs, ours in (
        ("classes", bundle.config.labels, config.labels),
        ("input", bundle.config.input, config.input),
    ):
        if theirs != ours:
            raise BundleError(
                f"{path} cannot teach {config.architecture} here: its {what} would have to be {ours}, not {theirs}"
            )
    _check_held_out(bundle, splits)
    return load_bundle(path)


def _is_of_head(name: str) -> bool:
    return name.split(".")[-2] == "head"


def _check_held_out(bundle: Bundle, splits: Splits) -> None:
    """Its held-out images are known, its training images by one hash only; so whoever shares some must share all."""
    if not (bundle.path / FILE_NAME).exists():
        return  # A converted bundle: what it was trained on is not known.
    record = read_record(bundle.path)
    known = {*record.search.files.values(), *record.certify.files.values()}
    digest_chars = max(map(len, known), default=0)
    held_out = hash_files(splits.train.root, [*splits.search.paths, *splits.certify.paths])
    shared = sum(digest[:digest_chars] in known for digest in held_out)
    if 0 < shared < len(held_out):
        raise DataError(
            f"{bundle.path} was trained on images of this data that are held out here: only {shared} of "
            f"{len(held_out)} were held out there; hold out the same (its seed is {record.seed})"
        )
