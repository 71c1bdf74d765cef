"""What expressions name: enough of PromQL to find metrics in it."""

import re

from service import series

# `up`, and what the library that counts shows of the process by itself.
OF_OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}

_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def declared_series() -> dict[str, tuple[str, ...]]:
    """Names under which Prometheus knows what the service shows, with their labels."""
    found: dict[str, tuple[str, ...]] = {}
    for each in series.declared():
        for part in _PARTS.get(each.kind, ("",)):
            found[each.name + part] = (*each.labels, "le") if part == "_bucket" else each.labels
    return found


def selectors(expression: str) -> dict[str, set[str]]:
    """Metrics that an expression names, with the labels that it selects them by."""
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"\b([a-z][a-z_:0-9]*)\{([^}]*)\}", expression):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*=", labels))
    for name in re.findall(r"\b((?:dvt|process|job|job_exit)[_:][a-z_:0-9]+)\b", expression):
        found.setdefault(name, set())
    return found
