"""Every metric of the service, in one table: its name, what it means, its labels. docs/metrics.md is made from it.

Base units, as Prometheus has it. Every label takes its values from a set that is known when the service starts
(`LABELS` says which), so that no request can make a new series that another could not.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

# An image takes from a few milliseconds (first exit, idle) to seconds (last exit, full queue).
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
# Finer towards 1, where the thresholds lie.
_CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)

Outcome = Literal["success", "rejected", "failed"]
Call = Literal["classify", "refine"]
Reuse = Literal["stored", "resumed", "missed"]
"""Whether what was asked for was there already, could be gone on with, or neither."""
Kept = Literal["state", "answer"]
Why = Literal["needed", "full", "old"]

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
OTHER_METHOD = "other"
UNMATCHED = "unmatched"
UNNAMED = "none"
PHASES = ("read", "decode", "queue", "compute", "total")
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
FOUND = ("agreed", "disagreed", "left_out", "skipped")
DIRECTIONS = ("down", "up")
CALLS: tuple[Call, ...] = get_args(Call)
REUSES: tuple[Reuse, ...] = get_args(Reuse)
EVICTIONS: tuple[tuple[Kept, Why], ...] = (("state", "needed"), ("state", "full"), ("state", "old"), ("answer", "full"))

LABELS = {
    "method": f"{', '.join(f'`{method}`' for method in METHODS)}, or `{OTHER_METHOD}`",
    "route": f"a path as the interface has it, `/docs` say, or `{UNMATCHED}`",
    "status": "the HTTP statuses that the service answers with; `0` where nobody was there to be answered",
    "outcome": "`success` for status 200, `failed` from 500 on, else `rejected`: the fault of whoever asked",
    "code": "the codes of [Errors](errors.md)",
    "exit": "1 to the number of exits",
    "stage": "1 to the number of stages",
    "reason": "`confident`, `final`, `deadline`, `max_exit`, `guard`",
    "phase": "`read` (of a request's body); of an image `decode`, `queue` (waiting for stages), `compute`, `total`",
    "correct": "`true`, `false`",
    "profile": f"the named profiles of the bundle, or `{UNNAMED}`",
    "point": "0 to the last point of the bundle's frontier",
    "direction": "`down`, `up`",
    "found": "of an audit `agreed` or `disagreed` with the last exit, `left_out`: never got there, `skipped`: no place "
    "for it; of what is looked up `stored`: known already, `resumed`: its state to go on from, `missed`: neither",
    "call": "`classify`, `refine`",
    "what": "`state`, `answer`",
    "why": "`needed` for newcomers, `full`: no room for more, `old`",
    "risk": "the risks that the bundle's certificates name",
    "epsilon": "the bounds that they name",
    "model": "the bundle's name",
    "sha256": "the hash of its weights",
}


@dataclass(frozen=True)
class Declared:
    """`name` as Prometheus shows it. `when`: what a service must be for it to have this; empty for all."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    when: str = ""

    @property
    def kind(self) -> str:
        return type(self).__name__.removesuffix("Of").lower()


class CounterOf(Declared):
    def make(self, registry: CollectorRegistry) -> Counter:
        # The library puts the ending there itself.
        return Counter(self.name.removesuffix("_total"), self.meaning, self.labels, registry=registry)


class GaugeOf(Declared):
    def make(self, registry: CollectorRegistry) -> Gauge:
        return Gauge(self.name, self.meaning, self.labels, registry=registry)


class SummaryOf(Declared):
    def make(self, registry: CollectorRegistry) -> Summary:
        return Summary(self.name, self.meaning, self.labels, registry=registry)


@dataclass(frozen=True)
class HistogramOf(Declared):
    """`buckets`: their upper bounds."""

    buckets: tuple[float, ...] = _SECONDS

    def make(self, registry: CollectorRegistry) -> Histogram:
        return Histogram(self.name, self.meaning, self.labels, registry=registry, buckets=self.buckets)


REQUESTS = CounterOf("dvt_http_requests_total", "Requests answered.", ("method", "route", "status"))
INFERENCE = SummaryOf(
    "dvt_inference_request_seconds", "Requests to classify images, from arrival to answer.", ("outcome",)
)
LAST_INFERENCE = GaugeOf("dvt_last_inference_timestamp_seconds", "When the last of them was answered, else 0.")
REFUSALS = CounterOf("dvt_refusals_total", "Requests and images refused or failed.", ("code",))

EXITS = CounterOf("dvt_exits_total", "Images answered at an exit.", ("exit", "reason"))
LATENCY = HistogramOf("dvt_exit_latency_seconds", "From a request's arrival to an image's answer.", ("exit",))
CONFIDENCE = HistogramOf(
    "dvt_exit_confidence_ratio",
    "Confidence of the exit that an image was answered at.",
    ("exit",),
    buckets=_CONFIDENCE,
)
PHASE = HistogramOf("dvt_phase_seconds", "Time of an image in each phase.", ("phase",))
SPENT = CounterOf("dvt_gmacs_spent_total", "Multiply-accumulates computed for answers, in 1e9.")
SAVED = CounterOf("dvt_gmacs_saved_total", "The same, not computed thanks to early exits.")
REUSED = CounterOf("dvt_gmacs_reused_total", "The same, not computed since they had been before, for the same image.")
FEEDBACK = CounterOf(
    "dvt_feedback_total", "Labels that came for answers, by the exit of the answer.", ("exit", "correct")
)

STAGE = HistogramOf("dvt_stage_seconds", "Computation of one batch.", ("stage",))
STAGE_IMAGE = HistogramOf(
    "dvt_stage_image_seconds",
    "An image at a stage: its wait for it, and the computation of its batch; audits are not counted.",
    ("stage",),
)
BATCH = HistogramOf("dvt_batch_images", "Images of one batch.", ("stage",), buckets=_IMAGES)
FAILURES = CounterOf("dvt_batch_failures_total", "Batches that failed and were split.", ("stage",))
DROPPED = CounterOf("dvt_dropped_total", "Images dropped before a stage: answered or left.")
IN_FLIGHT = GaugeOf("dvt_in_flight_images", "Images inside the service.")
IN_FLIGHT_LIMIT = GaugeOf("dvt_in_flight_limit_images", "Most images inside; more are refused.")
QUEUED = GaugeOf("dvt_queued_images", "Images waiting for a stage.", ("stage",))
LANES = GaugeOf("dvt_engine_lanes", "Batches that are computed at once.")
ENGINE_UP = GaugeOf("dvt_engine_up", "1 while the engine works or warms up, 0 once it is lost.")
READY = GaugeOf("dvt_ready", "1 while the service takes work.")
DRAINING = GaugeOf("dvt_draining", "1 once the service was told to end.")

REUSE = CounterOf("dvt_reuse_total", "Images looked up in what is kept, and how that was found.", ("call", "found"))
KEPT = GaugeOf("dvt_kept_bytes", "Memory of states and answers that are kept.", ("what",))
EVICTED = CounterOf("dvt_kept_evictions_total", "States and answers kept no longer, and why.", ("what", "why"))

STATE_RESERVED = GaugeOf("dvt_state_reserved_bytes", "Memory reserved for state between stages.")
STATE_LIMIT = GaugeOf("dvt_state_limit_bytes", "Most memory for it.")
SLOTS = GaugeOf("dvt_state_slots", "Slots for state, one an image.")
SLOTS_USED = GaugeOf("dvt_state_slots_used", "Slots that hold an image.")
STATE_USED = GaugeOf("dvt_state_used_bytes", "The same, in bytes at their peak.")

REVISION = GaugeOf("dvt_budget_revision", "Revision of the budget in force.")
OPERATING_POINT = GaugeOf("dvt_budget_operating_point", "Changes of the point by load or an audit, since the start.")
POINT = GaugeOf("dvt_budget_point", "Number of the point in force on the frontier; NaN for one that is not on it.")
PROFILE = GaugeOf("dvt_budget_profile", "1 for the profile in force, 0 for the others.", ("profile",))
GMACS = GaugeOf(
    "dvt_budget_gmacs", "Multiply-accumulates of a mean image at the point in force, in 1e9; NaN where never measured."
)
TOP1 = GaugeOf("dvt_budget_top1_ratio", "Top-1 accuracy measured at the point in force; NaN where never measured.")
SHARE = GaugeOf(
    "dvt_budget_exit_share_ratio",
    "Share of images measured to leave at an exit, at the point in force; NaN where never measured.",
    ("exit",),
)
FALLBACK = GaugeOf("dvt_budget_fallback", "1 while a safer profile stands in for a budget whose certificate broke.")
AUTO = CounterOf("dvt_auto_switches_total", "Changes of the operating point by load.", ("direction",))
CONNECTED = GaugeOf(
    "dvt_replicas_connected",
    "1 while the budget of all replicas is followed.",
    when="Only of a replica that shares its budget (`DVT_REDIS_URL`).",
)

FRONTIER_GMACS = GaugeOf(
    "dvt_frontier_gmacs", "Multiply-accumulates of a mean image at a point of the frontier, in 1e9.", ("point",)
)
FRONTIER_TOP1 = GaugeOf("dvt_frontier_top1_ratio", "Top-1 accuracy measured there.", ("point",))
EXIT_GMACS = GaugeOf(
    "dvt_exit_gmacs",
    "Multiply-accumulates of an image that leaves at an exit, in 1e9; NaN where never measured.",
    ("exit",),
)
STATIC_GMACS = GaugeOf(
    "dvt_static_gmacs", "Multiply-accumulates of the last stage alone, without exits, in 1e9; NaN where never measured."
)
MODEL = GaugeOf("dvt_model_info", "1, for the model that is served.", ("model", "sha256"))

AUDITS = CounterOf("dvt_audits_total", "Images drawn to go on to the last exit, by what was found.", ("found",))
AUDITS_PENDING = GaugeOf("dvt_audits_pending_images", "Drawn, not at the last exit yet.")
AUDIT_SHARE = GaugeOf("dvt_audit_share_ratio", "Share of images that is drawn.")
BROKEN = GaugeOf("dvt_certificate_broken", "1 once the audit has found more harm.", ("risk", "epsilon"))
WEALTH = GaugeOf(
    "dvt_certificate_wealth_ratio",
    "Of the bets against a certificate; at 1/alpha it is broken.",
    ("risk", "epsilon"),
)

WEALTH_LIMIT = GaugeOf("dvt_certificate_wealth_limit_ratio", "1/alpha.")

SECTIONS: dict[str, tuple[Declared, ...]] = {
    "Requests": (REQUESTS, INFERENCE, LAST_INFERENCE, REFUSALS),
    "Answers": (EXITS, LATENCY, CONFIDENCE, PHASE, SPENT, SAVED, REUSED, FEEDBACK),
    "Engine": (
        *(STAGE, STAGE_IMAGE, BATCH, FAILURES, DROPPED, IN_FLIGHT, IN_FLIGHT_LIMIT, QUEUED),
        *(LANES, ENGINE_UP, READY, DRAINING),
    ),
    "State between stages": (STATE_RESERVED, STATE_LIMIT, SLOTS, SLOTS_USED, STATE_USED),
    "What is kept": (REUSE, KEPT, EVICTED),
    "Budget": (REVISION, OPERATING_POINT, POINT, PROFILE, GMACS, TOP1, SHARE, FALLBACK, AUTO, CONNECTED),
    "Model": (FRONTIER_GMACS, FRONTIER_TOP1, EXIT_GMACS, STATIC_GMACS, MODEL),
    "Audit": (AUDITS, AUDITS_PENDING, AUDIT_SHARE, BROKEN, WEALTH, WEALTH_LIMIT),
}


def declared() -> Iterator[Declared]:
    """All of them, in the order of docs/metrics.md."""
    for section in SECTIONS.values():
        yield from section


def render_markdown() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Made from `service/series.py` by `python -m service.series > docs/metrics.md`.",
        "",
        "`GET /metrics` shows them in Prometheus's text format, with `process_*` and `python_info` beside them.",
        "A histogram has `_bucket`, `_sum` and `_count`, a summary `_sum` and `_count`. GMACs are 1e9",
        "multiply-accumulates. Of several devices counters and histograms count all, gauges are their sum. What to do",
        "when one of them looks bad: [operations](operations.md).",
    ]
    for title, section in SECTIONS.items():
        lines += ["", f"## {title}", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        for each in section:
            labels = ", ".join(f"`{label}`" for label in each.labels)
            meaning = f"{each.meaning} {each.when}".strip()
            lines.append(f"| `{each.name}` | {each.kind} | {labels} | {meaning} |")
    lines += [
        "",
        "## Labels",
        "Every value comes from a set that is known when the service starts: no request makes a series of its own.",
        "",
        "| label | values |",
        "|---|---|",
        *(f"| `{label}` | {values} |" for label, values in LABELS.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_markdown())
