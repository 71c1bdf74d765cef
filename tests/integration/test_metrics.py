"""What `GET /metrics` shows of a service at work, and that no stranger can make it show more series than there are."""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import get_args

import pytest
from fastapi import FastAPI
from starlette.routing import Route
from starlette.testclient import TestClient

from models.profiles import RISKS
from service import series
from service.api.deps import Service
from service.errors import kinds
from service.types import ExitReason
from tests.service.cascades import (
    ADMIN,
    WEIGHTS_SHA256,
    FakeBackend,
    certified_profiles,
    client_of,
    make_service,
    picture,
    sure_at,
    wait_until,
)

EASY, HARD = 4, 14

Labels = tuple[tuple[str, str], ...]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    backend = FakeBackend(sure_at({EASY: 1, HARD: 3}))
    return make_service(tmp_path, backend, profiles=certified_profiles(), audit_share=0.5)


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as client:
        yield client


def value(service: Service, name: str, **labels: str) -> float | None:
    return service.metrics.registry.get_sample_value(name, labels)


def shown(service: Service) -> set[tuple[str, Labels]]:
    """Every series of ours, as name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in service.metrics.registry.collect()
        for sample in family.samples
        if sample.name.startswith("dvt_")
    }


def routes(client: TestClient) -> set[str]:
    """Templates of all paths."""
    assert isinstance(client.app, FastAPI)
    routers = (getattr(route, "original_router", None) for route in client.app.routes)
    all_routes = (*client.app.routes, *(route for router in routers if router is not None for route in router.routes))
    return {route.path for route in all_routes if isinstance(route, Route)}


def hostile(client: TestClient, seed: str) -> None:
    """Whatever a stranger can vary, under names that nobody has used."""
    for method in ("GET", "POST", "PUT", "PATCH", f"X{seed}"):
        for path in (
            f"/{seed}",
            f"/classify/{seed}",
            f"/v2/models/{seed}/infer",
            f"/docs/{seed}",
            f"/%0a{seed}",
            "/budget",
        ):
            client.request(method, path)
    for query in (f"profile={seed}", f"top_k={seed}", f"{seed}=1", "min_confidence=0.5", "thresholds=0.1,0.2"):
        client.post(f"/classify?{query}", content=picture(EASY))
    for headers in (
        {"Host": f"{seed}.example"},
        {"X-Request-ID": seed},
        {"Authorization": f"Bearer {seed}"},
        {"Content-Type": f"image/{seed}"},
        {"traceparent": seed},
    ):
        client.post("/classify", content=picture(HARD), headers=headers)
    client.post("/classify", content=seed.encode())
    client.put("/budget", json={"profile": seed}, headers=ADMIN)
    client.put("/budget", json={"max_risk": {seed: 0.5}}, headers=ADMIN)
    client.put("/budget", json={"gmacs": float(len(seed))}, headers=ADMIN)
    client.put("/budget", json={"max_risk": {"disagreement": 0.05}}, headers=ADMIN)
    client.put("/budget", json={"thresholds": [len(seed) / 100, 0.5]}, headers=ADMIN)
    client.post("/feedback", json={"id": seed, "label": seed})


def test_hostile_requests_make_no_series_that_others_had_not_made(client: TestClient, service: Service) -> None:
    for _ in range(5):  # Enough for the lottery to have drawn somebody.
        hostile(client, "first")
    before = shown(service)
    hostile(client, "second-and-much-longer")
    assert shown(service) == before


def test_every_label_takes_its_values_from_a_set_known_at_the_start(client: TestClient, service: Service) -> None:
    known: dict[str, set[str]] = {
        "method": {*series.METHODS, series.OTHER_METHOD},
        "route": {*routes(client), series.UNMATCHED},
        "status": {*(str(status.value) for status in HTTPStatus), *(str(kind.status) for kind in kinds()), "0"},
        "outcome": set(series.OUTCOMES),
        "code": {kind.code for kind in kinds()},
        "exit": {"1", "2", "3"},
        "stage": {"1", "2", "3"},
        "reason": set(get_args(ExitReason)),
        "phase": set(series.PHASES),
        "correct": {"true", "false"},
        "profile": {"fast", "balanced", "accurate", "full", series.UNNAMED},
        "point": {"0", "1", "2", "3"},
        "direction": set(series.DIRECTIONS),
        "found": {*series.FOUND, *series.REUSES},
        "call": set(series.CALLS),
        "what": {what for what, _ in series.EVICTIONS},
        "why": {why for _, why in series.EVICTIONS},
        "risk": set(RISKS),
        "epsilon": {"0.01", "0.05"},
        "model": {"small-bundle"},
        "sha256": {WEIGHTS_SHA256},
    }
    hostile(client, "stranger")
    bounds = {"le"}  # Of a histogram's buckets, which are declared.
    for name, labels in sorted(shown(service)):
        for label, seen in labels:
            assert label in bounds or seen in known[label], f"{name}: {label} is {seen!r}"
    assert {label for _, labels in shown(service) for label, _ in labels} - bounds == set(known) == set(series.LABELS)


def test_the_budget_in_force_is_shown_with_what_was_measured_of_it(client: TestClient, service: Service) -> None:
    client.put("/budget", json={"profile": "accurate"}, headers=ADMIN)
    assert value(service, "dvt_budget_revision") == 2
    assert value(service, "dvt_budget_point") == 2
    assert value(service, "dvt_budget_gmacs") == 0.6
    assert value(service, "dvt_budget_top1_ratio") == 0.95
    assert [value(service, "dvt_budget_exit_share_ratio", exit=number) for number in "123"] == [0.5, 0.25, 0.25]
    assert value(service, "dvt_budget_profile", profile="accurate") == 1
    assert value(service, "dvt_budget_profile", profile="balanced") == 0
    client.put("/budget", json={"thresholds": [0.123, 0.5]}, headers=ADMIN)
    text = client.get("/metrics").text
    for line in ("dvt_budget_gmacs NaN", "dvt_budget_point NaN", 'dvt_budget_profile{profile="none"} 1.0'):
        assert line in text, line
    assert value(service, "dvt_budget_fallback") == 0


def test_the_frontier_can_be_drawn_from_what_is_shown(service: Service) -> None:
    points = [
        (value(service, "dvt_frontier_gmacs", point=number), value(service, "dvt_frontier_top1_ratio", point=number))
        for number in "0123"
    ]
    assert points == [(0.15, 0.80), (0.3, 0.90), (0.6, 0.95), (1.0, 0.96)]
    assert [value(service, "dvt_exit_gmacs", exit=number) for number in "123"] == [0.1, 0.3, 1.0]
    assert value(service, "dvt_static_gmacs") == 0.8


def test_confidence_is_counted_at_the_exit_that_answered(client: TestClient, service: Service) -> None:
    for kind in (EASY, EASY, HARD):
        client.post("/classify", content=picture(kind))
    assert value(service, "dvt_exit_confidence_ratio_count", exit="1") == 2
    assert value(service, "dvt_exit_confidence_ratio_bucket", exit="1", le="0.95") == 0
    assert value(service, "dvt_exit_confidence_ratio_bucket", exit="1", le="0.98") == 2
    assert value(service, "dvt_exit_confidence_ratio_count", exit="3") == 1


def test_latency_of_an_image_is_counted_by_stage_and_that_of_its_audit_is_not(tmp_path: Path) -> None:
    backend = FakeBackend(sure_at({EASY: 1, HARD: 3}))
    service = make_service(tmp_path, backend, profiles=certified_profiles(), audit_share=1.0)
    with client_of(service) as client:
        client.post("/classify", files=[("image", picture(EASY)), ("image", picture(HARD))])
        wait_until(lambda: value(service, "dvt_audits_pending_images") == 0)
        assert sorted(backend.batches)[-1][0] == 3
        counts = [value(service, "dvt_stage_image_seconds_count", stage=number) for number in "123"]
        assert counts == [2, 1, 1]


def test_the_engine_and_its_limits_are_shown(client: TestClient, service: Service) -> None:
    names = (
        "dvt_engine_up",
        "dvt_engine_lanes",
        "dvt_ready",
        "dvt_draining",
        "dvt_state_slots",
        "dvt_state_slots_used",
    )
    assert [value(service, name) for name in names] == [1, 1, 1, 0, 1024, 0]
    assert value(service, "dvt_in_flight_limit_images") == service.admission.limits.permits
    assert value(service, "dvt_state_limit_bytes") == service.settings.state_bytes
    service.admission.drain()
    assert (value(service, "dvt_draining"), value(service, "dvt_ready")) == (1, 0)
    service.scheduler.stop()
    assert value(service, "dvt_engine_up") == 0
