"""`docker compose up` as its user meets it: one service with Prometheus, in containers, through published ports."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.compose_project import ROOT, Load, Project, up, wait_until

pytestmark = pytest.mark.compose

PHOTO = (ROOT / "samples" / "church.jpg").read_bytes()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def project(bundles: Path) -> Iterator[Project]:
    with up("single", bundles, "dvt", "prometheus") as project:
        project.wait_for("dvt")
        yield project


def container(project: Project) -> str:
    (found,) = project.containers("dvt")
    return found


def test_a_photo_is_classified_through_the_published_port(project: Project) -> None:
    status, answer = project.ask("POST", "/classify", PHOTO)
    assert (status, answer["results"][0]["predictions"][0]["label"]) == (200, "church")


@pytest.mark.parametrize("service", ["dvt", "prometheus"])
def test_a_container_may_do_no_more_than_it_needs(project: Project, service: str) -> None:
    (found,) = project.containers(service)
    told = project.inspect(found)
    host = told["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert told["Config"]["User"].partition(":")[0] not in ("", "0", "root")
    published = [each["HostIp"] for bound in told["NetworkSettings"]["Ports"].values() for each in bound or ()]
    assert set(published) == {"127.0.0.1"}


def test_a_name_that_was_not_allowed_is_refused(project: Project) -> None:
    assert project.ask("GET", "/budget", Host="rebound.example")[0] == 421


def test_the_budget_outlives_a_restart(project: Project) -> None:
    revision = project.put_budget(container(project), "fast")
    project.compose("restart", "dvt")
    project.wait_for("dvt")
    _, budget = project.ask("GET", "/budget")
    assert (budget["revision"], budget["request"]) == (revision, {"profile": "fast"})


def test_prometheus_scrapes_the_service(project: Project) -> None:
    project.ask("POST", "/classify", PHOTO)
    wait_until(lambda: project.query('sum(dvt_exits_total{job="dvt"}) > 0') != [], "an exit is counted")
    wait_until(lambda: project.query('up{job="dvt"}') == [1], "the service is up")


def test_an_alert_fires_while_the_service_is_down_and_resolves(project: Project) -> None:
    wait_until(lambda: project.alerts()["DvtDown"] == "inactive", "nothing is wrong yet")
    project.compose("stop", "dvt")
    assert project.inspect(container(project))["State"]["ExitCode"] == 0, "it drained"
    wait_until(lambda: project.alerts()["DvtDown"] == "firing", "the alert fires")
    project.compose("start", "dvt")
    wait_until(lambda: project.alerts()["DvtDown"] == "inactive", "the alert resolves")


def test_a_killed_service_comes_back_by_itself_and_answers_with_its_budget(project: Project) -> None:
    killed = container(project)
    project.wait_for("dvt")
    revision = project.put_budget(killed, "accurate")
    restarts = project.inspect(killed)["RestartCount"]
    with Load(project.port, PHOTO) as load:
        load.wait_for_answers()
        # From outside: to an engine that is asked to kill it, it would be meant to stay so.
        os.kill(project.inspect(killed)["State"]["Pid"], signal.SIGKILL)
        wait_until(lambda: project.inspect(killed)["RestartCount"] == restarts + 1, "the engine started it again")
        load.wait_for_answers()
    assert {outcome for outcome in load.outcomes if outcome.isdigit()} <= {"200", "503"}
    assert project.ask("GET", "/budget")[1]["revision"] == revision


def test_another_bundle_is_checked_and_then_served(project: Project, bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "checkpoints" / "cifar10-micro", bundles / "micro")
    changed = project.changed(tmp_path / "change.yml", "services: {dvt: {environment: {DVT_BUNDLE: /bundles/micro}}}")
    project.compose("run", "--rm", "--no-deps", "--no-TTY", "dvt", "serve", "--check", **changed)
    assert project.ask("GET", "/model")[1]["name"] == "imagenette-hybrid"
    project.compose("up", "--detach", "dvt", **changed)
    project.wait_for("dvt")
    assert project.ask("GET", "/model")[1]["name"] == "micro"
    project.compose("up", "--detach", "dvt")
    project.wait_for("dvt")
    assert project.ask("GET", "/model")[1]["name"] == "imagenette-hybrid"
