"""One deployment a stage: `serve run deploy.ray_serve.stages:app [stages=1,1,1-4] [ingress=1] [cpus=1] ...`.

The ingress is the whole HTTP API with admission, decoding and the engine, whose backend has stages computed by the
deployments `Stage1`, `Stage2` and so on. So batches are formed anew before every stage, by the same rules as anywhere
else, of all that wait; and each deployment has as many replicas as its own work asks for.
"""

import os
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve import Application

from deploy.ray_serve.cluster import RayCluster
from deploy.ray_serve.compute import open_onnx_stage
from deploy.ray_serve.deployments import MAX_ONGOING, STAGE_ONGOING, deployment
from deploy.ray_serve.ingress import Granted, Ingress
from deploy.ray_serve.options import StagesOptions
from deploy.ray_serve.remote_stages import RemoteStages
from deploy.ray_serve.stage import Stage, StageSource, hashes
from models.bundle import Bundle, read_bundle
from service.backends.layout import state_layout
from service.main import Opened, capacity_of
from service.settings import Settings, load_settings

_MOST_LANES = 256


def read(settings: Settings) -> Bundle:
    """The bundle that the settings name. Raises `BundleError`."""
    return read_bundle(settings.bundle)


ONNX = StageSource("onnx", read, open_onnx_stage)


def app(options: StagesOptions) -> Application:
    """What `serve run` builds."""
    return build(options, ONNX)


def build(options: StagesOptions, source: StageSource) -> Application:
    """The application, of stages of `source`. Raises `ValueError` where the options do not fit the bundle."""
    scales = options.scales(source.bundle(load_settings(os.environ).settings).config.exits)
    stages = [
        deployment(
            Stage,
            f"Stage{number}",
            scale,
            options.queue_delay_s,
            max_ongoing=STAGE_ONGOING,
            drain_s=options.drain_s,
            num_cpus=options.cpus,
        ).bind(source, number, options.cpus)
        for number, scale in enumerate(scales, start=1)
    ]
    lanes = options.lanes or min(_MOST_LANES, 2 * sum(scale.most for scale in scales))
    ingress = deployment(
        serve.ingress()(Ingress),
        "Ingress",
        options.ingress,
        None,
        max_ongoing=MAX_ONGOING,
        drain_s=options.drain_s,
        num_cpus=options.ingress_cpus,
    )
    return ingress.bind(
        OpenRemote(source, lanes), Granted(options.ingress_cpus, metrics_port=options.metrics_port), *stages
    )


@dataclass(frozen=True)
class OpenRemote:
    """The bundle with a backend that is the stages' deployments."""

    source: StageSource
    lanes: int

    def __call__(self, settings: Settings, stages: tuple[Any, ...]) -> Opened:
        """`stages`: their handles. Raises `ValueError` for a bundle or settings that cannot be served."""
        bundle = self.source.bundle(settings)
        capacity = capacity_of(settings)
        backend = RemoteStages(
            self.source.name, state_layout(bundle.config), RayCluster(stages, hashes(bundle)), capacity, self.lanes
        )
        return Opened(bundle, backend, f"one deployment a stage, {self.lanes} batches at once")
