"""Whether the service is well, and what it does for whoever asks."""

from scripts.dashboards.dashboard import EXIT, INSTANCE, JOB, Dashboard
from scripts.dashboards.panels import GREEN, ORANGE, RED, Query, Row, frontier, heat, lines, stat
from scripts.dashboards.queries import buckets, quantile, rate, share_of_all

INFERENCE, FAILURE = "dvt_inference_request_seconds_count", 'outcome="failed"'

READY = stat(
    "Ready",
    "Instances that take work.",
    "sum(dvt_ready{$at})",
    steps={0: RED, 1: GREEN},
)
IMAGES = stat("Images a second", "Answered, at whichever exit.", rate("dvt_exits_total"), decimals=1)
P99 = stat(
    "p99 latency",
    "99 % of images are answered within this, counted from when their request came.",
    quantile(0.99, "dvt_exit_latency_seconds"),
    "s",
    steps={0.25: ORANGE, 1: RED},
)
FAILED = stat(
    "Failed",
    "Share of requests to classify that were answered with a status of 500 or more: refused for overload, too.",
    f"{rate(INFERENCE, where=FAILURE)} / {rate(INFERENCE)}",
    "percentunit",
    decimals=2,
    steps={0.005: ORANGE, 0.05: RED},
)
REFUSED = stat(
    "Refused for overload",
    "Requests and images a second that found no room (503 with Retry-After).",
    rate("dvt_refusals_total", where='code="overloaded"'),
    decimals=1,
    steps={0.1: ORANGE, 10: RED},
)
FALLBACK = stat(
    "Fallback",
    "Whether a safer profile stands in for a budget whose certificate broke.",
    "max(dvt_budget_fallback{$at})",
    steps={1: ORANGE},
    names={"0": "no", "1": "yes"},
)
SAVED = stat(
    "Computation saved",
    "Share of the multiply-accumulates of all stages that early exits never computed.",
    f"{rate('dvt_gmacs_saved_total')} / ({rate('dvt_gmacs_saved_total')} + {rate('dvt_gmacs_spent_total')})",
    "percentunit",
    decimals=1,
)
PROFILE = stat(
    "Profile in force",
    "By name; `none` where what is in force is no named profile.",
    "max by (profile) (dvt_budget_profile{$at}) == 1",
    legend="{{profile}}",
)
TOP1 = stat(
    "Expected top-1",
    "Accuracy measured on the report images at the point in force; of several instances the lowest.",
    "min(dvt_budget_top1_ratio{$at})",
    "percentunit",
    decimals=2,
)
LATENCY_BY_EXIT = heat(
    "Latency of images that leave at exit $exit",
    "How many images took how long, counted from when their request came.",
    buckets("dvt_exit_latency_seconds", "exit"),
    "s",
    width=24,
    repeat="exit",
)
EXIT_SHARES = lines(
    "Shares of the exits",
    "At which exit images leave.",
    [
        Query(
            share_of_all("dvt_exits_total", "exit"),
            "exit {{exit}}",
        )
    ],
    "percentunit",
    stacked=True,
    low=0,
    high=1,
)

OVERVIEW = Dashboard(
    "overview",
    "DVT: overview",
    "Is the service well, and what does it do for whoever asks?",
    [
        Row("Now", [READY, IMAGES, P99, FAILED, REFUSED, SAVED, PROFILE, TOP1]),
        Row("Latency by exit", [LATENCY_BY_EXIT]),
        Row("What images get, and what it costs", [EXIT_SHARES, frontier()]),
        Row(
            "Requests",
            [
                lines(
                    "Requests by status",
                    "All routes.",
                    [Query(rate("dvt_http_requests_total", "status"), "{{status}}")],
                    "reqps",
                    stacked=True,
                    low=0,
                ),
                lines(
                    "Refused and failed, by code",
                    "docs/errors.md tells what each code means.",
                    [Query(f"{rate('dvt_refusals_total', 'code')} > 0", "{{code}}")],
                    "reqps",
                    low=0,
                ),
                lines(
                    "Latency",
                    "Quantiles of the time from a request's arrival to an image's answer.",
                    [
                        Query(quantile(share, "dvt_exit_latency_seconds"), f"p{share * 100:g}")
                        for share in (0.5, 0.95, 0.99)
                    ],
                    "s",
                    low=0,
                ),
                lines(
                    "Error budget burnt",
                    "How many times faster than the objectives allow (docs/operations.md): at 1 it lasts exactly as "
                    "long as it should. Needs the recording rules.",
                    [
                        Query('max by (job) (job:dvt_availability:burn_rate1h{job=~"$job"})', "{{job}}: answered, 1 h"),
                        Query('max by (job) (job:dvt_latency:burn_rate1h{job=~"$job"})', "{{job}}: in time, 1 h"),
                    ],
                    low=0,
                ),
            ],
        ),
    ],
    (JOB, INSTANCE, EXIT),
)
