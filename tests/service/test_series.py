"""The table of metrics: complete, described, and the page made from it."""

import re
from pathlib import Path

from service import series
from service.metrics import Metrics
from tests.service.cascades import make_service, small_profiles

ROOT = Path(__file__).parent.parent.parent
OF_THE_LIBRARY = ("process_", "python_")


def shown_by(metrics: Metrics) -> dict[str, str]:
    """Kind of each family that a service shows, by its name."""
    lines = re.findall(r"^# TYPE (\w+) (\w+)$", metrics.render().decode(), re.MULTILINE)
    return {name: kind for name, kind in lines if not name.startswith(OF_THE_LIBRARY)}


def test_the_page_of_metrics_is_the_one_that_the_code_makes() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == series.render_markdown(), "run: python -m service.series > docs/metrics.md"


def test_a_service_shows_what_is_declared_and_nothing_else(tmp_path: Path) -> None:
    shown = shown_by(make_service(tmp_path, profiles=small_profiles()).metrics)
    assert shown == {each.name: each.kind for each in series.declared() if not each.when}


def test_what_a_replica_shows_more_is_declared_too(tmp_path: Path) -> None:
    service = make_service(tmp_path, profiles=small_profiles(), redis_url="redis://127.0.0.1:1/0")
    assert shown_by(service.metrics) == {each.name: each.kind for each in series.declared()}
    assert b"dvt_replicas_connected 0.0" in service.metrics.render()


def test_a_bundle_without_profiles_shows_what_is_not_known_as_such(tmp_path: Path) -> None:
    lines = make_service(tmp_path).metrics.render().decode().splitlines()
    assert {"dvt_budget_gmacs NaN", "dvt_budget_point NaN", 'dvt_exit_gmacs{exit="1"} NaN'} <= set(lines)
    assert 'dvt_budget_profile{profile="none"} 1.0' in lines


def test_every_label_has_its_values_described_and_no_other_is() -> None:
    used = {label for each in series.declared() for label in each.labels}
    assert used == set(series.LABELS)


def test_names_tell_kind_and_unit() -> None:
    for each in series.declared():
        assert re.fullmatch(r"dvt_[a-z0-9_]+", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert not re.search(r"_(ms|milliseconds|kb|mb|mib|percent)\b", each.name)
        assert each.meaning.endswith((".", "`.")), each.name
