"""`dvt train`, and the commands that measure what was trained."""

import argparse
import sys
import time
from pathlib import Path

from models.arguments import natural, positive, positive_number
from training.cli_evaluate import add_eval, add_profile

__all__ = ["add_eval", "add_profile", "add_train"]


def add_train(parser: argparse.ArgumentParser) -> None:
    parser.description = "Train a cascade and write it as a bundle."
    parser.epilog = (
        "Exit codes: 0 done; 2 misuse; 3 the loss has diverged; 75 time is up (--max-minutes): the same command with "
        "--resume goes on."
    )
    parser.add_argument("--recipe", required=True, metavar="NAME", help="what to train; `--recipe list` names them all")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder with train/<class>/* and test/ or val/")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the bundle goes; DIR.run holds the unfinished run"
    )
    parser.add_argument("--resume", action="store_true", help="go on from DIR.run where an earlier run stopped")
    parser.add_argument(
        "--max-minutes", type=positive_number, metavar="M", help="after these, stop with a checkpoint for --resume"
    )
    parser.add_argument("--teacher", type=Path, metavar="BUNDLE", help="distil all exits from this bundle's last one")
    parser.add_argument(
        "--start", type=Path, metavar="BUNDLE", help="start from this bundle's weights; its classes may be others"
    )
    parser.add_argument(
        "--views", type=Path, metavar="DIR", help="where cached stem features are kept (default: DIR.run)"
    )
    parser.add_argument("--epochs", type=positive, metavar="N", help="instead of the recipe's")
    parser.add_argument("--batch", type=positive, metavar="N", help="instead of the recipe's; over all processes")
    parser.add_argument("--rate-scale", type=positive_number, metavar="F", help="all learning rates times this")
    parser.add_argument("--warmup-epochs", type=positive_number, metavar="N", help="instead of the recipe's")
    parser.add_argument("--seed", type=natural, metavar="N", help="instead of the recipe's")
    parser.add_argument(
        "--reuse", choices=("both", "features", "relations", "none"), help="what a stage takes from the one before"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        help="of products; auto, the default of all recipes, is bf16 where the device is quicker with it",
    )
    parser.add_argument("--no-muon", action="store_true", help="AdamW for the matrices too, where the recipe has Muon")
    parser.add_argument("--no-augmentation", action="store_true", help="train on the images as evaluation sees them")
    parser.add_argument("--limit", type=positive, metavar="N", help="use about N images only, for a quick try")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of torch (default: all cores)")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.set_defaults(run=_train)


# Options that stand in for the recipe's field of the same name.
OVERRIDES = ("epochs", "batch", "warmup_epochs", "seed", "reuse", "precision")

DIVERGED = 3
# "Try again later" of sysexits.h.
OUT_OF_TIME = 75


def _train(args: argparse.Namespace) -> int:
    begun_s = time.monotonic()  # whoever limits the minutes counts those of the imports too
    import dataclasses
    import math

    import torch

    from training.augment import NO_AUGMENTATION
    from training.devices import choose_device
    from training.divergence import DivergedError
    from training.recipe import load_recipe, recipe_names, with_rates
    from training.run import TrainOptions, train
    from training.trainer import OutOfTimeError, RunFiles

    if args.recipe == "list":
        for name in recipe_names():
            print(f"{name}: {load_recipe(name).description.splitlines()[0]}")
        return 0
    try:
        if args.data is None or args.out is None:
            raise ValueError("--data PATH and --out DIR are needed")
        named = load_recipe(args.recipe)
        given = {name: getattr(args, name) for name in OVERRIDES if getattr(args, name) is not None}
        if args.no_augmentation:
            given["augment"] = NO_AUGMENTATION
        if args.no_muon:
            given["muon"] = None
        recipe = dataclasses.replace(named.recipe, **given)
        if args.rate_scale is not None:
            recipe = with_rates(recipe, args.rate_scale)
        if args.threads is not None:
            torch.set_num_threads(args.threads)
        device = choose_device(args.device)
        options = TrainOptions(
            args.data,
            args.out,
            device,
            resume=args.resume,
            limit=args.limit,
            views=args.views,
            teacher=args.teacher,
            start=args.start,
            stop_at_s=math.inf if args.max_minutes is None else begun_s + 60 * args.max_minutes,
        )
        bundle = train(dataclasses.replace(named, recipe=recipe), options)
    except (ValueError, OSError) as error:
        print(f"dvt train: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        files = RunFiles.of(args.out)
        kept = f"{files.folder} keeps its log" + " and the last good checkpoint" * files.checkpoint.exists()
        way_out = (
            "begin anew in another --out with lower rates (--rate-scale 0.3) or a longer warm-up (--warmup-epochs)"
        )
        print(f"dvt train: {error}; {way_out}; {kept}", file=sys.stderr)
        return DIVERGED
    except OutOfTimeError as error:
        print(f"dvt train: {error}; the same command with --resume goes on", file=sys.stderr)
        return OUT_OF_TIME
    if bundle is not None:
        print(f"{bundle.path} is trained; next: `dvt profile {args.out} --data {args.data}`", file=sys.stderr)
    return 0
