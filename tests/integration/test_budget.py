"""`/budget` over HTTP: what can be asked, by whom, what that means, and what it changes."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient

from tests.service.cascades import (
    ADMIN,
    FakeBackend,
    bearer,
    certified_profiles,
    client_of,
    make_service,
    picture,
    small_profiles,
    sure_at,
)

EASY, HARD = 4, 14


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    service = make_service(tmp_path, FakeBackend(sure_at({EASY: 1, HARD: 3})), profiles=small_profiles())
    with client_of(service) as client:
        yield client


def test_the_budget_says_what_is_asked_what_that_means_and_can_be_put_back(client: TestClient) -> None:
    budget = client.get("/budget").json()
    point = {
        "number": 1,
        "profile": "balanced",
        "thresholds": [0.8, 0.6],
        "top1": 0.9,
        "mean_gmacs": 0.3,
        "exit_shares": [0.5, 0.25, 0.25],
        "certificate": None,
        "uncertified": "the bundle has no certificates: run `dvt certify` on it",
    }
    assert budget == {
        "revision": 1,
        "operating_point": 0,
        "request": {"profile": "balanced"},
        "resolved": point,
        "in_force": point,
        "ceiling": None,
    }
    again = client.put("/budget", json=budget["request"], headers=ADMIN)
    assert (again.status_code, again.json()) == (200, budget)


def test_a_dry_run_tells_what_would_be_and_changes_nothing(client: TestClient) -> None:
    before = client.get("/budget").json()
    tried = client.put("/budget?dry_run=true", json={"gmacs": 0.2}, headers=ADMIN).json()
    assert tried["request"] == {"gmacs": 0.2}
    assert tried["resolved"]["thresholds"] == [0.4, 0.4]
    assert (tried["in_force"], tried["revision"]) == (before["in_force"], 1)
    assert client.get("/budget").json() == before


def test_a_budget_that_changed_meanwhile_is_not_overwritten(client: TestClient) -> None:
    tag = client.get("/budget").headers["ETag"]
    assert tag == '"1"'
    first = client.put("/budget", json={"profile": "fast"}, headers={**ADMIN, "If-Match": tag})
    assert (first.status_code, first.headers["ETag"]) == (200, '"2"')
    late = client.put("/budget", json={"profile": "full"}, headers={**ADMIN, "If-Match": tag})
    assert (late.status_code, late.json()["code"]) == (412, "revision_changed")
    assert client.put("/budget", json={"profile": "full"}, headers={**ADMIN, "If-Match": "*"}).status_code == 200
    wrong = client.put("/budget", json={"profile": "fast"}, headers={**ADMIN, "If-Match": "abc"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_parameter")


def test_what_cannot_be_had_is_refused_with_the_nearest_that_can_be_put(client: TestClient) -> None:
    refused = client.put("/budget", json={"gmacs": 0.01}, headers=ADMIN)
    assert (refused.status_code, refused.json()["code"]) == (422, "budget_not_met")
    assert client.put("/budget", json=refused.json()["nearest"], headers=ADMIN).status_code == 200
    risk = client.put("/budget", json={"max_risk": {"disagreement": 0.01}}, headers=ADMIN)
    assert (risk.status_code, risk.json()["code"]) == (422, "budget_not_met")
    assert "dvt certify" in risk.json()["detail"]


def test_the_admin_reads_who_changed_the_budget(client: TestClient) -> None:
    client.put("/budget", json={"max_risk": {"disagreement": 0.01}}, headers=ADMIN)
    client.put("/budget", json={"gmacs": 0.3}, headers=ADMIN)
    assert client.get("/budget/history").status_code == 401
    changes = client.get("/budget/history", headers=ADMIN).json()["changes"]
    assert [(change["revision"], change["request"]) for change in changes] == [
        (2, {"gmacs": 0.3}),
        (1, {"profile": "balanced"}),
    ]
    assert changes[0]["by"] != changes[1]["by"] == "start"


def test_time_is_that_of_this_devices_stages(client: TestClient) -> None:
    put = client.put("/budget", json={"latency_ms": 3_600_000, "quantile": 1.0}, headers=ADMIN).json()
    assert put["resolved"]["thresholds"] == [None, None]
    assert client.put("/budget", json={"latency_ms": 1e-9}, headers=ADMIN).json()["code"] == "budget_not_met"


def test_a_new_budget_decides_from_the_next_image_on(client: TestClient) -> None:
    def exit_of_easy() -> tuple[int, int]:
        answer = client.post("/classify", content=picture(EASY)).json()
        return answer["budget"]["revision"], answer["results"][0]["exit"]["number"]

    assert exit_of_easy() == (1, 1)
    assert client.put("/budget", json={"profile": "full"}, headers=ADMIN).json()["revision"] == 2
    assert exit_of_easy() == (2, 3)
    put = client.put("/budget", json={"thresholds": [None, 0.5]}, headers=ADMIN).json()
    assert put["request"] == {"thresholds": [None, 0.5]}
    assert put["in_force"]["thresholds"] == [None, 0.5]
    assert exit_of_easy() == (3, 2)
    assert "dvt_budget_revision 3.0" in client.get("/metrics").text


def test_the_frontier_shows_what_can_be_asked_for(client: TestClient) -> None:
    frontier = client.get("/budget/frontier").json()
    assert [point["profile"] for point in frontier["profiles"]] == ["fast", "balanced", "accurate", "full"]
    assert [point["number"] for point in frontier["frontier"]] == [0, 1, 2, 3]
    assert frontier["frontier"][3]["thresholds"] == [None, None]
    assert frontier["certified"] == []


def test_the_frontier_tells_what_is_certified(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, profiles=certified_profiles())) as client:
        certified = client.get("/budget/frontier").json()["certified"]
    assert [point["thresholds"] for point in certified] == [[0.9, 0.8], [0.6, 0.5], [0.4, 0.4]]
    assert [point["certificate"]["epsilon"] for point in certified] == [0.01, 0.05, 0.05]
    assert [point["top1"] for point in certified] == [0.93, 0.85, 0.80]


def test_the_frontier_is_a_picture_too(client: TestClient) -> None:
    response = client.get("/budget/frontier", headers={"Accept": "image/svg+xml"})
    assert response.headers["Content-Type"] == "image/svg+xml"
    drawing = ElementTree.fromstring(response.text)
    words = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"fast", "balanced", "accurate", "full", "● in force", "mean GMACs an image"} <= set(words)
    places = [
        (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
        for circle in drawing.iter("{http://www.w3.org/2000/svg}circle")
    ]
    costs, heights = zip(*places[:4], strict=True)
    assert list(costs) == sorted(costs)
    assert list(heights) == sorted(heights, reverse=True), "more accurate is higher up"
    assert all(0 < left < 640 and 0 < top < 400 for left, top in places)


def test_a_bundle_without_profiles_has_an_empty_picture(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path)) as client:
        response = client.get("/budget/frontier", headers={"Accept": "image/svg+xml"})
        assert response.status_code == 200
        ElementTree.fromstring(response.text)
        assert client.get("/budget/frontier").json() == {"profiles": [], "frontier": [], "certified": []}


def test_only_the_admin_changes_the_budget(client: TestClient) -> None:
    for headers in ({}, bearer("wrong"), {"Authorization": "Basic abc"}):
        response = client.put("/budget", json={"profile": "fast"}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert client.get("/budget").json()["revision"] == 1
