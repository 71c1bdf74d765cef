"""What every handler works with: one `Service`, put together once at start and handed down as a value."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from models.config import DVTConfig
from models.policy import Measure
from models.profiles import Profiles
from service.api.keys import Caller, KeyRing
from service.decode import ImageLimits
from service.engine.admission import Admission
from service.engine.audit import Audit
from service.engine.budget import Budget
from service.engine.content import ContentKeys
from service.engine.engine import Engine
from service.engine.feedback import Feedback
from service.engine.kept import KeptWork
from service.engine.steering import Steering
from service.errors import ForbiddenError, NotReadyError, UnauthorizedError
from service.in_hand import IN_HAND
from service.metrics import Metrics
from service.randomness import Randomness
from service.settings import Settings
from service.traces import Traces
from service.types import Clock

if TYPE_CHECKING:
    from service.replicas import Replicas


@dataclass(frozen=True)
class Model:
    """What is served: the facts of a bundle that answers quote, and what computes it. GMACs are cumulative, None where
    never measured."""

    name: str
    config: DVTConfig
    weights_sha256: str
    config_sha256: str
    profiles: Profiles | None
    backend: str
    devices: tuple[str, ...]
    peak_state_bytes: int

    @property
    def confidence(self) -> Measure:
        return self.profiles.confidence if self.profiles is not None else "max_softmax"

    @property
    def full_gmacs(self) -> float | None:
        return self.gmacs(self.config.exits)

    @property
    def static_gmacs(self) -> float | None:
        """What the last stage alone would cost, the model that a user would run instead."""
        return self.profiles.static_gmacs if self.profiles is not None else None

    def gmacs(self, stages: int) -> float | None:
        """Cost of an image that ran so many stages."""
        if self.profiles is None:
            return None
        return self.profiles.exits[stages - 1].gmacs if stages else 0.0


@dataclass(frozen=True)
class Service:
    """Everything that a request meets. `replicas` is None where the budget is this one's own, `contents` where the same
    image again is not known, `traces` where nobody asks for them."""

    settings: Settings
    model: Model
    keys: KeyRing
    limits: ImageLimits
    admission: Admission
    budget: Budget
    replicas: "Replicas | None"
    steering: Steering
    scheduler: Engine
    audit: Audit
    feedback: Feedback
    kept: KeptWork
    contents: ContentKeys | None
    decoders: ThreadPoolExecutor
    metrics: Metrics
    traces: Traces | None
    randomness: Randomness
    clock: Clock
    log: logging.Logger

    @property
    def is_ready(self) -> bool:
        return self.scheduler.ready and not self.admission.draining


def check_engine(service: Service) -> None:
    """Raises `NotReadyError` where the engine takes no work: what is still warming up, or that it has stopped."""
    scheduler = service.scheduler
    if not scheduler.alive:
        raise NotReadyError("the engine has stopped; restart the service, its log tells why", retry_after_s=5)
    warming = scheduler.warming
    if warming is not None:
        raise NotReadyError(f"the engine is warming up: {warming}; try again in a moment", retry_after_s=2)


def count_body(service: Service, arrived_s: float) -> None:
    """The body of a request that came at `arrived_s` is there."""
    now_s = service.clock()
    service.metrics.phase("read", now_s - arrived_s)
    in_hand = IN_HAND.get()
    if in_hand is not None:
        in_hand.body_read_s = now_s


def query_of(request: Request) -> dict[str, str]:
    """The parameters of its URL; of one that is given twice, the last. Most requests have none, and what the framework
    would make of them holds several copies."""
    return dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def _service(request: Request) -> Service:
    """For FastAPI, which calls whatever is not a coroutine function in a thread: dearer than all the rest of it."""
    return service_of(request)


async def admin_of(request: Request) -> Caller:
    """The admin who calls. Raises `UnauthorizedError` or `ForbiddenError`, before the body is read."""
    caller = cast(Caller | None, request.scope.get("dvt.caller"))
    if caller is None:
        raise UnauthorizedError(
            "this needs the admin key: send `Authorization: Bearer KEY`; it is the value of DVT_ADMIN_KEY, or in the "
            "file admin-key in the folder DVT_STATE_DIR of the service"
        )
    if not caller.is_admin:
        raise ForbiddenError("this needs the admin key, the key sent may only classify and read")
    return caller


ServiceDep = Annotated[Service, Depends(_service)]
AdminDep = Annotated[Caller, Depends(admin_of)]
