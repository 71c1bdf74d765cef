"""What a service does at present, out of two looks at its `/metrics`. Pure.

Counters only ever grow, so what happened between two looks is their difference; a counter that shrank began anew with
its process.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Buckets = Mapping[float, float]
"""Upper bound in seconds -> how many took no longer (cumulative, as Prometheus has it)."""


@dataclass(frozen=True)
class Look:
    """The counters and gauges of a moment, `at_s` of the monotonic clock. Exits and stages are numbered from 1."""

    at_s: float
    requests: float
    refused: float
    exits: Mapping[int, float]
    latency: Mapping[int, Buckets]
    queued: Mapping[int, float]
    in_flight: float
    gmacs_spent: float
    gmacs_saved: float
    ready: bool


@dataclass(frozen=True)
class ExitLoad:
    """One exit: its share of images, and from a request's arrival to an image's answer; None where there was none."""

    number: int
    share: float | None
    images_per_s: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Load:
    """Between two looks, `seconds` apart. `saved` is the share of computation that early exits spared."""

    seconds: float
    requests_per_s: float
    images_per_s: float
    refused_per_s: float
    exits: tuple[ExitLoad, ...]
    queued: tuple[int, ...]
    in_flight: int
    saved: float | None
    ready: bool
    images_since_start: int


def read_look(text: str, at_s: float) -> Look:
    """Raises `ValueError` for what is not Prometheus's text format, or not of this service."""
    single: dict[str, float] = defaultdict(float)
    exits: dict[int, float] = defaultdict(float)
    latency: dict[int, dict[float, float]] = defaultdict(dict)
    queued: dict[int, float] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if name == "dvt_http_requests_total":
                # Whatever brings images: /classify and the Open Inference Protocol, not labels for them.
                if labels["method"] == "POST" and labels["route"] != "/feedback":
                    single[name] += value
            elif name == "dvt_exits_total":
                exits[int(labels["exit"])] += value
            elif name == "dvt_exit_latency_seconds_bucket":
                latency[int(labels["exit"])][float(labels["le"])] = value
            elif name == "dvt_queued_images":
                queued[int(labels["stage"])] = value
            else:
                single[name] += value
    if "dvt_ready" not in single:
        raise ValueError("there are no metrics of a dvt service")
    return Look(
        at_s,
        single["dvt_http_requests_total"],
        single["dvt_refusals_total"],
        exits,
        latency,
        queued,
        single["dvt_in_flight_images"],
        single["dvt_gmacs_spent_total"],
        single["dvt_gmacs_saved_total"],
        bool(single["dvt_ready"]),
    )


def load_between(before: Look, now: Look) -> Load:
    """What happened between two looks at the same service."""
    seconds = max(now.at_s - before.at_s, 1e-9)
    images = {number: _grown(count, before.exits.get(number, 0.0)) for number, count in now.exits.items()}
    total = sum(images.values())
    spent = _grown(now.gmacs_spent, before.gmacs_spent)
    saved = _grown(now.gmacs_saved, before.gmacs_saved)
    by_exit = []
    for number in sorted(images):
        buckets = _between(before.latency.get(number, {}), now.latency.get(number, {}))
        share = images[number] / total if total else None
        p50_ms, p99_ms = quantile_ms(buckets, 0.5), quantile_ms(buckets, 0.99)
        by_exit.append(ExitLoad(number, share, images[number] / seconds, p50_ms, p99_ms))
    return Load(
        seconds=seconds,
        requests_per_s=_grown(now.requests, before.requests) / seconds,
        images_per_s=total / seconds,
        refused_per_s=_grown(now.refused, before.refused) / seconds,
        exits=tuple(by_exit),
        queued=tuple(int(now.queued[stage]) for stage in sorted(now.queued)),
        in_flight=int(now.in_flight),
        saved=saved / (spent + saved) if spent + saved > 0 else None,
        ready=now.ready,
        images_since_start=int(sum(now.exits.values())),
    )


def quantile_ms(buckets: Buckets, quantile: float) -> float | None:
    """Milliseconds that this share did not exceed, on a straight line within its bucket; None of nothing.

    Above the highest finite bound nothing is known: then it is that bound, as Prometheus itself has it.
    """
    bounds = sorted(buckets)
    count = buckets[bounds[-1]] if bounds else 0.0
    if count <= 0:
        return None
    low, below = 0.0, 0.0
    for bound in bounds:
        inside = buckets[bound] - below
        if buckets[bound] >= quantile * count and inside > 0:
            if math.isinf(bound):
                break
            return 1000 * (low + (bound - low) * (quantile * count - below) / inside)
        low, below = (low if math.isinf(bound) else bound), buckets[bound]
    return 1000 * low


def _between(before: Buckets, now: Buckets) -> Buckets:
    if any(count < before.get(bound, 0.0) for bound, count in now.items()):
        return now
    return {bound: count - before.get(bound, 0.0) for bound, count in now.items()}


def _grown(now: float, before: float) -> float:
    return now if now < before else now - before
