"""The application: routers, error handlers, the gate around them. Takes a `Service`, starts and stops its threads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service.api import audit, budget, classify, feedback, ops, refine, web
from service.api.deps import Service
from service.api.feedback import FeedbackBody
from service.api.handlers import add_handlers
from service.api.middleware import Gate
from service.api.openinference import description, infer, refused
from service.api.refine import RefineBody
from service.api.schemas import BudgetBody, Problem
from service.decode import silence_pillow
from service.engine.steering import LOOK_EVERY_S

# The engine's present batch ends by then, or never.
_STOP_S = 5.0
# A process that is killed loses what its audits found in so long.
_SETTLE_EVERY_S = 1.0

_DESCRIPTION = """Image classification that spends on each image as little computation as it needs.

An image leaves the cascade at the first exit that is confident enough; the **budget** says what is enough.
Every error is a problem document (RFC 9457) with a stable `code`; under `/v2`, the Open Inference Protocol, it is
that protocol's `{"error": "..."}`."""


def create_app(service: Service, version: str) -> FastAPI:
    """An ASGI application around `service`, whose threads run from its startup to its shutdown."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        silence_pillow()
        service.scheduler.start()
        if service.replicas is not None:
            service.replicas.start()
        settling = asyncio.create_task(_settle_audits(service))
        steering = asyncio.create_task(_steer(service))
        try:
            yield
        finally:
            settling.cancel()
            steering.cancel()
            service.admission.drain()
            if service.replicas is not None:
                await service.replicas.stop()
            service.decoders.shutdown(wait=False, cancel_futures=False)
            await asyncio.to_thread(service.scheduler.stop, _STOP_S)
            await asyncio.to_thread(service.audit.settle)
            if service.traces is not None:
                service.traces.close()

    app = FastAPI(
        title="DVT",
        version=version,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # `Traces` tells what requests went through. FastAPI would ask at each of them whether it is to tell of it too,
        # which takes a tenth of the event loop's time.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service = service
    routers = [classify.router, refine.router, feedback.router, budget.router, audit.router, ops.router]
    routers += [description.router, infer.router, refused.router, web.make_router(service.model.config.labels)]
    for router in routers:
        # Its routes, not the router, in which the framework would look for the right one twice at each request.
        app.router.routes.extend(router.routes)
    add_handlers(app)
    _add_schemas(app)
    app.add_middleware(Gate, service=service)
    return app


async def _settle_audits(service: Service) -> None:
    """Look at what the audit found, for ever; the disk may be slow, so in a thread."""
    while True:
        await asyncio.sleep(_SETTLE_EVERY_S)
        try:
            await asyncio.to_thread(service.audit.settle)
        except Exception:
            service.log.exception("audit failed by a bug")


async def _steer(service: Service) -> None:
    """Look at the load, for ever. A bug in it costs `auto` its controller, and nobody an answer."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if not service.scheduler.ready:
            continue
        try:
            service.steering.look()
        except Exception:
            service.log.exception("the operating point is not changed by load any more")
            return


def _add_schemas(app: FastAPI) -> None:
    """Problem documents and some bodies are handled by hand, so /docs has to be told of their shapes."""
    draw = app.openapi

    def openapi() -> dict[str, object]:
        schema = draw()
        shapes = schema.setdefault("components", {}).setdefault("schemas", {})
        for kind in (Problem, BudgetBody, FeedbackBody, RefineBody):
            shape = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, part in {**shape.pop("$defs", {}), kind.__name__: shape}.items():
                shapes.setdefault(name, part)
        # The framework's own form of a validation error, which this service never sends.
        for name in ("HTTPValidationError", "ValidationError"):
            shapes.pop(name, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
