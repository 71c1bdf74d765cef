"""Both clients and a service in a process of its own, over a socket: every call that there is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dvt_client import (
    NEVER,
    BudgetNotMetError,
    Client,
    ForbiddenError,
    ImageFailure,
    ImageResult,
    ProblemError,
    RevisionChangedError,
    UnauthorizedError,
    UnknownResultError,
)
from tests.dvt_client.kinds import KINDS
from tests.integration.processes import running
from tests.integration.scripted_service import DEEP
from tests.service.cascades import ADMIN_KEY, LABELS, picture

EASY = 4
SCRIPT = Path(__file__).parent / "scripted_service.py"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    with running((SCRIPT, folder, "certified"), folder, DVT_API_KEYS="alice user-key") as (_, port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, url: str) -> Iterator[Client]:
    with KINDS[request.param](url, key="user-key", retry=NEVER) as client:
        yield client


@pytest.fixture(params=KINDS)
def admin(request: pytest.FixtureRequest, url: str) -> Iterator[Client]:
    with KINDS[request.param](url, key=ADMIN_KEY, retry=NEVER) as client:
        yield client


def test_a_photo_is_classified_with_what_it_cost(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(picture(EASY))
    answer = client.classify(file, top_k=2)
    result = answer.result
    assert (result.label, len(result.predictions)) == (LABELS[EASY % 4], 2)
    assert (result.exit.number, result.exit.of, result.exit.reason) == (1, 3, "confident")
    assert (result.compute.gmacs, result.compute.full_gmacs, answer.model.name) == (0.1, 1.0, "small-bundle")


def test_options_reach_the_service(client: Client) -> None:
    assert client.classify(picture(DEEP)).result.exit.number == 3
    assert client.classify(picture(DEEP), max_exit=2).result.exit.reason == "max_exit"
    assert client.classify(picture(EASY), thresholds=(None, None)).result.exit.number == 3
    assert client.classify(picture(EASY), profile="full", priority=1).budget.profile == "full"
    assert client.classify(picture(EASY), min_confidence=0.2, deadline_ms=60_000).result.exit.number == 1


def test_of_several_photos_each_has_its_own_fate(client: Client) -> None:
    good, bad = client.classify(picture(EASY), picture(EASY)[:40]).results
    assert isinstance(good, ImageResult)
    assert isinstance(bad, ImageFailure)
    assert bad.error.code == "corrupt_image"


def test_a_photo_that_is_none_is_a_problem(client: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        client.classify(b"no photo at all")
    assert (caught.value.status, caught.value.code) == (415, "unsupported_image")
    assert caught.value.request_id


def test_what_is_served_and_what_can_be_asked_for(client: Client) -> None:
    model = client.model()
    assert (model.labels, len(model.exits), model.worst_case.state_bytes) == (LABELS, 3, 5000)
    frontier = client.frontier()
    assert [point.profile for point in frontier.profiles] == ["fast", "balanced", "accurate", "full"]
    assert frontier.profiles[3].thresholds == (None, None)
    assert client.audit().share == 0.0
    assert client.health().ok and client.health("live").ok
    assert "dvt_ready 1.0" in client.metrics()


def test_a_key_that_is_not_known_is_refused(url: str) -> None:
    for key in (None, "wrong"):
        with Client(url, key=key) as stranger, pytest.raises(UnauthorizedError):
            stranger.model()


def test_only_the_admin_changes_the_budget(client: Client) -> None:
    with pytest.raises(ForbiddenError):
        client.put_budget({"profile": "fast"})
    with pytest.raises(ForbiddenError):
        client.history()


def test_the_budget_is_changed_in_the_place_of_a_revision(admin: Client) -> None:
    before = admin.put_budget({"profile": "balanced"})
    tried = admin.put_budget({"profile": "fast"}, dry_run=True)
    assert (tried.revision, tried.resolved.profile) == (before.revision, "fast")
    after = admin.put_budget({"profile": "fast"}, if_match=before.revision)
    assert (after.revision, after.in_force.profile) == (before.revision + 1, "fast")
    assert admin.budget() == after
    with pytest.raises(RevisionChangedError):
        admin.put_budget({"profile": "full"}, if_match=before.revision)
    assert admin.history().changes[0].request == {"profile": "fast"}
    certified = admin.put_budget({"max_risk": {"disagreement": 0.01}}).in_force.certificate
    assert certified is not None
    assert certified.epsilon == 0.01
    assert admin.put_budget(admin.budget().request).revision == after.revision + 1, "what is asked can be put back"


def test_what_cannot_be_met_names_what_can(admin: Client) -> None:
    with pytest.raises(BudgetNotMetError) as caught:
        admin.put_budget({"gmacs": 0.01})
    assert caught.value.nearest is not None
    assert admin.put_budget(caught.value.nearest, dry_run=True).resolved.mean_gmacs == 0.15


def test_labels_are_told_once(client: Client, url: str) -> None:
    result = client.classify(picture(EASY)).result
    assert client.send_feedback(result.id, result.label).correct
    with pytest.raises(ProblemError, match="label") as caught:
        client.send_feedback(result.id, result.label)
    assert caught.value.code == "feedback_given"
    with pytest.raises(UnknownResultError):
        client.send_feedback("0" * 32, result.label)
    with Client(url, key=ADMIN_KEY) as admin:
        assert admin.feedback().exits[0].labelled >= 1
