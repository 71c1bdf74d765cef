"""What the service counts, in a registry of its own; `GET /metrics` shows it. Base units, bounded labels."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from service.errors import kinds
from service.types import ExitReason

# An image takes from a few milliseconds (first exit, idle) to seconds (last exit, full queue).
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)

Found = Literal["stored", "resumed", "missed"]
"""Whether what was asked for was there already, could be gone on with, or neither."""

PHASES = ("read", "decode", "queue", "compute", "total")


class Metrics:
    """All metrics of one service. `exits` is K; exits and stages are labelled from 1."""

    def __init__(self, model: str, weights_sha256: str, exits: int) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        registry = self.registry
        self._requests = Counter(
            "dvt_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._refusals = Counter("dvt_refusals", "Requests and images refused or failed.", ("code",), registry=registry)
        self._exits = Counter("dvt_exits", "Images answered at an exit.", ("exit", "reason"), registry=registry)
        self._latency = Histogram(
            "dvt_exit_latency_seconds",
            "From a request's arrival to an image's answer.",
            ("exit",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._phase = Histogram(
            "dvt_phase_seconds", "Time of an image in each phase.", ("phase",), registry=registry, buckets=_SECONDS
        )
        self._stage = Histogram(
            "dvt_stage_seconds", "Computation of one batch.", ("stage",), registry=registry, buckets=_SECONDS
        )
        self._batch = Histogram(
            "dvt_batch_images", "Images of one batch.", ("stage",), registry=registry, buckets=_BATCH
        )
        self._failures = Counter(
            "dvt_batch_failures", "Batches that failed and were split.", ("stage",), registry=registry
        )
        self._dropped = Counter("dvt_dropped", "Images dropped before a stage: answered or left.", registry=registry)
        self._spent = Counter(
            "dvt_gmacs_spent", "Multiply-accumulates computed for answers, in 1e9.", registry=registry
        )
        self._saved = Counter("dvt_gmacs_saved", "The same, not computed thanks to early exits.", registry=registry)
        self._reused = Counter(
            "dvt_gmacs_reused",
            "The same, not computed since they had been before, for the same image.",
            registry=registry,
        )
        self._reuse = Counter(
            "dvt_reuse",
            "Images looked up in what is kept, and how that was found.",
            ("call", "found"),
            registry=registry,
        )
        self._evictions = Counter(
            "dvt_kept_evictions", "States and answers kept no longer, and why.", ("what", "why"), registry=registry
        )
        self._kept = Gauge(
            "dvt_kept_bytes", "Memory of states and answers that are kept.", ("what",), registry=registry
        )
        self._in_flight = Gauge("dvt_in_flight_images", "Images inside the service.", registry=registry)
        self._queued = Gauge("dvt_queued_images", "Images waiting for a stage.", ("stage",), registry=registry)
        self._state = Gauge("dvt_state_reserved_bytes", "Memory reserved for state between stages.", registry=registry)
        self._slots = Gauge("dvt_state_slots", "Slots for state, one an image.", registry=registry)
        self._slots_used = Gauge("dvt_state_slots_used", "Slots that hold an image.", registry=registry)
        self._slots_bytes = Gauge("dvt_state_used_bytes", "The same, in bytes at their peak.", registry=registry)
        self._revision = Gauge("dvt_budget_revision", "Revision of the budget in force.", registry=registry)
        self._audits = Counter(
            "dvt_audits", "Images drawn to go on to the last exit, by what was found.", ("found",), registry=registry
        )
        self._audits_pending = Gauge("dvt_audits_pending_images", "Drawn, not at the last exit yet.", registry=registry)
        self._broken = Gauge(
            "dvt_certificate_broken", "1 once the audit has found more harm.", ("risk", "epsilon"), registry=registry
        )
        self._wealth = Gauge(
            "dvt_certificate_wealth_ratio",
            "Of the bets against a certificate; at 1/alpha it is broken.",
            ("risk", "epsilon"),
            registry=registry,
        )
        self._feedback = Counter(
            "dvt_feedback",
            "Labels that came for answers, by the exit of the answer.",
            ("exit", "correct"),
            registry=registry,
        )
        self._point = Gauge(
            "dvt_budget_gmacs",
            "Multiply-accumulates of a mean image at the point in force, in 1e9; NaN where never measured.",
            registry=registry,
        )
        self._auto = Counter(
            "dvt_auto_switches", "Changes of the operating point by load.", ("direction",), registry=registry
        )
        self._ready = Gauge("dvt_ready", "1 while the service takes work.", registry=registry)
        self._replicas: Gauge | None = None
        info = Gauge("dvt_model_info", "1, for the model that is served.", ("model", "sha256"), registry=registry)
        info.labels(model, weights_sha256).set(1)
        # Series exist from the start: a rate over a series that just appeared misses its first events. And what every
        # image or batch counts is looked up once.
        numbers = [str(number) for number in range(1, exits + 1)]
        self._by_stage = [(self._batch.labels(number), self._stage.labels(number)) for number in numbers]
        self._queued_by_stage = [self._queued.labels(number) for number in numbers]
        self._latency_by_exit = [self._latency.labels(number) for number in numbers]
        self._by_phase = {phase: self._phase.labels(phase) for phase in PHASES}
        for number in numbers:
            self._exits.labels(number, "confident")
            self._failures.labels(number)
            for correct in ("true", "false"):
                self._feedback.labels(number, correct)
        for found in ("agreed", "disagreed", "left_out", "skipped"):
            self._audits.labels(found)
        for direction in ("down", "up"):
            self._auto.labels(direction)
        for call in ("classify", "refine"):
            for seen in get_args(Found):
                self._reuse.labels(call, seen)
        for what, why in (("state", "needed"), ("state", "full"), ("state", "old"), ("answer", "full")):
            self._evictions.labels(what, why)
        for kind in kinds():
            self._refusals.labels(kind.code)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def request(self, method: str, route: str, status: int) -> None:
        self._requests.labels(method, route, str(status)).inc()

    def refusal(self, code: str) -> None:
        self._refusals.labels(code).inc()

    def answered(self, exit_number: int, reason: ExitReason, latency_s: float) -> None:
        self._exits.labels(str(exit_number), reason).inc()
        self._latency_by_exit[exit_number - 1].observe(latency_s)

    def gmacs(self, spent: float, reused: float, saved: float) -> None:
        """Of one answer: computed for it, computed before, and never."""
        self._spent.inc(spent)
        self._reused.inc(reused)
        self._saved.inc(max(0.0, saved))

    def reuse(self, call: Literal["classify", "refine"], found: Found) -> None:
        self._reuse.labels(call, found).inc()

    def kept(self, state_bytes: Callable[[], int], answers_bytes: Callable[[], int]) -> None:
        """Both are asked whenever the metrics are read."""
        self._kept.labels("state").set_function(state_bytes)
        self._kept.labels("answer").set_function(answers_bytes)

    def kept_evicted(self, what: Literal["state", "answer"], why: Literal["needed", "full", "old"]) -> None:
        self._evictions.labels(what, why).inc()

    def phase(self, name: str, seconds: float) -> None:
        self._by_phase[name].observe(seconds)

    def batch(self, stage: int, images: int, seconds: float) -> None:
        sizes, times = self._by_stage[stage - 1]
        sizes.observe(images)
        times.observe(seconds)

    def batch_failed(self, stage: int) -> None:
        self._failures.labels(str(stage)).inc()

    def dropped(self) -> None:
        self._dropped.inc()

    def queued(self, images: Sequence[int]) -> None:
        """How many wait before each stage."""
        for gauge, waiting in zip(self._queued_by_stage, images, strict=True):
            gauge.set(waiting)

    def held(self, images: int, reserved_bytes: int) -> None:
        self._in_flight.set(images)
        self._state.set(reserved_bytes)

    def state(self, slots: int, slot_bytes: int, in_use: Callable[[], int]) -> None:
        """`in_use` is asked whenever the metrics are read."""
        self._slots.set(slots)
        self._slots_used.set_function(in_use)
        self._slots_bytes.set_function(lambda: in_use() * slot_bytes)

    def budget_revision(self, revision: int) -> None:
        self._revision.set(revision)

    def audited(self, found: str) -> None:
        self._audits.labels(found).inc()

    def audits_pending(self, pending: Callable[[], int]) -> None:
        """`pending` is asked whenever the metrics are read."""
        self._audits_pending.set_function(pending)

    def certificate(self, risk: str, epsilon: float, wealth: float, *, is_broken: bool) -> None:
        """What the audit says of it."""
        self._broken.labels(risk, f"{epsilon:g}").set(is_broken)
        self._wealth.labels(risk, f"{epsilon:g}").set(wealth)

    def feedback(self, exit_number: int, *, is_correct: bool) -> None:
        self._feedback.labels(str(exit_number), str(is_correct).lower()).inc()

    def point(self, mean_gmacs: Callable[[], float]) -> None:
        """`mean_gmacs` of the point in force is asked whenever the metrics are read."""
        self._point.set_function(mean_gmacs)

    def auto_switched(self, direction: Literal["down", "up"]) -> None:
        self._auto.labels(direction).inc()

    def replicas_connected(self, is_connected: bool) -> None:
        """Of a replica that shares its budget; one that does not has no such series."""
        if self._replicas is None:
            self._replicas = Gauge(
                "dvt_replicas_connected", "1 while the budget of all replicas is followed.", registry=self.registry
            )
        self._replicas.set(is_connected)

    def ready(self, is_ready: bool) -> None:
        self._ready.set(is_ready)
