"""The chart renders what Kubernetes takes and the service understands, and refuses values that do not go together.

No cluster is needed, and none is asked: what only a cluster can tell is not tested.
"""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from service.api import ops
from service.settings import load_settings
from tests.deploy.charts import CHART, Manifest, RefusedError, environment, helm, only, render

pytestmark = pytest.mark.slow

KUBERNETES = "1.34"
# Of operators that bring their own schemas.
FOREIGN = {"ServiceMonitor", "PrometheusRule"}

RULES = "groups:\n- name: dvt\n  rules:\n  - alert: DvtDown\n    expr: absent(up)\n"
REDIS = {"secrets": {"redisUrl": "dvt-redis"}}
VALUES: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "several with one budget": {
        "replicas": 3,
        "secrets": {"adminKey": "keys", "apiKeys": "keys", "redisUrl": "dvt-redis"},
        "settings": {"DVT_PROFILE": "fast", "DVT_MAX_BATCH": 16, "DVT_AUDIT_FALLBACK": True, "DVT_GUARD_SHARE": 0.5},
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
            "redisTo": [{"podSelector": {"matchLabels": {"app": "redis"}}}],
            "egress": [{"ports": [{"port": 4318, "protocol": "TCP"}]}],
        },
    },
    "autoscaled on a GPU": {
        **REDIS,
        "gpu": {"enabled": True, "runtimeClassName": "nvidia"},
        "autoscaling": {"enabled": True, "queuedImages": 4},
        "nodeSelector": {"accelerator": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "image": {"repository": "registry.example.org/dvt", "digest": f"sha256:{'0' * 64}", "pullSecrets": ["pull"]},
    },
    "a bundle from a claim, state in another": {
        "bundle": {"path": "/bundles/mine", "claimName": "bundles"},
        "state": {"claimName": "dvt-state"},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "a bundle from an image": {"bundle": {"image": "registry.example.org/bundles/mine:3"}},
    "seen from outside": {
        "allowedHosts": ["photos.example.org"],
        "ingress": {"enabled": True, "className": "nginx", "host": "photos.example.org", "tlsSecret": "tls"},
        "podAnnotations": {"note": "x"},
        "priorityClassName": "high",
    },
    "watched": {
        "monitoring": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "files": {"alerts": RULES}},
        }
    },
}
every_value = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


@pytest.fixture(scope="module", autouse=True)
def helm_is_here() -> None:
    try:
        helm("version")
    except RefusedError as error:
        pytest.skip(f"no helm: {str(error).strip().splitlines()[-1]}")


def pod(manifests: list[Manifest]) -> Manifest:
    spec: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def service_container(manifests: list[Manifest]) -> Manifest:
    (container,) = pod(manifests)["containers"]
    assert isinstance(container, dict)
    return container


def test_the_chart_passes_helms_own_lint() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@every_value
def test_every_manifest_fits_kubernetes_strict_schema(values: dict[str, Any], tmp_path: Path) -> None:
    for manifest in render(values, tmp_path):
        assert manifest["metadata"]["namespace"] == "vision"
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_strict_schema_knows_a_mistake_when_it_sees_one(tmp_path: Path) -> None:
    deployment = only(render({}, tmp_path), "Deployment")
    deployment["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@every_value
def test_the_pods_environment_is_what_the_service_reads(values: dict[str, Any], tmp_path: Path) -> None:
    container = service_container(render(values, tmp_path))
    loaded = load_settings(environment(container, tmp_path / "secrets"))
    assert loaded.warnings == ()
    assert loaded.settings.host == "0.0.0.0"
    assert [port["containerPort"] for port in container["ports"]] == [loaded.settings.port]
    assert loaded.secret_files["admin_key"].is_file()
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(loaded.settings.state_dir) in mounted
    named = [entry["value"] for entry in container["env"] if entry["name"].endswith("_FILE")]
    assert {str(Path(file).parent) for file in named} <= mounted


@every_value
def test_every_volume_is_mounted_and_every_mount_has_its_volume(values: dict[str, Any], tmp_path: Path) -> None:
    spec = pod(render(values, tmp_path))
    volumes = [volume["name"] for volume in spec["volumes"]]
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    mounts = [mount["name"] for container in containers for mount in container["volumeMounts"]]
    assert len(set(volumes)) == len(volumes)
    assert set(volumes) == set(mounts)


def test_settings_reach_the_service(tmp_path: Path) -> None:
    container = service_container(render(VALUES["several with one budget"], tmp_path))
    settings = load_settings(environment(container, tmp_path / "secrets")).settings
    assert (settings.profile, settings.max_batch, settings.audit_fallback) == ("fast", 16, True)


def test_probes_ask_for_paths_that_exist_and_name_a_host_that_may_be_named(tmp_path: Path) -> None:
    paths = {getattr(route, "path", "") for route in ops.router.routes}
    container = service_container(render(VALUES["seen from outside"], tmp_path))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in paths
        assert asked["port"] in {port["name"] for port in container["ports"]}
        assert asked["httpHeaders"] == [{"name": "Host", "value": "photos.example.org"}]


@every_value
def test_a_pod_may_do_nothing_that_it_does_not_need(values: dict[str, Any], tmp_path: Path) -> None:
    manifests = render(values, tmp_path)
    spec = pod(manifests)
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert only(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])


@pytest.mark.parametrize("drain", [1, 20, 300])
def test_a_pod_is_killed_only_after_it_could_drain(drain: int, tmp_path: Path) -> None:
    manifests = render({"shutdown": {"drainSeconds": drain}}, tmp_path)
    container = service_container(manifests)
    settings = load_settings(environment(container, tmp_path / "secrets")).settings
    assert settings.drain_seconds == drain
    notice = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(manifests)["terminationGracePeriodSeconds"] > notice + settings.drain_seconds + 2


def test_a_release_called_dvt_gives_no_service_a_name_that_breaks_the_settings(tmp_path: Path) -> None:
    manifests = render({}, tmp_path, release="dvt")
    assert only(manifests, "Service")["metadata"]["name"] == "dvt"
    assert pod(manifests)["enableServiceLinks"] is False


def test_traffic_finds_the_pods(tmp_path: Path) -> None:
    manifests = render(VALUES["seen from outside"], tmp_path)
    labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        only(manifests, "Service")["spec"]["selector"],
        only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        only(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    backend = only(manifests, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == only(manifests, "Service")["metadata"]["name"]


def test_a_gpu_is_asked_for_where_one_is_wanted(tmp_path: Path) -> None:
    manifests = render({"gpu": {"enabled": True}}, tmp_path)
    assert service_container(manifests)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert service_container(manifests)["image"] == "dvt:cuda"
    assert service_container(render({}, tmp_path))["image"] == "dvt:cpu"


def test_the_autoscaler_counts_pods_and_the_deployment_does_not(tmp_path: Path) -> None:
    manifests = render(VALUES["autoscaled on a GPU"], tmp_path)
    autoscaler = only(manifests, "HorizontalPodAutoscaler")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == only(manifests, "Deployment")["metadata"]["name"]
    assert [metric["type"] for metric in autoscaler["metrics"]] == ["Resource", "Pods"]
    assert "replicas" not in only(manifests, "Deployment")["spec"]


def test_rules_are_taken_from_their_files(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yml"
    file.write_text(RULES)
    values = {"monitoring": {"prometheusRule": {"enabled": True}}}
    manifests = render(values, tmp_path, "--set-file", f"monitoring.prometheusRule.files.alerts={file}")
    rule = only(manifests, "PrometheusRule")
    assert rule["metadata"]["name"] == "photos-dvt-alerts"
    assert rule["spec"]["groups"][0]["rules"][0]["alert"] == "DvtDown"


def test_what_is_monitored_is_the_service(tmp_path: Path) -> None:
    manifests = render(VALUES["watched"], tmp_path)
    monitor = only(manifests, "ServiceMonitor")["spec"]
    service = only(manifests, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["endpoints"][0]["path"] in {getattr(route, "path", "") for route in ops.router.routes}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"replicas": 2}, "set secrets.redisUrl"),
        ({"autoscaling": {"enabled": True}}, "set secrets.redisUrl"),
        ({"shutdown": {"drainSeconds": 30, "graceSeconds": 30}}, "killed while they answer"),
        ({"shutdown": {"noticeSeconds": 5, "drainSeconds": 20, "graceSeconds": 27}}, "killed while they answer"),
        ({"settings": {"DVT_DRAIN_SECONDS": 100}}, "DVT_DRAIN_SECONDS"),
        ({"settings": {"DVT_ADMIN_KEY": "secret"}}, "DVT_ADMIN_KEY"),
        ({"settings": {"PATH": "/bin"}}, "PATH"),
        ({"replica": 2}, "replica"),
        ({"gpu": {"count": 2}}, "count"),
        ({"replicas": "2"}, "replicas"),
        ({"image": {"digest": "sha256:12"}}, "digest"),
        ({"bundle": {"claimName": "bundles"}}, "needs bundle.path"),
        ({"bundle": {"claimName": "a", "path": "/bundles/a", "image": "b"}}, "keep one"),
        ({"bundle": {"path": "../etc"}}, "bundle"),
        ({**REDIS, "replicas": 2, "state": {"claimName": "state"}}, "single replica"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
        ({"ingress": {"enabled": True, "host": "a.org"}, "allowedHosts": ["b.org"]}, "allowedHosts lacks"),
        ({"monitoring": {"serviceMonitor": {"enabled": True}}, "allowedHosts": ["b.org"]}, "Prometheus asks pods"),
        ({"rollout": {"maxSurge": 0, "maxUnavailable": 0}}, "no rollout"),
        ({**REDIS, "autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}, "below minReplicas"),
        ({"monitoring": {"prometheusRule": {"enabled": True, "files": {"a": "x: 1"}}}}, "no groups"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_values_that_do_not_go_together_are_refused_with_the_reason(
    values: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=re.escape(reason)):
        render(values, tmp_path)
