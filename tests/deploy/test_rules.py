"""Prometheus's rules: sound, each alert seen to fire, each with something to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.promql import OF_OTHERS, declared_series, selectors

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
RULES = (FOLDER / "rules" / "dvt.yml").read_text()
ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)
RECORDED = set(re.findall(r"^ +- record: (\S+)$", RULES, re.MULTILINE))


def promtool(*arguments: str | Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    promtool("check", "rules", "--lint-fatal", FOLDER / "rules" / "dvt.yml")


def test_each_alert_fires_for_what_it_is_about_and_stays_quiet_short_of_that() -> None:
    promtool("test", "rules", FOLDER / "tests" / "alerts.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_and_where_to_read_what_to_do(alert: str) -> None:
    text = RULES.partition(f"- alert: {alert}\n")[2].partition("- alert:")[0]
    assert re.search(r"labels: \{severity: (page|ticket)\}", text)
    assert "summary: " in text
    assert "description: " in text
    link = re.search(r"runbook_url: (\S+)#(\S+)", text)
    assert link is not None
    headings = re.findall(r"^## (.+)$", (ROOT / link[1]).read_text(), re.MULTILINE)
    assert link[2] in {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_was_seen_to_fire(alert: str) -> None:
    tests = (FOLDER / "tests" / "alerts.yml").read_text()
    assert re.search(rf"alertname: {alert}\n +eval_time: \w+\n +exp_alerts:\n", tests)


def test_rules_name_metrics_that_there_are_by_labels_that_they_have() -> None:
    known = declared_series()
    for name, labels in selectors(re.sub(r"#.*|^ +- record: .*$", "", RULES, flags=re.MULTILINE)).items():
        if name in RECORDED or name in OF_OTHERS:
            continue
        assert name in known, name
        assert labels <= {*known[name], "job", "instance"}, name
