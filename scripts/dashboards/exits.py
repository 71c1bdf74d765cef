"""Where images leave, what that saves, and what the budget in force promises."""

from scripts.dashboards.dashboard import EXIT, INSTANCE, JOB, Dashboard
from scripts.dashboards.overview import EXIT_SHARES, FALLBACK, LATENCY_BY_EXIT, PROFILE, SAVED, TOP1
from scripts.dashboards.panels import Query, Row, frontier, heat, lines, stat
from scripts.dashboards.queries import buckets, rate, share_of_all

NOW = Row(
    "Now",
    [
        PROFILE,
        stat("Revision", "Counts what operators ask for.", "max(dvt_budget_revision{$at})"),
        stat(
            "Point in force",
            "Its number on the frontier; of several instances the lowest. No number: it is not on it.",
            "min(dvt_budget_point{$at})",
        ),
        TOP1,
        stat(
            "Expected GMACs",
            "What a mean image of the report images costs at the point in force.",
            "max(dvt_budget_gmacs{$at})",
            decimals=3,
        ),
        stat(
            "Actual GMACs",
            "What a mean image cost lately.",
            f"{rate('dvt_gmacs_spent_total')} / {rate('dvt_exits_total')}",
            decimals=3,
        ),
        SAVED,
        FALLBACK,
    ],
)

EXITS = Dashboard(
    "exits",
    "DVT: exits and budget",
    "Where images leave, what that saves, and what the budget in force promises.",
    [
        NOW,
        Row("Latency by exit", [LATENCY_BY_EXIT]),
        Row(
            "Exits",
            [
                EXIT_SHARES,
                frontier(),
                lines(
                    "Shares, and those expected",
                    "Expected: as measured on the report images at the point in force. Where they part for long, "
                    "images are not like those.",
                    [
                        Query(
                            share_of_all("dvt_exits_total", "exit"),
                            "exit {{exit}}",
                        ),
                        Query("avg by (exit) (dvt_budget_exit_share_ratio{$at})", "exit {{exit}} expected"),
                    ],
                    "percentunit",
                    low=0,
                    high=1,
                ),
                lines(
                    "Why images leave",
                    "`confident` and `final` are the budget's own; `deadline`, `max_exit`, `guard` cut images short.",
                    [Query(rate("dvt_exits_total", "reason"), "{{reason}}")],
                    "ops",
                    stacked=True,
                    low=0,
                ),
            ],
        ),
        Row(
            "Confidence by exit",
            [
                heat(
                    "Confidence of images that leave at exit $exit",
                    "Mass that wanders towards the threshold is the first sign of harder images.",
                    buckets("dvt_exit_confidence_ratio", "exit"),
                    "percentunit",
                    width=24,
                    repeat="exit",
                )
            ],
        ),
        Row(
            "Budget",
            [
                lines(
                    "GMACs a second",
                    "Computed for answers, computed before for the same image, never computed thanks to early exits.",
                    [
                        Query(rate("dvt_gmacs_spent_total"), "spent"),
                        Query(rate("dvt_gmacs_reused_total"), "computed before"),
                        Query(rate("dvt_gmacs_saved_total"), "saved"),
                    ],
                    stacked=True,
                    low=0,
                ),
                lines(
                    "Expected cost and accuracy",
                    "Of the point in force, by instance.",
                    [
                        Query("dvt_budget_gmacs{$at}", "{{instance}}: GMACs an image"),
                        Query("dvt_budget_top1_ratio{$at}", "{{instance}}: top-1"),
                    ],
                ),
                lines(
                    "Changes",
                    "By operators (revision), and by load or an audit (operating point), since the start.",
                    [
                        Query("max by (instance) (dvt_budget_revision{$at})", "{{instance}}: revision"),
                        Query("max by (instance) (dvt_budget_operating_point{$at})", "{{instance}}: operating point"),
                    ],
                ),
                lines(
                    "Switches by load",
                    "Of a budget {auto}, an hour.",
                    [
                        Query(
                            f"3600 * {rate('dvt_auto_switches_total', 'direction')}",
                            "{{direction}}",
                        )
                    ],
                    low=0,
                ),
            ],
        ),
    ],
    (JOB, INSTANCE, EXIT),
)
