"""How many CPUs this process may really use: affinity, and the quota of its cgroup."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """At least 1. A container limited to 1.5 CPUs counts as 2: more threads would only wait for each other."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cgroup_quota(cgroup: Path = CGROUP) -> float | None:
    """CPUs that the cgroup grants, version 2 or 1; None without a limit (or without cgroups)."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass  # Not version 2.
    try:
        quota_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None
