"""What the engine does with its time and its memory."""

from scripts.dashboards.dashboard import INSTANCE, JOB, Dashboard, Variable
from scripts.dashboards.panels import GREEN, ORANGE, RED, Query, Row, heat, lines, stat
from scripts.dashboards.queries import buckets, mean, rate

STAGE = Variable(
    "stage", "stage", 'label_values(dvt_queued_images{job=~"$job", instance=~"$instance"}, stage)', hidden=True
)

BUSY = f"{rate('dvt_stage_seconds_sum')} / sum(dvt_engine_lanes{{$at}})"

NOW = Row(
    "Now",
    [
        stat("Engines up", "Engines that work or warm up.", "sum(dvt_engine_up{$at})", steps={0: RED, 1: GREEN}),
        stat(
            "Busy",
            "Share of their time that the lanes compute.",
            BUSY,
            "percentunit",
            decimals=0,
            steps={0.8: ORANGE, 0.95: RED},
        ),
        stat(
            "Full",
            "Images inside, of those that may be; at 100 % the next is refused. Of several instances the fullest.",
            "max(dvt_in_flight_images{$at} / dvt_in_flight_limit_images{$at})",
            "percentunit",
            decimals=0,
            steps={0.5: ORANGE, 0.9: RED},
        ),
        stat("Waiting", "Images that wait for a stage.", "sum(dvt_queued_images{$at})"),
        stat(
            "Images a batch",
            "On average, over all stages.",
            mean("dvt_batch_images"),
            decimals=1,
        ),
        stat(
            "Failed batches",
            "A second. Each is split until the guilty image is alone.",
            rate("dvt_batch_failures_total"),
            steps={0.001: RED},
        ),
        stat("Resident", "Memory of the processes.", "sum(process_resident_memory_bytes{$at})", "bytes"),
        stat("Draining", "Instances that were told to end.", "sum(dvt_draining{$at})", steps={1: ORANGE}),
    ],
)

KEPT = Row(
    "Kept for those who come back",
    [
        lines(
            "Looked up",
            "The same image again, and answers to be refined: `stored` is known already, `resumed` goes on from state.",
            [
                Query(rate("dvt_reuse_total", "found", f'call="{call}"'), f"{call}: {{{{found}}}}")
                for call in ("classify", "refine")
            ],
            "ops",
            stacked=True,
            low=0,
            width=8,
        ),
        lines(
            "Memory",
            "Of states, which make room for newcomers, and of answers.",
            [Query("sum by (what) (dvt_kept_bytes{$at})", "{{what}}")],
            "bytes",
            stacked=True,
            low=0,
            width=8,
        ),
        lines(
            "Let go of",
            "`needed` for newcomers, `full`: no room for more, `old`: nobody came in time.",
            [
                Query(rate("dvt_kept_evictions_total", "why", f'what="{what}"'), f"{what}: {{{{why}}}}")
                for what in ("state", "answer")
            ],
            "ops",
            low=0,
            width=8,
        ),
    ],
)

ENGINE = Dashboard(
    "engine",
    "DVT: engine",
    "What the engine does with its time and its memory.",
    [
        NOW,
        Row(
            "Time at stage",
            [
                heat(
                    "Time of an image at stage $stage",
                    "Its wait for the stage and the computation of its batch.",
                    buckets("dvt_stage_image_seconds", "stage"),
                    "s",
                    width=24,
                    repeat="stage",
                )
            ],
        ),
        Row(
            "Stages",
            [
                lines(
                    "Computation of a batch",
                    "Mean, by stage.",
                    [
                        Query(
                            mean("dvt_stage_seconds", "stage"),
                            "stage {{stage}}",
                        )
                    ],
                    "s",
                    low=0,
                ),
                lines(
                    "Where the time goes",
                    "Lanes that compute each stage, on average.",
                    [Query(rate("dvt_stage_seconds_sum", "stage"), "stage {{stage}}")],
                    stacked=True,
                    low=0,
                ),
                lines(
                    "Size of a batch",
                    "Mean, by stage.",
                    [
                        Query(
                            mean("dvt_batch_images", "stage"),
                            "stage {{stage}}",
                        )
                    ],
                    low=0,
                ),
                lines(
                    "Computed a second",
                    "Images, by stage.",
                    [Query(rate("dvt_batch_images_sum", "stage"), "stage {{stage}}")],
                    "ops",
                    low=0,
                ),
            ],
        ),
        Row(
            "Queues",
            [
                lines(
                    "Waiting for a stage",
                    "Images, by stage.",
                    [Query("sum by (stage) (dvt_queued_images{$at})", "stage {{stage}}")],
                    stacked=True,
                    low=0,
                ),
                lines(
                    "Inside, and the limit",
                    "Images, by instance.",
                    [
                        Query("dvt_in_flight_images{$at}", "{{instance}}"),
                        Query("dvt_in_flight_limit_images{$at}", "{{instance}}: limit"),
                    ],
                    low=0,
                ),
                lines(
                    "Phases of an image",
                    "Mean time in each.",
                    [
                        Query(
                            mean("dvt_phase_seconds", "phase"),
                            "{{phase}}",
                        )
                    ],
                    "s",
                    low=0,
                ),
                lines(
                    "Dropped and failed",
                    "Images that nobody waited for any more before a stage, and batches that failed; a second.",
                    [
                        Query(rate("dvt_dropped_total"), "dropped"),
                        Query(rate("dvt_batch_failures_total"), "failed batches"),
                    ],
                    "ops",
                    low=0,
                ),
            ],
        ),
        KEPT,
        Row(
            "Memory and processor",
            [
                lines(
                    "State between stages",
                    "In use, reserved for whoever is inside, and the limit.",
                    [
                        Query("sum(dvt_state_used_bytes{$at})", "in use"),
                        Query("sum(dvt_state_reserved_bytes{$at})", "reserved"),
                        Query("sum(dvt_state_limit_bytes{$at})", "limit"),
                    ],
                    "bytes",
                    low=0,
                ),
                lines(
                    "Slots in use",
                    "Share, by instance.",
                    [Query("dvt_state_slots_used{$at} / dvt_state_slots{$at}", "{{instance}}")],
                    "percentunit",
                    low=0,
                    high=1,
                ),
                lines(
                    "Memory of the process",
                    "Resident, by instance.",
                    [Query("process_resident_memory_bytes{$at}", "{{instance}}")],
                    "bytes",
                    low=0,
                ),
                lines(
                    "Processors",
                    "That the process keeps busy, by instance.",
                    [Query("rate(process_cpu_seconds_total{$at}[$__rate_interval])", "{{instance}}")],
                    low=0,
                ),
            ],
        ),
    ],
    (JOB, INSTANCE, STAGE),
)
