"""Deployments of Ray Serve, put together from the options of an operator."""

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from deploy.ray_serve.autoscaling import ByQueueDelay
from deploy.ray_serve.options import Scale

# Admission decides who is refused, with Retry-After and a reason; Ray's own limit must never be met before it.
MAX_ONGOING = 10_000
# Calls under way at one replica of a stage: one that computes, some that wait and are merged into the next batch. The
# others wait where a replica that is free first gets them. As many as a batch has images by default: of fewer Ray
# warns, since it cannot know that a call brings several.
STAGE_ONGOING = 8
_HEALTH = {"health_check_period_s": 2.0, "health_check_timeout_s": 10.0}
# Requests under way at one ingress, where they decode and wait.
_ONGOING_OF_AN_INGRESS = 64.0
# Replicas tell their metrics every 10 s, and a look covers more than one; going down is patient, since a replica takes
# long to start.
_LOOK_BACK_S, _UP_AFTER_S, _DOWN_AFTER_S = 15.0, 5.0, 120.0


def deployment(
    kind: type[Any],
    name: str,
    scale: Scale,
    queue_delay_s: float | None,
    *,
    max_ongoing: int,
    drain_s: float,
    **actor: float,
) -> Any:
    """A deployment of `kind` under `name`; `actor`: CPUs and GPUs of a replica.

    `queue_delay_s`: what its size aims at; None: requests under way, as Ray counts them.
    """
    size: dict[str, Any] = {"num_replicas": scale.least}
    if not scale.is_fixed:
        size = {"autoscaling_config": _autoscaling(scale, queue_delay_s)}
    return serve.deployment(
        name=name,
        max_ongoing_requests=max_ongoing,
        ray_actor_options=actor,
        graceful_shutdown_timeout_s=drain_s,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config=LoggingConfig(enable_access_log=False),  # The service has one of its own.
        **_HEALTH,
        **size,
    )(kind)


def _autoscaling(scale: Scale, queue_delay_s: float | None) -> AutoscalingConfig:
    times = {"look_back_period_s": _LOOK_BACK_S, "upscale_delay_s": _UP_AFTER_S, "downscale_delay_s": _DOWN_AFTER_S}
    bounds = {"min_replicas": scale.least, "max_replicas": scale.most}
    if queue_delay_s is None:
        return AutoscalingConfig(**bounds, **times, target_ongoing_requests=_ONGOING_OF_AN_INGRESS)
    name = f"{ByQueueDelay.__module__}:{ByQueueDelay.__name__}"
    policy = AutoscalingPolicy(policy_function=name, policy_kwargs={"queue_delay_s": queue_delay_s})
    return AutoscalingConfig(**bounds, **times, policy=policy)
