"""From a recipe and a folder of images to a bundle: what `dvt train` does.

While a run is under way its files lie in `OUT.run` (checkpoint, log, cached views); OUT appears when it is done.
"""

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from models.bundle import Bundle, read_bundle, write_bundle
from models.config import DVTConfig, InputConfig
from models.devices import use
from models.dvt import DVT
from models.flops import cumulative_gmacs
from models.progress import Progress
from training import splits
from training.data import DecodedImages, ImageFolder, ImageSource, decode_all, evaluation_orders, open_images
from training.devices import computes_in, device_name, placed, spare_bytes
from training.distributed import World, joined_world
from training.folders import DataError, ImageList
from training.inputs import PixelInputs, TrainingInputs, ViewInputs
from training.modelcard import Measured, model_card
from training.plots import plot_exits, plot_learning_curves
from training.pretrained import load_stem
from training.recipe import NamedRecipe, Recipe
from training.runlog import median_speed
from training.start import begin_without_reuse, load_teacher, start_from
from training.throughput import measure_throughput, training_flops
from training.trainer import Evaluate, RunFiles, Trainer
from training.views import ViewCache, ViewConfig, build_views

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class TrainOptions:
    """Choices that are not the recipe's. `views`: where cached views are kept, for a cascade and its twin to share.

    `start`: the bundle whose weights to start from. `stop_at_s`: of the monotonic clock, where training stops with a
    checkpoint although it is not done.
    """

    data: Path
    out: Path
    device: torch.device
    resume: bool = False
    limit: int | None = None
    views: Path | None = None
    teacher: Path | None = None
    start: Path | None = None
    stop_at_s: float = math.inf


def train(named: NamedRecipe, options: TrainOptions) -> Bundle | None:
    """Train and write the bundle; None on processes that do not lead.

    Raises `DataError`, `CheckpointError`, `BundleError` and `ValueError` for what the caller can mend, `DivergedError`
    for a run that has gone wrong, and `OutOfTimeError` for one that can go on later.
    """
    files = RunFiles.of(options.out)
    if options.out.exists():
        if options.resume:
            return read_bundle(options.out)
        raise DataError(f"{options.out} exists already: choose another --out or remove it")
    if files.checkpoint.exists() and not options.resume:
        raise DataError(f"{files.folder} holds an unfinished run: add --resume to go on, or remove it to start anew")
    files.folder.mkdir(parents=True, exist_ok=True)
    use(options.device)
    with joined_world(options.device) as world:
        return _train(named, options, files, world)


def _train(named: NamedRecipe, options: TrainOptions, files: RunFiles, world: World) -> Bundle | None:
    recipe = named.recipe
    folder = ImageFolder.scan(options.data)
    if options.limit is not None:
        folder = _limited(folder, options.limit)
    cut = splits.cut(folder, splits.sizes_for(len(folder.train), recipe.held_out), recipe.seed)
    config = recipe.config(folder.labels)
    torch.manual_seed(recipe.seed)
    model = placed(DVT(config), options.device)
    if model.stem is not None:
        model.stem.load_state_dict(load_stem())
        model.stem.requires_grad_(False)
    draws = recipe.seed
    if options.start is None:
        begin_without_reuse(model)
    else:
        start = start_from(model, options.start, cut)
        # With the same draws, every image would look as it did in the round before.
        draws += int(start.weights_sha256[:6], 16)
    teacher = None
    if options.teacher is not None:
        if recipe.views is not None:
            raise ValueError("a teacher needs pixels: recipes with cached views cannot have one")
        teacher = placed(load_teacher(options.teacher, config, cut), options.device)
        recipe = replace(recipe, loss=replace(recipe.loss, distill_from="teacher"))
    # Counted and measured before layers are compiled, and before there is work on the device.
    dtype = computes_in(recipe.precision, options.device)
    throughput = measure_throughput(training_flops(model, teacher), options.device, dtype, world.size)
    if not world.leads:
        world.wait()  # the leader computes cached views first
    inputs, evaluate = _build_inputs(recipe, config, model, cut, options, files)
    if world.leads:
        world.wait()
    trainer = Trainer(
        model,
        replace(recipe, seed=draws),
        inputs,
        evaluate,
        files,
        fingerprint=_fingerprint(recipe, cut.train, options),
        world=world,
        teacher=teacher,
    )
    if options.resume:
        trainer.resume()
    if world.leads:
        said = (
            f"{throughput.flops_per_image / 1e9:.3g} GFLOPs an image and step, {throughput.ceiling_tflops:.3g} TFLOP/s"
        )
        print(f"{said} in large products of {str(dtype).removeprefix('torch.')} here", file=sys.stderr)
    trainer.run(throughput, options.stop_at_s)
    if not world.leads:
        return None
    return _finish(named, options, files, cut, trainer.averaged, trainer.seconds)


def _build_inputs(
    recipe: Recipe, config: DVTConfig, model: DVT, cut: splits.Splits, options: TrainOptions, files: RunFiles
) -> tuple[TrainingInputs, Evaluate]:
    device = options.device
    if recipe.views is None:
        at = config.input
        if recipe.train_px is not None:
            at = replace(at, size_px=recipe.train_px, resize_px=max(recipe.train_px, at.resize_px))
        with Progress("decoding") as progress:
            source = open_images(cut.train, at, progress=progress.update)
        search = decode_all(cut.search, config.input)
        _name_unreadable(source, search)
        if isinstance(source, DecodedImages) and source.images.nbytes <= spare_bytes(device):
            source = source.on(device)
        pixels = PixelInputs(source, config, recipe.augment, device)
        return pixels, lambda dvt: _pixel_top1(dvt, search, device)
    cache = options.views or files.folder / "views"
    train_views = _views(model, cut.train, config.input, recipe.views, recipe.seed, cache)
    search_views = _views(model, cut.search, config.input, replace(recipe.views, count=1), recipe.seed, cache)
    views = ViewInputs(train_views, config.classes, recipe.augment.mix, device)
    return views, lambda dvt: _view_top1(dvt, search_views, device)


def _views(model: DVT, images: ImageList, at: InputConfig, config: ViewConfig, seed: int, folder: Path) -> ViewCache:
    plain = decode_all(images, at)
    wide = decode_all(images, replace(at, size_px=at.resize_px)) if config.count > 2 else None
    _name_unreadable(plain)
    with Progress("stem features", "batch") as progress:
        return build_views(model, plain, wide, config, seed, folder, progress.update)


def _finish(
    named: NamedRecipe, options: TrainOptions, files: RunFiles, cut: splits.Splits, model: DVT, seconds: float
) -> Bundle:
    """Measure the trained weights as they will be read back (fp16 on disk), and write everything."""
    rounded = {name: tensor.half().float() for name, tensor in model.state_dict().items()}
    model.load_state_dict(rounded)
    model.eval()
    with Progress("report split") as progress:
        report = decode_all(cut.report, model.config.input, progress=progress.update)
    _name_unreadable(report)
    top1 = tuple(_pixel_top1(model, report, options.device))
    gmacs = tuple(cumulative_gmacs(model))
    with Progress("hashing the data", "file") as progress:
        record = splits.record(cut, named.recipe.seed, progress=progress.update)
    grids = tuple(stage.grid for stage in model.config.stages)
    start, teacher = (
        None if origin is None else read_bundle(origin).weights_sha256 for origin in (options.start, options.teacher)
    )
    measured = Measured(
        grids,
        gmacs,
        top1,
        len(report),
        seconds / 3600,
        device_name(options.device),
        median_speed(files.log),
        start,
        teacher,
    )
    bundle = write_bundle(
        options.out,
        model.config,
        {name: tensor.cpu().numpy() for name, tensor in rounded.items()},
        readme=model_card(named, measured),
        dtype="float16",
        splits=record.to_json(),
    )
    _draw(files, measured)
    return bundle


def _draw(files: RunFiles, measured: Measured) -> None:
    """Pictures are no part of the bundle: where matplotlib is not installed there are none."""
    try:
        plot_learning_curves(files.log, files.folder / "curves.png")
        plot_exits(measured.gmacs, measured.top1, files.folder / "accuracy.png")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        print(f"matplotlib is not installed: no pictures in {files.folder}", file=sys.stderr)


@torch.inference_mode()
def _pixel_top1(model: DVT, images: DecodedImages, device: torch.device) -> Sequence[float]:
    was_training = model.training
    model.eval()
    correct = np.zeros(model.config.exits)
    for indices in evaluation_orders(len(images), EVALUATION_BATCH):
        batch = images.batch(indices)
        targets = batch.targets.to(device)
        for k, logits in enumerate(model(batch.images.to(device))):
            correct[k] += int((logits.argmax(dim=1) == targets).sum())
    model.train(was_training)
    return [float(count) for count in correct / len(images)]


@torch.inference_mode()
def _view_top1(model: DVT, views: ViewCache, device: torch.device) -> Sequence[float]:
    correct = np.zeros(model.config.exits)
    for indices in evaluation_orders(len(views), EVALUATION_BATCH):
        targets = torch.from_numpy(views.targets[indices]).to(device)
        for k, logits in enumerate(model.forward_views([view.to(device) for view in views.take(indices, 0)])):
            correct[k] += int((logits.argmax(dim=1) == targets).sum())
    return [float(count) for count in correct / len(views)]


def _limited(folder: ImageFolder, limit: int) -> ImageFolder:
    """The first images of each class, about `limit` in all, of train and report: for a quick try."""

    def first(images: ImageList) -> ImageList:
        per_class = max(4, limit // len(images.classes))
        members = [np.flatnonzero(images.targets == target)[:per_class] for target in range(len(images.classes))]
        return images.subset(np.concatenate(members))

    return replace(folder, train=first(folder.train), report=first(folder.report))


def _name_unreadable(*sources: ImageSource) -> None:
    for source in sources:
        if source.unreadable:
            print(f"{len(source.unreadable)} images could not be read and are left out:", file=sys.stderr)
            for damaged in source.unreadable:
                print(f"  {damaged.path}: {damaged.reason}", file=sys.stderr)


def _fingerprint(recipe: Recipe, train_images: ImageList, options: TrainOptions) -> str:
    says = (asdict(recipe), train_images.paths, options.limit, str(options.teacher), str(options.start))
    return hashlib.sha256(json.dumps(says).encode()).hexdigest()
