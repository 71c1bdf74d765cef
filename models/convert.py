"""Published checkpoints (`*.pth.tar`) to bundles: weights, thresholds and the published curve.

A checkpoint is a dict of `model_state_dict`, `flops` (GMACs when leaving at each exit), `anytime_classification` (top-1
of each exit, %), `dynamic_threshold` (one row an operating point, one entry an exit) and
`budgeted_batch_classification` (mean GMACs and top-1, %, of each operating point). Only the first is required.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.architectures import build_config
from models.bundle import Bundle, write_bundle, write_profiles
from models.config import DVTConfig, PatchTokenizer, T2TTokenizer
from models.dvt import DVT
from models.pickled_arrays import stand_ins
from models.profiles import ExitProfile, OperatingPoint, Profiles

PUBLISHED_STAGES = ("less_less_token", "less_token", "normal_token")

# A threshold of 1e8 is the published "never leave here".
NEVER_ABOVE = 1.0

# How far, in top-1, a named profile may fall below the last exit.
NAMED_DROPS = {"fast": 0.02, "balanced": 0.005, "accurate": 0.0}


class ConvertError(ValueError):
    """A checkpoint cannot be converted. The message names what is wrong, entry by entry."""


@dataclass(frozen=True)
class PublishedCurve:
    """What a checkpoint says of its exits, each alone and together at its operating points."""

    exits: tuple[ExitProfile, ...]
    points: tuple[OperatingPoint, ...]


def convert(checkpoint: Path, out: Path, architecture: str, labels: tuple[str, ...] | None = None) -> Bundle:
    """Write the bundle of a published checkpoint. Without `labels` the classes are called "class 0", "class 1" ...

    Raises `ConvertError` for a file that is no such checkpoint or does not fit the architecture, `BundleError` if `out`
    is taken, `ValueError` for an unknown architecture.
    """
    content = _load(checkpoint)
    published = _state_dict(content, checkpoint)
    config = _fitting_config(architecture, published, labels)
    weights = _rename(published, config)
    readme = _readme(architecture, checkpoint.name)
    curve = _curve(content, config)
    bundle = write_bundle(out, config, weights, readme=readme)
    return bundle if curve is None else write_profiles(bundle, _profiles(bundle, curve))


def published_name(ours: str, config: DVTConfig) -> str:
    """The published checkpoints' name of one of our state-dict entries."""
    _, index, rest = ours.split(".", 2)
    t2t = isinstance(config.stages[int(index)].tokenizer, T2TTokenizer)
    rest = re.sub(r"^tokenizer\.", "tokens_to_token." if t2t else "patch_embed.", rest)
    rest = re.sub(r"^(tokens_to_token\.attention\d)\.fc1\.", r"\1.mlp.0.", rest)
    rest = re.sub(r"^(tokens_to_token\.attention\d)\.fc2\.", r"\1.mlp.2.", rest)
    rest = rest.replace(".feature_reuse.norm.", ".feature_resuse_mlp.0.")
    rest = rest.replace(".feature_reuse.", ".feature_resuse_mlp.1.")
    rest = rest.replace("relation_reuse.fc1.", "relation_reuse_conv.0.")
    rest = rest.replace("relation_reuse.fc2.", "relation_reuse_conv.2.")
    return f"{PUBLISHED_STAGES[int(index)]}.{rest}"


def _load(path: Path) -> dict[str, object]:
    try:
        with torch.serialization.safe_globals(stand_ins()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConvertError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # the unpickler meets damaged bytes with errors of any kind
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is not None:
            reason = f"it asks for {code[1]} to be run, and only tensors, arrays and numbers are read"
        else:
            reason = "it is damaged, or was not written by torch.save"
        raise ConvertError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict):
        raise ConvertError(f"{path} holds a {type(content).__name__}, a published checkpoint is a dict")
    return content


def _state_dict(content: Mapping[str, object], path: Path) -> dict[str, Tensor]:
    entries = content.get("model_state_dict")
    if not isinstance(entries, Mapping) or not all(isinstance(value, Tensor) for value in entries.values()):
        raise ConvertError(
            f"{path} has no `model_state_dict` of tensors; it has {', '.join(map(str, content)) or 'nothing'}"
        )
    return {str(name).removeprefix("module."): value.detach() for name, value in entries.items()}


def _fitting_config(architecture: str, published: Mapping[str, Tensor], labels: tuple[str, ...] | None) -> DVTConfig:
    config = build_config(architecture, labels or ("class 0",))
    kinds = {type(stage.tokenizer) for stage in config.stages}
    if config.exits != len(PUBLISHED_STAGES) or not kinds <= {T2TTokenizer, PatchTokenizer}:
        raise ConvertError(f"{architecture} was never published: choose one of dvt_t2t_vit_* and dvt_deit_*")
    head = published.get(f"{PUBLISHED_STAGES[-1]}.head.bias")
    classes = len(head) if head is not None else config.classes
    if labels is None:
        return config.with_labels(tuple(f"class {index}" for index in range(classes)))
    if len(labels) != classes:
        raise ConvertError(f"{len(labels)} labels for a checkpoint of {classes} classes: give one label a class")
    return config


def _rename(published: Mapping[str, Tensor], config: DVTConfig) -> dict[str, NDArray[np.float32]]:
    """Our names, float32. Raises `ConvertError` that lists every entry that does not fit."""
    with torch.device("meta"):
        expected = {published_name(ours, config): (ours, t.shape) for ours, t in DVT(config).state_dict().items()}
    wrong = [f"missing: {name} {tuple(expected[name][1])}" for name in expected if name not in published]
    wrong += [f"unexpected: {name} {tuple(published[name].shape)}" for name in published if name not in expected]
    wrong += [
        f"shape of {name}: {tuple(published[name].shape)}, expected {tuple(shape)}"
        for name, (_, shape) in expected.items()
        if name in published and published[name].shape != shape
    ]
    if wrong:
        raise ConvertError(f"the checkpoint does not fit {config.architecture}:\n  " + "\n  ".join(wrong))
    return {ours: published[name].float().numpy() for name, (ours, _) in expected.items()}


def _curve(content: Mapping[str, object], config: DVTConfig) -> PublishedCurve | None:
    """The published curve, or None where the checkpoint has none. Raises `ConvertError` for one of other shapes."""
    keys = ("flops", "anytime_classification", "dynamic_threshold", "budgeted_batch_classification")
    missing = [key for key in keys if content.get(key) is None]
    if len(missing) == len(keys):
        return None
    if missing:
        raise ConvertError(f"the checkpoint has a part of its curve but lacks {', '.join(missing)}")
    flops, anytime, thresholds, budgeted = (_array(content, key) for key in keys)
    exits, points = config.exits, len(np.atleast_1d(thresholds))
    shapes = {keys[0]: (exits,), keys[1]: (exits,), keys[2]: (points, exits), keys[3]: (2, points)}
    for key, array in zip(keys, (flops, anytime, thresholds, budgeted), strict=True):
        if array.shape != shapes[key] or not np.isfinite(array).all():
            raise ConvertError(f"`{key}` has shape {array.shape}, expected {shapes[key]} finite numbers")
    try:
        return PublishedCurve(
            exits=tuple(
                ExitProfile(stage.grid, gmacs, top1 / 100)
                for stage, gmacs, top1 in zip(config.stages, flops.tolist(), anytime.tolist(), strict=True)
            ),
            points=tuple(
                OperatingPoint(_thresholds(row), top1 / 100, mean_gmacs, exit_shares=None)
                for row, mean_gmacs, top1 in zip(thresholds.tolist(), *budgeted.tolist(), strict=True)
            ),
        )
    except ValueError as error:
        raise ConvertError(f"the checkpoint's curve is no curve: {error}") from error


def _array(content: Mapping[str, object], key: str) -> NDArray[np.float64]:
    value = content.get(key)
    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        value = [item.tolist() if isinstance(item, Tensor) else item for item in value]
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConvertError(f"`{key}` is not an array of numbers: {error}") from error


def _thresholds(row: list[float]) -> tuple[float | None, ...]:
    """Entries of all exits but the last, which takes everything."""
    return tuple(None if value > NEVER_ABOVE else max(value, 0.0) for value in row[:-1])


def _profiles(bundle: Bundle, curve: PublishedCurve) -> Profiles:
    exits = bundle.config.exits
    last = (0.0,) * (exits - 1) + (1.0,)
    full = OperatingPoint((None,) * (exits - 1), curve.exits[-1].top1, curve.exits[-1].gmacs, last)
    points = sorted((*curve.points, full), key=lambda point: (point.mean_gmacs, -point.top1))
    frontier: list[OperatingPoint] = []
    for point in points:
        if not frontier or point.top1 > frontier[-1].top1:
            frontier.append(point)
    named = {
        name: next(point for point in points if point.top1 >= full.top1 - drop) for name, drop in NAMED_DROPS.items()
    }
    return Profiles(
        weights_sha256=bundle.weights_sha256,
        config_sha256=bundle.config_sha256,
        confidence="max_softmax",
        exits=curve.exits,
        splits=(),
        frontier=tuple(frontier),
        named=named | {"full": full},
    )


def _readme(architecture: str, source: str) -> str:
    return f"""# {architecture}

Converted from the published checkpoint `{source}` (DVT, Wang et al., NeurIPS 2021, arXiv 2105.15075).

Thresholds, accuracy and GMACs in profiles.json, if there are any, are those that were published with it: nothing was
measured anew, and exit shares were not published. `dvt profile` measures them on images of your own.
"""
