"""Where and with what a measurement was made: it stands beside every number that is kept."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("numpy", "onnxruntime", "pillow", "fastapi", "uvicorn", "httptools")


@dataclass(frozen=True)
class Environment:
    """`packages` are the versions that were measured with, those that serve; a peer's own stand in its settings."""

    date: str
    cpu: str
    cores: int
    system: str
    python: str
    packages: dict[str, str]


def environment(packages: tuple[str, ...] = PACKAGES) -> Environment:
    return Environment(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        python=platform.python_version(),
        packages=installed(packages),
    )


def installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # Not Linux.
    return platform.processor() or "unknown"
