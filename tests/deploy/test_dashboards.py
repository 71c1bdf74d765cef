"""Grafana's dashboards: made from their code, laid out without holes, asking for what there is."""

import itertools
import json
import re
from typing import Any

import pytest

from scripts.dashboards.rendered import FOLDER, rendered
from tests.deploy.promql import OF_OTHERS, declared_series, selectors
from tests.deploy.test_rules import RECORDED

NAMES = sorted(rendered())


def read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return read


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in read(name)["panels"] if panel["type"] != "row"]


def test_the_dashboards_are_those_that_their_code_makes() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert committed == rendered(), "run: python -m scripts.dashboards"
    assert NAMES == ["audit.json", "engine.json", "exits.json", "overview.json"]


def test_no_two_dashboards_have_one_address() -> None:
    assert len({read(name)["uid"] for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_come_first(name: str) -> None:
    kinds = [panel["type"] for panel in read(name)["panels"]]
    first, *rest = [list(kind) for _, kind in itertools.groupby(kinds[1:])]
    assert kinds[0] == "row"
    assert set(first) == {"stat"}
    assert "stat" not in {kind for group in rest for kind in group}


@pytest.mark.parametrize("name", NAMES)
def test_panels_lie_within_the_page_and_on_no_other(name: str) -> None:
    covered: set[tuple[int, int]] = set()
    listed = read(name)["panels"]
    assert [panel["id"] for panel in listed] == list(range(1, len(listed) + 1))
    for panel in listed:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not covered & cells, panel["title"]
        covered |= cells


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_shows(name: str) -> None:
    titles = [panel["title"] for panel in panels(name)]
    assert len(titles) == len(set(titles))
    for panel in panels(name):
        assert re.search(r"[.:]", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("name", NAMES)
def test_queries_name_metrics_that_there_are_by_labels_that_they_have(name: str) -> None:
    known = declared_series()
    for panel in panels(name):
        for target in panel["targets"]:
            named = selectors(target["expr"])
            assert named, panel["title"]
            for metric, labels in named.items():
                if metric not in RECORDED and metric not in OF_OTHERS:
                    assert metric in known, f"{panel['title']}: {metric}"
                    assert labels <= {*known[metric], "job", "instance"}, f"{panel['title']}: {metric}"


@pytest.mark.parametrize("name", NAMES)
def test_queries_use_the_variables_that_the_dashboard_has(name: str) -> None:
    dashboard = read(name)
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([panels(name), dashboard["annotations"]])))
    of_grafana = {"__rate_interval", "__range", "__interval"}
    # `$1` is a part of what a regular expression has found.
    assert {each for each in used if not each.isdigit()} - of_grafana == declared
