"""`dvt certify`: what can be promised of leaving early, proved on held-out images."""

import argparse
from typing import TYPE_CHECKING

from training.cli_evaluate import add_common, add_search, answering, name_unreadable, say, show

if TYPE_CHECKING:
    from models.tables import Table
    from training.certify import CertifyRun


def add_certify(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prove, on images that were held out for it, how much leaving early can harm: for each claim that the bundle "
        "names, find the cheapest thresholds that hold it, and write them into profiles.json and the model card."
    )
    add_common(parser)
    parser.add_argument(
        "--backend", choices=("onnx", "eager"), help="what computes, and is certified (default: onnx if it has graphs)"
    )
    add_search(parser)
    parser.set_defaults(run=_certify)


def _certify(args: argparse.Namespace) -> int:
    from models.progress import Progress
    from training.certify import certify_bundle
    from training.devices import choose_device

    def run() -> None:
        with Progress("running all exits") as progress:
            done = certify_bundle(
                args.bundle,
                args.data,
                backend=args.backend,
                rule=args.rule,
                limit=args.limit,
                device=choose_device(args.device),
                batch=args.batch,
                progress=progress.update,
            )
        name_unreadable(done.unreadable)
        show(_tables(done))
        say(f"wrote {args.bundle / 'profiles.json'} and the model card")

    return answering("dvt certify", run)


def _tables(done: "CertifyRun") -> "tuple[Table, ...]":
    from models.tables import Table
    from training.certify import why_not

    claims = done.profiles.claims
    assert claims is not None
    points = {each.claim: each.point for each in done.profiles.certificates}
    rows = []
    for test in done.tested:
        point = points.get(test.claim)
        numbers = (
            ("-", "-", "-")
            if point is None
            else (
                str(test.harmed),
                f"{point.mean_gmacs:.4f}",
                f"{point.top1:.2%}",
            )
        )
        tested = f"{test.certified} of {test.candidates}"
        risk = test.claim.risk.replace("_", " ")
        rows.append((risk, f"{test.claim.epsilon:.1%}", tested, *numbers, why_not(test, claims, done.samples)))
    bounds = tuple(
        (each.profile, each.risk.replace("_", " "), str(each.harmed), f"{each.upper:.2%}") for each in done.bounds
    )
    return (
        Table(
            f"Claims, on {done.samples:,} certify images: all that hold do so together but for a chance of "
            f"{claims.delta:.0%}, each but for {claims.claim_delta:.2%}",
            ("risk", "at most", "vectors certified", "harmed", "mean GMACs", "top-1", "why not"),
            tuple(rows),
        ),
        Table(
            f"Named profiles, pointwise: each bound by itself holds but for a chance of {claims.delta:.0%}",
            ("profile", "risk", "harmed", "below"),
            bounds,
        ),
    )
