"""`dvt bench ray`: what replicas add on Ray Serve, of the whole service or of single stages, with stages that sleep."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.connection import Target, raw_request
from benchmarks.drive import Closed, drive
from benchmarks.load import Limits
from benchmarks.machine import environment
from benchmarks.photos import ROOT
from benchmarks.processes import HOST, ServerCommand, ServerError, free_port, running
from benchmarks.ray_scripted import SECONDS, picture
from benchmarks.result_files import RESULTS, write_results
from benchmarks.results import RAY_FILE, RayDocument, RayRun
from models import strict_json
from models.tables import Table, write_tables

VENV, PINS = ROOT / ".venv-ray-serve", ROOT / "requirements" / "ray.txt"
# Seconds that an image takes in each stage: later ones are dearer, as they are.
STAGE_S = (0.02, 0.04, 0.08)
# Small, so that a run is many batches.
_MAX_BATCH = 4
# Sure at the last exit only.
_HARD = 3
_WARM_UP_S = 5.0


@dataclass(frozen=True)
class Size:
    """`replicas`: of the whole service, or one number a stage."""

    topology: str
    replicas: tuple[int, ...]

    @property
    def options(self) -> dict[str, object]:
        # Nothing is computed, so processors are not what there must be enough of.
        if self.topology == "replicas":
            return {"replicas": str(self.replicas[0]), "cpus": 0.1}
        return {"stages": ",".join(map(str, self.replicas)), "cpus": 0.1, "ingress_cpus": 0.1}


WHOLE, WHOLE_TWICE = Size("replicas", (1,)), Size("replicas", (2,))
ONE_EACH, LATE_TWICE, ALL_TWICE = Size("stages", (1, 1, 1)), Size("stages", (1, 2, 2)), Size("stages", (2, 2, 2))
SIZES = (WHOLE, WHOLE_TWICE, ONE_EACH, LATE_TWICE, ALL_TWICE, Size("stages", (1, 2, 4)))


def run(args: argparse.Namespace) -> int:
    path: Path = (args.results or RESULTS) / RAY_FILE
    try:
        subprocess.run(["scripts/venv.sh", str(VENV), str(PINS)], cwd=ROOT, check=True, stdout=sys.stderr)
        runs = tuple(_measure(size, args) for size in SIZES)
    except (OSError, ServerError, subprocess.CalledProcessError) as error:
        print(f"dvt bench ray: {error}", file=sys.stderr)
        return 2
    document = RayDocument(environment(), _ray_version(), STAGE_S, _MAX_BATCH, args.clients, runs)
    write_results(document, path)
    write_tables([table(document)], sys.stderr)
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    return 0


def _measure(size: Size, args: argparse.Namespace) -> RayRun:
    """Raises `ServerError`."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        file = Path(folder) / "application.yaml"
        application = {
            "name": "dvt",
            "route_prefix": "/",
            "import_path": f"benchmarks.ray_scripted:{size.topology}",
            "args": size.options,
        }
        # JSON is YAML.
        file.write_text(json.dumps({"http_options": {"host": HOST, "port": port}, "applications": [application]}))
        variables = {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "DVT_STATE_DIR": folder,
            "DVT_MAX_BATCH": str(_MAX_BATCH),
            "DVT_AUDIT_SHARE": "0",
            "DVT_CACHE": "off",
            "DVT_LOG_LEVEL": "warning",
            SECONDS: ",".join(map(str, STAGE_S)),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_raylet_start_wait_time_s": "100",
        }
        command = (str(VENV / "bin" / "serve"), "run", str(file))
        label = f"{size.topology} {'/'.join(map(str, size.replicas))}, "
        with running(ServerCommand(command, port, variables, ready_path="/health/ready")) as server:
            target = Target(HOST, server.port, "/classify")
            limits = Limits(args.seconds, _WARM_UP_S, timeout_s=120.0)
            load = drive(target, [picture(_HARD)], raw_request, Closed(args.clients), limits, server.pid, label)
    return RayRun(size.topology, size.replicas, load)


def _ray_version() -> str:
    asked = [str(VENV / "bin" / "python"), "-c", "from importlib.metadata import version; print(version('ray'))"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def throughput(document: RayDocument, size: Size) -> float:
    """Requests/s. Raises `ValueError` for a size that was not measured."""
    for each in document.runs:
        if (each.topology, each.replicas) == (size.topology, size.replicas):
            return each.load.throughput_per_s
    raise ValueError(f"{size} was not measured")


def replicas_doubled(document: RayDocument) -> float:
    """Two replicas of the whole service over one."""
    return throughput(document, WHOLE_TWICE) / throughput(document, WHOLE)


def late_doubled(document: RayDocument) -> float:
    """Two replicas of the later stages, and one of the first, over one of each."""
    return throughput(document, LATE_TWICE) / throughput(document, ONE_EACH)


def late_over_all(document: RayDocument) -> float:
    """Two replicas of the later stages alone over two of every stage."""
    return throughput(document, LATE_TWICE) / throughput(document, ALL_TWICE)


def table(document: RayDocument) -> Table:
    """Each size beside the smallest of its kind, and beside what its dearest stage would allow by itself."""
    rows = []
    for each in document.runs:
        first = next(other for other in document.runs if other.topology == each.topology)
        bound = _bound_per_s(each, document.stage_seconds)
        rows.append(
            (
                "whole service" if each.topology == "replicas" else "a deployment a stage",
                " / ".join(map(str, each.replicas)),
                f"{bound:.1f}",
                f"{each.load.throughput_per_s:.1f}",
                f"{each.load.throughput_per_s / first.load.throughput_per_s:.2f}",
                str(sum(each.load.errors.values())),
            )
        )
    columns = ("deployed", "replicas", "stages allow, requests/s", "measured", "over the first", "errors")
    return Table("Ray Serve, every image goes through all stages", columns, tuple(rows))


def _bound_per_s(run: RayRun, stage_s: tuple[float, ...]) -> float:
    if run.topology == "replicas":
        return run.replicas[0] / sum(stage_s)
    return min(replicas / seconds for replicas, seconds in zip(run.replicas, stage_s, strict=True))
