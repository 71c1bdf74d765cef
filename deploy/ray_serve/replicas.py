"""Replicas of the whole service: `serve run deploy.ray_serve.replicas:app [replicas=1-4] [cpus=1] [gpus=0] ...`.

Each has its own engine. They share a budget: through Redis where DVT_REDIS_URL says so, else through Ray.
"""

from typing import Any

from ray import serve
from ray.serve import Application

from deploy.ray_serve.deployments import MAX_ONGOING, deployment
from deploy.ray_serve.ingress import Granted, Ingress, OpenService
from deploy.ray_serve.options import ReplicasOptions
from service.main import Opened, open_bundle
from service.settings import Settings


def app(options: ReplicasOptions) -> Application:
    """What `serve run` builds."""
    return build(options, open_here)


def open_here(settings: Settings, _: tuple[Any, ...]) -> Opened:
    """The bundle with a backend in the replica's own process. Raises as `open_bundle` does."""
    return open_bundle(settings)


def build(options: ReplicasOptions, open_: OpenService) -> Application:
    """The application, of engines that are opened by `open_`."""
    made = deployment(
        serve.ingress()(Ingress),
        "Replica",
        options.replicas,
        options.queue_delay_s,
        max_ongoing=MAX_ONGOING,
        drain_s=options.drain_s,
        num_cpus=options.cpus,
        num_gpus=options.gpus,
    )
    return made.bind(open_, Granted(options.cpus, options.gpus, options.metrics_port))
