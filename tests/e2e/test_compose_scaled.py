"""The profile `scaled`: replicas behind a proxy, with one budget in Redis, replaced without losing a request."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.compose_project import ROOT, Load, Project, up, wait_until

pytestmark = pytest.mark.compose

ROLL = str(ROOT / "deploy" / "compose" / "roll.sh")
PHOTO = (ROOT / "samples" / "church.jpg").read_bytes()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    bundles: Path = tmp_path_factory.mktemp("bundles")
    with up("scaled", bundles, "redis", "replica", "proxy", "prometheus") as project:
        for service in ("redis", "replica", "proxy"):
            project.wait_for(service)
        yield project


def test_a_photo_is_classified_through_the_proxy(project: Project) -> None:
    status, answer = project.ask("POST", "/classify", PHOTO)
    assert (status, answer["results"][0]["predictions"][0]["label"]) == (200, "church")


def test_a_body_that_the_proxy_has_to_spool_arrives_whole(project: Project) -> None:
    status, problem = project.ask("POST", "/classify", PHOTO + b"\0" * 17_000_000)
    assert (status, problem["code"]) == (413, "image_too_large")


@pytest.mark.parametrize(
    ("path", "host", "code"),
    [("/budget", "rebound.example", "host_not_allowed"), ("/metrics", "localhost", "not_found")],
)
def test_the_proxy_keeps_out_what_is_not_for_outside(project: Project, path: str, host: str, code: str) -> None:
    assert project.ask("GET", path, Host=host)[1]["code"] == code


@pytest.mark.parametrize("service", ["redis", "replica", "proxy"])
def test_a_container_may_do_no_more_than_it_needs(project: Project, service: str) -> None:
    for found in project.containers(service):
        told = project.inspect(found)
        assert told["HostConfig"]["ReadonlyRootfs"]
        assert told["HostConfig"]["CapDrop"] == ["ALL"]
        assert "no-new-privileges:true" in told["HostConfig"]["SecurityOpt"]
        assert told["Config"]["User"].partition(":")[0] not in ("", "0", "root")
        ports = told["NetworkSettings"]["Ports"].values()
        bound = [each["HostIp"] for published in ports for each in published or ()]
        assert bound == (["127.0.0.1"] if service == "proxy" else [])


def test_redis_wants_its_password(project: Project) -> None:
    ask = "exec 3<>/dev/tcp/127.0.0.1/6379; printf 'GET dvt:budget\\r\\n' >&3; read -r -u 3 said; echo \"$said\""
    assert project.compose("exec", "--no-TTY", "redis", "bash", "-c", ask).startswith("-NOAUTH")


def test_a_budget_reaches_all_replicas_and_prometheus_sees_each(project: Project) -> None:
    revision = project.put_budget(project.containers("replica")[0], "fast")
    seen = f'count(dvt_budget_revision{{job="dvt"}} == {revision})'
    wait_until(lambda: project.query(seen) == [2], "both replicas have it")


def test_replicas_are_restarted_one_by_one_without_a_lost_request(project: Project) -> None:
    replicas = project.containers("replica")
    with Load(project.port, PHOTO) as load:
        for replica in replicas:
            load.wait_for_answers()
            project.run("docker", "restart", replica)
            project.wait_for("replica")
    assert set(load.outcomes) == {"200"}, load.outcomes


def test_replicas_are_replaced_by_new_ones_without_a_lost_request(project: Project) -> None:
    old = set(project.containers("replica"))
    with Load(project.port, PHOTO) as load:
        load.wait_for_answers()
        project.run(ROLL)
        load.wait_for_answers()
    assert set(load.outcomes) == {"200"}, load.outcomes
    new = set(project.containers("replica"))
    assert len(new) == 2
    assert new.isdisjoint(old)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("environment: {DVT_BUNDLE: /app/nowhere}", "there is no bundle at /app/nowhere"),
        ("healthcheck: {test: [CMD, 'false']}", "those from before go on"),
    ],
)
def test_a_rollout_of_what_does_not_start_leaves_the_old_ones_alone(
    project: Project, tmp_path: Path, change: str, says: str
) -> None:
    before = project.containers("replica")
    changed = project.changed(tmp_path / "change.yml", f"services: {{replica: {{{change}}}}}")
    with Load(project.port, PHOTO) as load:
        ended = project.try_to_run(ROLL, READY_WITHIN_S="5", **changed)
        load.wait_for_answers()
    assert (ended.returncode != 0, says in ended.stderr) == (True, True), ended.stderr
    assert project.containers("replica") == before
    assert set(load.outcomes) == {"200"}, load.outcomes


def test_with_all_replicas_gone_the_proxy_says_so(project: Project) -> None:
    project.compose("stop", "replica")
    status, problem = project.ask("POST", "/classify", PHOTO)
    assert (status, problem["code"]) == (503, "no_replica")
    project.compose("start", "replica")
    wait_until(lambda: project.ask("POST", "/classify", PHOTO)[0] == 200, "the replicas are back")
