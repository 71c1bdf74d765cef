"""What the service counts, in a registry of its own; `GET /metrics` shows it. What there is: `service/series.py`."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector, Summary
from prometheus_client.exposition import generate_latest

from service import series
from service.errors import kinds
from service.types import ExitReason

Reading = Callable[[], float | None]
"""What a gauge shows now; None where that is not known."""


@dataclass(frozen=True)
class Tally:
    """How often something was measured since the start, and the seconds that it took altogether."""

    count: int = 0
    seconds: float = 0.0

    def plus(self, seconds: float) -> "Tally":
        return Tally(self.count + 1, self.seconds + seconds)


class Metrics:
    """All metrics of one service. `exits` is K; exits and stages are labelled from 1. Thread-safe.

    `last_inference_s`: when a request to classify images was last answered, in seconds of the epoch; 0 where none was.
    """

    def __init__(self, model: str, weights_sha256: str, exits: int) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        # What every request counts is looked up once: the library makes a key and checks it whenever it is asked.
        self._requests = cache(series.REQUESTS.make(registry).labels)
        self._inference = series.INFERENCE.make(registry)
        self.last_inference_s = 0.0
        self.ask(series.LAST_INFERENCE, lambda: self.last_inference_s)
        self._refusals = series.REFUSALS.make(registry)
        self._exits = cache(series.EXITS.make(registry).labels)
        self._phase = series.PHASE.make(registry)
        self._batches: dict[int, Tally] = {}
        self._batches_lock = threading.Lock()
        self._failures = series.FAILURES.make(registry)
        self._dropped = series.DROPPED.make(registry)
        self._spent = series.SPENT.make(registry)
        self._saved = series.SAVED.make(registry)
        self._reused = series.REUSED.make(registry)
        self._reuse = cache(series.REUSE.make(registry).labels)
        self._evictions = series.EVICTED.make(registry)
        self._audits = series.AUDITS.make(registry)
        self._broken = series.BROKEN.make(registry)
        self._wealth = series.WEALTH.make(registry)
        self._feedback = series.FEEDBACK.make(registry)
        self._auto = series.AUTO.make(registry)
        series.MODEL.make(registry).labels(model, weights_sha256).set(1)
        # Series exist from the start: a rate over a series that just appeared misses its first events. And what every
        # image or batch counts is looked up once.
        numbers = [str(number) for number in range(1, exits + 1)]
        batch, stage = series.BATCH.make(registry), series.STAGE.make(registry)
        self._by_stage = [(batch.labels(number), stage.labels(number)) for number in numbers]
        self._image_by_stage = list(map(series.STAGE_IMAGE.make(registry).labels, numbers))
        latency, confidence = series.LATENCY.make(registry), series.CONFIDENCE.make(registry)
        self._by_exit = [(latency.labels(number), confidence.labels(number)) for number in numbers]
        self._by_phase = {phase: self._phase.labels(phase) for phase in series.PHASES}
        for number in numbers:
            self._exits(number, "final" if number == numbers[-1] else "confident")
            self._failures.labels(number)
            for correct in ("true", "false"):
                self._feedback.labels(number, correct)
        for found in series.FOUND:
            self._audits.labels(found)
        for direction in series.DIRECTIONS:
            self._auto.labels(direction)
        self._by_outcome = {outcome: self._inference.labels(outcome) for outcome in series.OUTCOMES}
        for call in series.CALLS:
            for reuse in series.REUSES:
                self._reuse(call, reuse)
        for what, why in series.EVICTIONS:
            self._evictions.labels(what, why)
        for kind in kinds():
            self._refusals.labels(kind.code)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def ask(self, gauge: series.GaugeOf, read: Reading) -> None:
        """Have `read` called for that gauge whenever the metrics are read; None becomes NaN."""
        gauge.make(self.registry).set_function(_or_nan(read))

    def ask_each(self, gauge: series.GaugeOf, reads: Mapping[str, Reading]) -> None:
        """The same for a gauge of one label, by its values."""
        made = gauge.make(self.registry)
        for value, read in reads.items():
            made.labels(value).set_function(_or_nan(read))

    def request(self, method: str, route: str, status: int) -> None:
        self._requests(method, route, str(status)).inc()

    def inference(self, seconds: float, status: int) -> None:
        """A request to classify images was answered."""
        outcome: series.Outcome = "success" if status == 200 else "failed" if status >= 500 else "rejected"
        self._by_outcome[outcome].observe(seconds)
        self.last_inference_s = time.time()

    def refusal(self, code: str) -> None:
        self._refusals.labels(code).inc()

    def answered(self, exit_number: int, reason: ExitReason, latency_s: float, confidence: float) -> None:
        self._exits(str(exit_number), reason).inc()
        latencies, confidences = self._by_exit[exit_number - 1]
        latencies.observe(latency_s)
        confidences.observe(confidence)

    def gmacs(self, spent: float, reused: float, saved: float) -> None:
        """Of one answer: computed for it, computed before, and never."""
        self._spent.inc(spent)
        self._reused.inc(reused)
        self._saved.inc(max(0.0, saved))

    def reuse(self, call: series.Call, reuse: series.Reuse) -> None:
        self._reuse(call, reuse).inc()

    def kept_evicted(self, what: series.Kept, why: series.Why) -> None:
        self._evictions.labels(what, why).inc()

    def phase(self, name: str, seconds: float) -> None:
        self._by_phase[name].observe(seconds)

    def batch(self, stage: int, images: int, seconds: float) -> None:
        sizes, times = self._by_stage[stage - 1]
        sizes.observe(images)
        times.observe(seconds)
        with self._batches_lock:
            self._batches[images] = self._batches.get(images, Tally()).plus(seconds)

    def image_at(self, stage: int, seconds: float) -> None:
        """An image was computed there, so long after it had come to it."""
        self._image_by_stage[stage - 1].observe(seconds)

    def batch_failed(self, stage: int) -> None:
        self._failures.labels(str(stage)).inc()

    def dropped(self) -> None:
        self._dropped.inc()

    def audited(self, found: str) -> None:
        self._audits.labels(found).inc()

    def certificate(self, risk: str, epsilon: float, wealth: float, *, is_broken: bool) -> None:
        """What the audit says of it."""
        self._broken.labels(risk, f"{epsilon:g}").set(is_broken)
        self._wealth.labels(risk, f"{epsilon:g}").set(wealth)

    def feedback(self, exit_number: int, *, is_correct: bool) -> None:
        self._feedback.labels(str(exit_number), str(is_correct).lower()).inc()

    def auto_switched(self, direction: Literal["down", "up"]) -> None:
        self._auto.labels(direction).inc()

    # What was counted, to be told in another form than Prometheus's.

    @property
    def batches(self) -> Mapping[int, Tally]:
        """Batches by their number of images, all stages together."""
        with self._batches_lock:
            return dict(self._batches)

    def requests(self, *, is_success: bool) -> Tally:
        """Requests to classify images."""
        outcomes = [outcome for outcome in series.OUTCOMES if (outcome == "success") == is_success]
        tallies = [_tally(self._inference, {"outcome": outcome}) for outcome in outcomes]
        return Tally(sum(tally.count for tally in tallies), sum(tally.seconds for tally in tallies))

    def images(self, phase: str) -> Tally:
        """Answered images, and their time in one of `PHASES`."""
        return _tally(self._phase, {"phase": phase})


def _or_nan(read: Reading) -> Callable[[], float]:
    def value() -> float:
        found = read()
        return math.nan if found is None else found

    return value


def _tally(metric: Histogram | Summary, labels: dict[str, str]) -> Tally:
    samples = (sample for family in metric.collect() for sample in family.samples if sample.labels == labels)
    values = {sample.name.rpartition("_")[2]: sample.value for sample in samples}
    return Tally(int(values["count"]), values["sum"])
