"""What a run of load amounts to: throughput, latency, exits, cost, errors, and who used how much CPU."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.load import Recorded, Sample


@dataclass(frozen=True)
class Latency:
    """Milliseconds. A percentile is a latency that was measured: the smallest that so many per cent did not exceed."""

    requests: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Usage:
    """CPU seconds of server and load generator over the measured part, the server's resident memory at its end.

    None where the server is not ours to look into.
    """

    generator_cpu_s: float
    server_cpu_s: float | None = None
    server_rss_bytes: int | None = None


@dataclass(frozen=True)
class LoadResult:
    """One run. `offered_per_s` is the rate of an open loop, `clients` the number of a closed one.

    `requests` were answered with 200 in the measured `seconds`, `errors` counts all others by status or reason.
    `lateness_p99_ms` is how far the generator itself was behind its schedule (open loop). CPU is per request.
    """

    seconds: float
    requests: int
    throughput_per_s: float
    latency: Latency | None
    by_exit: dict[str, Latency]
    exit_shares: dict[str, float]
    mean_gmacs: float | None
    errors: dict[str, int]
    generator_cpu_ms: float
    server_cpu_ms: float | None
    server_rss_bytes: int | None
    clients: int | None = None
    offered_per_s: float | None = None
    lateness_p99_ms: float | None = None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0..1) of them do not exceed. Raises `ValueError` for none."""
    if not values:
        raise ValueError("no values, no percentile")
    return float(np.quantile(np.asarray(values), share, method="inverted_cdf"))


def latency_of(values_s: Sequence[float]) -> Latency:
    """Raises `ValueError` for no values."""
    p50, p95, p99 = (1000 * percentile(values_s, share) for share in (0.5, 0.95, 0.99))
    return Latency(len(values_s), 1000 * float(np.mean(values_s)), p50, p95, p99, 1000 * max(values_s))


def summarise(
    recorded: Recorded, usage: Usage, *, clients: int | None = None, offered_per_s: float | None = None
) -> LoadResult:
    good = [sample for sample in recorded.samples if sample.status == 200]
    by_exit: dict[int, list[float]] = defaultdict(list)
    for sample in good:
        if sample.exit is not None:
            by_exit[sample.exit].append(sample.done_s - sample.due_s)
    told = [sample.gmacs for sample in good if sample.gmacs is not None]
    answered = sum(map(len, by_exit.values()))
    per_request = max(1, len(recorded.samples))
    return LoadResult(
        seconds=recorded.seconds,
        requests=len(good),
        throughput_per_s=len(good) / recorded.seconds if recorded.seconds > 0 else 0.0,
        latency=latency_of([sample.done_s - sample.due_s for sample in good]) if good else None,
        by_exit={str(number): latency_of(by_exit[number]) for number in sorted(by_exit)},
        exit_shares={str(number): len(by_exit[number]) / answered for number in sorted(by_exit)},
        mean_gmacs=float(np.mean(told)) if told else None,
        errors=dict(sorted(Counter(_error(sample) for sample in recorded.samples if sample.status != 200).items())),
        generator_cpu_ms=1000 * usage.generator_cpu_s / per_request,
        server_cpu_ms=None if usage.server_cpu_s is None else 1000 * usage.server_cpu_s / per_request,
        server_rss_bytes=usage.server_rss_bytes,
        clients=clients,
        offered_per_s=offered_per_s,
        lateness_p99_ms=None if offered_per_s is None else _lateness(recorded.samples),
    )


def _error(sample: Sample) -> str:
    return sample.error or str(sample.status)


def _lateness(samples: Sequence[Sample]) -> float | None:
    return 1000 * percentile([sample.sent_s - sample.due_s for sample in samples], 0.99) if samples else None
