"""Whether the certificates hold for the images that come."""

from scripts.dashboards.dashboard import Dashboard
from scripts.dashboards.overview import FALLBACK
from scripts.dashboards.panels import ORANGE, RED, Query, Row, lines, stat, table
from scripts.dashboards.queries import grown, rate

CLAIM = 'label_join({value}, "claim", " of at most ", "risk", "epsilon")'
DISAGREED, LOOKED_AT = 'found="disagreed"', 'found=~"agreed|disagreed"'
CORRECT = 'correct="true"'


def by_claim(gauge: str) -> str:
    return CLAIM.format(value=f"max by (risk, epsilon) ({gauge}{{$at}})")


NOW = Row(
    "Now",
    [
        stat(
            "Certificates broken",
            "Of those that are for what computes here. A broken one is quoted no more.",
            "sum(max by (risk, epsilon) (dvt_certificate_broken{$at}))",
            steps={1: RED},
        ),
        stat(
            "Nearest to breaking",
            "The highest wealth of the bets against a certificate, the share of 1/alpha that breaks it.",
            "max(dvt_certificate_wealth_ratio{$at}) / max(dvt_certificate_wealth_limit_ratio{$at})",
            "percentunit",
            decimals=0,
            steps={0.25: ORANGE, 1: RED},
        ),
        stat(
            "Disagreed",
            "Share of drawn images that the last exit names otherwise than the exit that answered.",
            f"{grown('dvt_audits_total', where=DISAGREED)} / {grown('dvt_audits_total', where=LOOKED_AT)}",
            "percentunit",
            decimals=2,
        ),
        stat("Drawn", "Share of images that is audited.", "max(dvt_audit_share_ratio{$at})", "percentunit", decimals=1),
        stat(
            "Audited",
            "Images whose audit ended, in the range looked at.",
            grown("dvt_audits_total"),
            decimals=0,
        ),
        stat("On their way", "Drawn images that are not at the last exit yet.", "sum(dvt_audits_pending_images{$at})"),
        stat(
            "Right, by feedback",
            "Share of answers for which `POST /feedback` brought the same label.",
            f"{grown('dvt_feedback_total', where=CORRECT)} / {grown('dvt_feedback_total')}",
            "percentunit",
            decimals=1,
        ),
        FALLBACK,
    ],
)

AUDIT = Dashboard(
    "audit",
    "DVT: audit",
    "Do the certificates hold for the images that come? docs/guarantees.md tells how that is watched.",
    [
        NOW,
        Row(
            "Certificates",
            [
                lines(
                    "Evidence against each certificate",
                    "Wealth of bets that grow if it does not hold; at the limit (1/alpha) it is broken.",
                    [
                        Query("max by (risk, epsilon) (dvt_certificate_wealth_ratio{$at})", "{{risk}} ≤ {{epsilon}}"),
                        Query("max(dvt_certificate_wealth_limit_ratio{$at})", "limit"),
                    ],
                    low=0,
                ),
                table(
                    "As they stand",
                    "Broken: 1 once the audit has found more harm than is claimed.",
                    {"wealth": by_claim("dvt_certificate_wealth_ratio"), "broken": by_claim("dvt_certificate_broken")},
                    by="claim",
                ),
            ],
        ),
        Row(
            "Images drawn by lot",
            [
                lines(
                    "What audits find",
                    "A second. `left_out`: never got to the last exit; `skipped`: drawn while there was no place.",
                    [Query(rate("dvt_audits_total", "found"), "{{found}}")],
                    "ops",
                    stacked=True,
                    low=0,
                ),
                lines(
                    "On their way, over time",
                    "Drawn images that are not at the last exit yet, by instance.",
                    [Query("dvt_audits_pending_images{$at}", "{{instance}}")],
                    low=0,
                ),
            ],
        ),
        Row(
            "Labels that came back",
            [
                lines(
                    "Right answers, by exit",
                    "Share of answers for which `POST /feedback` brought the same label, over an hour.",
                    [
                        Query(
                            f"{grown('dvt_feedback_total', 'exit', CORRECT, '1h')} / "
                            f"{grown('dvt_feedback_total', 'exit', over='1h')}",
                            "exit {{exit}}",
                        )
                    ],
                    "percentunit",
                    low=0,
                    high=1,
                ),
                lines(
                    "Labels, by exit",
                    "That came, a second.",
                    [Query(rate("dvt_feedback_total", "exit"), "exit {{exit}}")],
                    "ops",
                    stacked=True,
                    low=0,
                ),
            ],
        ),
    ],
)
