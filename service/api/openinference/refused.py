"""Calls that Open Inference clients know and this service has no use for: each says why, and what to do instead."""

from fastapi import APIRouter
from fastapi.responses import Response

from service.api.openinference.paths import TAG
from service.errors import NotOfferedError

router = APIRouter(tags=[TAG], include_in_schema=False)

_WHY = {
    "one bundle is served, chosen when the service starts (dvt serve BUNDLE): none is loaded or unloaded later": (
        ("POST", "/v2/repository/models/{model}/load"),
        ("POST", "/v2/repository/models/{model}/unload"),
    ),
    "shared memory is not offered; send tensors as binary data, which is copied once": tuple(
        (method, f"/v2/{kind}sharedmemory/{path}")
        for kind in ("system", "cuda")
        for method, path in (
            ("GET", "status"),
            ("GET", "region/{region}/status"),
            ("POST", "region/{region}/register"),
            ("POST", "region/{region}/unregister"),
            ("POST", "unregister"),
        )
    ),
    "there are no traces; every answer of /classify has its own timings, and /metrics those of all": tuple(
        (method, path)
        for method in ("GET", "POST")
        for path in ("/v2/trace/setting", "/v2/models/{model}/trace/setting")
    ),
    "logging is set when the service starts (DVT_LOG_LEVEL, DVT_LOG_FORMAT)": (
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
    ),
}


def _add(method: str, path: str, why: str) -> None:
    @router.api_route(path, methods=[method])
    async def refuse() -> Response:
        raise NotOfferedError(why)


for _reason, _calls in _WHY.items():
    for _method, _path in _calls:
        _add(_method, _path, _reason)
