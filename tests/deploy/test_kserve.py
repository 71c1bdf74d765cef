"""The InferenceService: a pod that Kubernetes takes and the service understands. KServe's own schema is not here."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.api.openinference import description
from service.settings import load_settings
from tests.deploy.charts import ROOT, environment

# What of a predictor is KServe's; the rest is a pod's.
OF_KSERVE = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "containerConcurrency"}


@pytest.fixture
def predictor() -> dict[str, Any]:
    manifest = yaml.safe_load((ROOT / "deploy" / "kserve" / "inferenceservice.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    found: dict[str, Any] = manifest["spec"]["predictor"]
    return found


def test_its_pod_fits_kubernetes_strict_schema(predictor: dict[str, Any]) -> None:
    spec = {key: value for key, value in predictor.items() if key not in OF_KSERVE}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dvt"}, "spec": spec}
    kubernetes_validate.validate(pod, "1.34", strict=True)


def test_its_environment_is_what_the_service_reads(predictor: dict[str, Any], tmp_path: Path) -> None:
    (container,) = predictor["containers"]
    loaded = load_settings(environment(container, tmp_path))
    assert loaded.warnings == ()
    assert container["ports"][0]["containerPort"] == loaded.settings.port
    notice = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert predictor["terminationGracePeriodSeconds"] > notice + loaded.settings.drain_seconds + 2
    assert {"name": "state", "mountPath": str(loaded.settings.state_dir)} in container["volumeMounts"]


def test_it_asks_for_the_health_of_the_protocol_at_the_services_port(predictor: dict[str, Any]) -> None:
    (container,) = predictor["containers"]
    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {path["path"] for path in asked.values()} <= {
        getattr(route, "path", "") for route in description.router.routes
    }
    assert asked["livenessProbe"] == {"path": "/v2/health/live", "port": 8000}
    assert asked["readinessProbe"] == asked["startupProbe"] == {"path": "/v2/health/ready", "port": 8000}
