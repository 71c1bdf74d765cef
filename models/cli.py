"""`dvt convert` and `dvt export`."""

import argparse
import json
import sys
from pathlib import Path


def add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description = "Turn a published checkpoint (*.pth.tar) into a bundle, its thresholds and curve included."
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the published file")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must not exist")
    parser.add_argument(
        "--architecture", required=True, metavar="NAME", help="such as dvt_t2t_vit_12 or dvt_deit_small"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names: one a line, or a JSON list")
    parser.set_defaults(run=_convert)


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write one ONNX graph a stage into a bundle, each compared with PyTorch first."
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    parser.set_defaults(run=_export)


def _convert(args: argparse.Namespace) -> int:
    from models.convert import convert

    try:
        labels = _read_labels(args.labels) if args.labels is not None else None
        bundle = convert(args.checkpoint, args.out, args.architecture, labels)
    except (ValueError, OSError) as error:
        print(f"dvt convert: {error}", file=sys.stderr)
        return 2
    points = f"{len(bundle.profiles.frontier)} points on its frontier" if bundle.profiles else "no published curve"
    print(
        f"{bundle.path}: {bundle.config.classes} classes, {bundle.config.exits} exits, {points}; "
        f"`dvt export {args.out}` makes it ready to serve without torch",
        file=sys.stderr,
    )
    return 0


def _export(args: argparse.Namespace) -> int:
    from models.bundle import read_bundle, write_graphs
    from models.dvt import load_bundle
    from models.export import ExportError, export_graphs

    try:
        graphs = export_graphs(load_bundle(args.bundle))
        bundle = write_graphs(read_bundle(args.bundle), graphs)
    except (ValueError, OSError, ExportError) as error:
        print(f"dvt export: {error}", file=sys.stderr)
        return 2
    print(f"{bundle.path}: {len(graphs)} graphs, each equal to PyTorch within 1e-4", file=sys.stderr)
    return 0


def _read_labels(path: Path) -> tuple[str, ...]:
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        labels = json.loads(text)
        if not all(isinstance(label, str) for label in labels):
            raise ValueError(f"{path} is a JSON list, but not of strings")
        return tuple(labels)
    return tuple(line.strip() for line in text.splitlines() if line.strip())
