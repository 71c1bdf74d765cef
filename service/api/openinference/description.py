"""What the protocol asks of a server besides inference: health, metadata, configuration, statistics, the index."""

from fastapi import APIRouter, Request

from service.api.body import BodyLimits, parse_json, read_body
from service.api.deps import Service, ServiceDep, check_engine
from service.api.openinference.model import PROBABILITIES, VERSION, TensorSpec, inputs_of, largest_batch, outputs_of
from service.api.openinference.paths import TAG, of_model
from service.api.openinference.schemas import (
    ERRORS,
    BatchStatistics,
    Duration,
    IndexEntry,
    InferenceStatistics,
    InputConfig,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    OutputConfig,
    Ready,
    ServerMetadata,
    StatisticsResponse,
    TensorMetadata,
    VersionPolicy,
)
from service.errors import BadJsonError, DrainingError, NotReadyError
from service.metrics import Tally

router = APIRouter(tags=[TAG])

_EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
]
_INDEX_LIMITS = BodyLimits(body_bytes=64 * 1024, image_bytes=0, images=0, seconds=10.0)
# As model_config.proto has them.
_CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32", "UINT8": "TYPE_UINT8"}
_NEVER = Duration(count=0, ns=0)


@router.get("/v2/health/live", response_model=Live, responses=ERRORS, summary="Is the process worth keeping?")
async def live(service: ServiceDep) -> Live:
    """503 when the engine has stopped, or stands still within a batch. Needs no key."""
    if not service.scheduler.alive:
        raise NotReadyError("the engine has stopped; restart the service, its log tells why")
    return Live(live=True)


@router.get("/v2/health/ready", response_model=Ready, responses=ERRORS, summary="Does it take work?")
async def ready(service: ServiceDep) -> Ready:
    """503 while starting, when draining, and when the engine has stopped. Needs no key."""
    _check_ready(service)
    return Ready(ready=True)


@of_model(
    router,
    "GET",
    "/ready",
    response_model=ModelReady,
    responses=ERRORS,
    summary="Does the model take work?",
)
async def model_ready(service: ServiceDep) -> ModelReady:
    """As for the whole server."""
    _check_ready(service)
    return ModelReady(name=service.model.name, ready=True)


def _check_ready(service: Service) -> None:
    if service.admission.draining:
        raise DrainingError("the service is shutting down")
    check_engine(service)


@router.get("/v2", response_model=ServerMetadata, responses=ERRORS, summary="What this server is")
async def server_metadata(request: Request) -> ServerMetadata:
    """Name, version, and the protocol's extensions that it speaks. Of `model_repository` it has the index alone."""
    return ServerMetadata(name="dvt", version=request.app.version, extensions=_EXTENSIONS)


@router.post(
    "/v2/repository/index",
    response_model=list[IndexEntry],
    responses=ERRORS,
    summary="The models: one",
)
async def repository_index(request: Request, service: ServiceDep) -> list[IndexEntry]:
    """The bundle, and whether it is ready. With the body `{"ready": true}` it is left out where it is not."""
    with service.admission.body() as take:
        body = await read_body(request.stream(), request.headers.get("content-length"), _INDEX_LIMITS, take)
    asked = parse_json(body) if body else {}
    if not isinstance(asked, dict):
        raise BadJsonError('the JSON body must be an object: {"ready": true}, or nothing')
    try:
        _check_ready(service)
        state, reason = "READY", ""
    except (DrainingError, NotReadyError) as error:
        state, reason = "LOADING" if service.scheduler.warming else "UNAVAILABLE", error.detail
    if asked.get("ready") is True and state != "READY":
        return []
    return [IndexEntry(name=service.model.name, version=VERSION, state=state, reason=reason)]


@router.get("/v2/models/stats", response_model=StatisticsResponse, responses=ERRORS, summary="Statistics of all models")
@of_model(router, "GET", "/stats", response_model=StatisticsResponse, responses=ERRORS, summary="Statistics")
async def statistics(service: ServiceDep) -> StatisticsResponse:
    """Since the start, of `POST /classify` too. `compute_input` is decoding; a batch is of one stage."""
    metrics = service.metrics
    batches = metrics.batches
    return StatisticsResponse(
        model_stats=[
            ModelStatistics(
                name=service.model.name,
                version=VERSION,
                last_inference=round(metrics.last_inference_s * 1000),
                inference_count=metrics.images("compute").count,
                execution_count=sum(tally.count for tally in batches.values()),
                inference_stats=InferenceStatistics(
                    success=_duration(metrics.requests(is_success=True)),
                    fail=_duration(metrics.requests(is_success=False)),
                    queue=_duration(metrics.images("queue")),
                    compute_input=_duration(metrics.images("decode")),
                    compute_infer=_duration(metrics.images("compute")),
                    compute_output=_NEVER,
                ),
                batch_stats=[
                    BatchStatistics(
                        batch_size=images,
                        compute_input=_NEVER,
                        compute_infer=_duration(tally),
                        compute_output=_NEVER,
                    )
                    for images, tally in sorted(batches.items())
                ],
            )
        ]
    )


def _duration(tally: Tally) -> Duration:
    return Duration(count=tally.count, ns=round(tally.seconds * 1e9))


@of_model(router, "GET", "", response_model=ModelMetadata, responses=ERRORS, summary="The model's tensors")
async def model_metadata(service: ServiceDep) -> ModelMetadata:
    """A request has one of the inputs. `pixels` may be FP32 in 0..1 as well."""
    model = service.model
    return ModelMetadata(
        name=model.name,
        versions=[VERSION],
        platform=_platform(service),
        inputs=list(map(_metadata, inputs_of(model))),
        outputs=list(map(_metadata, outputs_of(model))),
    )


@of_model(
    router,
    "GET",
    "/config",
    response_model=ModelConfig,
    responses=ERRORS,
    summary="The configuration",
)
async def model_config(service: ServiceDep) -> ModelConfig:
    """`max_batch_size` is the most images of one request; the service batches by itself, across requests."""
    model = service.model
    return ModelConfig(
        name=model.name,
        platform=_platform(service),
        backend=model.backend,
        version_policy=VersionPolicy(latest={"num_versions": 1}),
        max_batch_size=largest_batch(service),
        input=[
            InputConfig(
                name=spec.name,
                data_type=_CONFIG_TYPES[spec.datatype],
                format="FORMAT_NCHW" if len(spec.dims) == 3 else "FORMAT_NONE",
                dims=list(spec.dims),
                optional=True,
            )
            for spec in inputs_of(model)
        ],
        output=[
            OutputConfig(
                name=spec.name,
                data_type=_CONFIG_TYPES[spec.datatype],
                dims=list(spec.dims),
                labels=list(model.config.labels) if spec.name == PROBABILITIES else [],
            )
            for spec in outputs_of(model)
        ],
    )


def _platform(service: Service) -> str:
    return f"dvt_{service.model.backend}"


def _metadata(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=spec.name, datatype=spec.datatype, shape=[-1, *spec.dims])
