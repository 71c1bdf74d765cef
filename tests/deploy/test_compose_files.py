"""What must hold of the files that containers are made from, told without a container engine."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import MIB, Settings, secret_names, variable_of

ROOT = Path(__file__).parents[2]
SETTINGS = {variable_of(name) for name in Settings.model_fields} | {
    f"{variable_of(name)}_FILE" for name in secret_names()
}


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


COMPOSE = read("docker-compose.yml")
SERVICES: dict[str, Any] = COMPOSE["services"]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def mebibytes(text: str) -> int:
    return int(text.removesuffix("m"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


@pytest.mark.parametrize("name", SERVICES)
def test_every_published_port_is_on_the_loopback_address(name: str) -> None:
    assert all(re.match(r"127\.0\.0\.1:", port) for port in SERVICES[name].get("ports", ()))


def test_redis_and_replicas_are_reached_through_the_proxy_alone() -> None:
    assert "ports" not in SERVICES["redis"]
    assert "ports" not in SERVICES["replica"]
    assert SERVICES["redis"]["networks"] == ["back"]
    assert COMPOSE["networks"]["back"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    tag = SERVICES[name]["image"].rpartition(":")[2]
    assert "/" not in tag
    assert tag != "latest"
    assert "build" in SERVICES[name] or re.match(r"v?\d", tag)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_from_here_is_here(name: str) -> None:
    mounted = [volume.partition(":")[0] for volume in SERVICES[name].get("volumes", ()) if volume.startswith("./")]
    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_up_alone_starts_one_service_and_what_watches_it() -> None:
    (profile,) = re.findall(r"^COMPOSE_PROFILES=(\w+)$", (ROOT / ".env").read_text(), flags=re.MULTILINE)
    started = {name for name, service in SERVICES.items() if profile in service.get("profiles", [profile])}
    assert started == {"dvt", "prometheus", "grafana"}


@pytest.mark.parametrize("name", ["dvt", "replica"])
def test_a_drain_ends_before_docker_loses_patience(name: str) -> None:
    assert seconds(SERVICES[name]["stop_grace_period"]) >= Settings().drain_seconds + 5


@pytest.mark.parametrize("name", ["dvt", "replica"])
def test_uploads_fit_where_they_are_spooled(name: str) -> None:
    (spool,) = SERVICES[name]["tmpfs"]
    size = re.search(r"^/tmp:size=(\d+m),", spool)
    assert size is not None
    assert mebibytes(size[1]) * MIB > Settings().body_bytes


def test_the_proxy_takes_what_the_service_takes() -> None:
    size = re.search(r"client_max_body_size (\d+m);", (ROOT / "deploy/proxy/nginx.conf.in").read_text())
    assert size is not None
    assert mebibytes(size[1]) * MIB > Settings().max_body_bytes


def test_every_setting_named_is_one() -> None:
    named = {
        variable
        for file in ("docker-compose.yml", "docker-compose.gpu.yml", "Dockerfile", "deploy/container/ready.py")
        for variable in re.findall(r"DVT_\w+", (ROOT / file).read_text())
    }
    assert named
    assert named <= SETTINGS


def test_the_image_that_is_built_without_a_target_needs_no_torch() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    stages = [re.split(r"\s+AS\s+", line)[1] for line in lines if line.startswith("FROM")]
    assert stages[-1] == "cpu"
    assert "cuda" in stages
    assert [line for line in lines if line.startswith("ENTRYPOINT")] == ['ENTRYPOINT ["dvt"]']
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]


def test_an_image_is_made_of_named_files_alone() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = re.findall(
        r"^COPY (?!--from)(?:--chmod=\d+ )?(.*) \S+$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE
    )
    sources = {source.rstrip("/") for line in copied for source in line.split()}
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert sources
    assert all(any(source == each or source.startswith(f"{each}/") for each in allowed) for source in sources)
    assert all((ROOT / source).exists() for source in sources)


def test_the_gpu_file_changes_services_that_exist() -> None:
    assert set(read("docker-compose.gpu.yml")["services"]) <= set(SERVICES)
    assert set(read("deploy/compose/offline.yml")["services"]) <= set(SERVICES)


def test_grafana_finds_its_data_source_and_its_dashboards() -> None:
    (source,) = read("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("deploy/grafana/provisioning/dashboards/dashboards.yml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy/grafana/dashboards" / Path(home).name).is_file()


def test_grafana_lets_anybody_look_and_nobody_in() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert not [name for name in environment if "PASSWORD" in name]


def test_prometheus_watches_the_services_by_name() -> None:
    job = next(job for job in read("deploy/prometheus/prometheus.yml")["scrape_configs"] if job["job_name"] == "dvt")
    assert {name for found in job["dns_sd_configs"] for name in found["names"]} == {"dvt", "replica"}


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)
def test_prometheus_takes_its_configuration_and_its_rules() -> None:
    config = ROOT / "deploy" / "prometheus" / "prometheus.yml"
    checked = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
