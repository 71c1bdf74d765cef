"""Operations: `/health`, `/metrics`, `/model`, and `/docs`, which works without the internet."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.deps import ServiceDep, check_engine
from service.api.schemas import Health, ModelExit, ModelResponse, WorstCase, problems
from service.errors import DrainingError, NotReadyError

router = APIRouter(tags=["operations"])

# Swagger UI draws with inline SVG images; scripts and styles come from here alone, and none is inline.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_DOCS_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DVT: the HTTP interface</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_DOCS_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


@router.get("/health/live", response_model=Health, responses=problems(503), summary="Is the process worth keeping?")
async def live(service: ServiceDep) -> Health:
    """503 when the engine has stopped, or stands still within a batch: the process ends by itself then, with code 1."""
    if not service.scheduler.alive:
        raise NotReadyError("the engine has stopped; restart the service, its log tells why")
    return Health(status="live")


@router.get("/health/ready", response_model=Health, responses=problems(503), summary="Does it take work?")
async def ready(service: ServiceDep) -> Health:
    """503 while starting (`detail` names what is still warming up), when draining, and when the engine has stopped."""
    if service.admission.draining:
        raise DrainingError("the service is shutting down")
    check_engine(service)
    return Health(status="ready")


@router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
async def metrics(service: ServiceDep) -> Response:
    """In Prometheus's text format. Open to all with `DVT_METRICS_PUBLIC`."""
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


@router.get("/model", response_model=ModelResponse, responses=problems(401), summary="What is served")
async def model(service: ServiceDep) -> ModelResponse:
    """Architecture, labels, exits, worst-case cost and hashes."""
    served = service.model
    config, profiles = served.config, served.profiles
    return ModelResponse(
        name=served.name,
        architecture=config.architecture,
        sha256=served.weights_sha256,
        config_sha256=served.config_sha256,
        backend=served.backend,
        devices=list(served.devices),
        input_px=config.input.size_px,
        resize_px=config.input.resize_px,
        classes=config.classes,
        labels=list(config.labels),
        confidence=served.confidence,
        exits=[
            ModelExit(
                number=number,
                grid=stage.grid,
                gmacs=served.gmacs(number),
                top1=None if profiles is None else profiles.exits[number - 1].top1,
            )
            for number, stage in enumerate(config.stages, start=1)
        ],
        profiles=[] if profiles is None else list(profiles.named),
        static_gmacs=served.static_gmacs,
        worst_case=WorstCase(gmacs=served.full_gmacs, state_bytes=served.peak_state_bytes),
    )


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    return HTMLResponse(_DOCS_PAGE, headers={"Content-Security-Policy": _DOCS_POLICY})


@router.get("/docs/start.js", include_in_schema=False)
async def docs_start() -> Response:
    return Response(_DOCS_START, media_type="text/javascript")


def _add_asset(name: str, media_type: str) -> None:
    @router.get(f"/docs/{name}", include_in_schema=False)
    async def asset() -> Response:
        return Response(_asset(name), media_type=media_type, headers={"Cache-Control": "private, max-age=86400"})


for _name, _media_type in _ASSETS.items():
    _add_asset(_name, _media_type)


@cache
def _asset(name: str) -> bytes:
    """Swagger UI as the package fastapi-swagger ships it."""
    return (files("fastapi_swagger") / "resources" / name).read_bytes()
