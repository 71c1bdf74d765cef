"""What every request meets first: an id, the Host allow-list, its key; and last: headers, a count, a line in the log.

Plain ASGI, so that nothing here touches a body: a request without a key is refused before a byte of it is read.
"""

import re
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.access import QUIET, Access, AccessLog
from service.api.deps import Service
from service.api.handlers import REQUEST_ID, respond
from service.api.web import is_page
from service.errors import HostNotAllowedError, InternalError, ServiceError, UnauthorizedError
from service.in_hand import IN_HAND, InHand
from service.series import METHODS, OTHER_METHOD, UNMATCHED
from service.traces import TracedRequest

# As the protocol has them: encoded, the names in lower case.
_SECURITY_HEADERS = tuple(
    (name.lower().encode(), value.encode())
    for name, value in {
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }.items()
)

_OPEN_PATHS = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Gate:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._hosts = service.settings.hosts()
        self._access = AccessLog(service.log, service.settings.access_log, service.settings.slow_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service = self._service
        headers = _first_of_each(scope)
        started_s = service.clock()
        asked_id = headers.get("x-request-id", "")
        request_id = asked_id if _REQUEST_ID.fullmatch(asked_id) else service.randomness.name(8)
        traces = None if scope["path"].startswith(QUIET) else service.traces
        span = None if traces is None else traces.begin(headers)
        in_hand = InHand(request_id, images=None if span is None else [])
        IN_HAND.set(in_hand)
        scope[REQUEST_ID] = request_id
        scope["dvt.arrived_s"] = started_s
        status = 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = dict(message["headers"])
                message["headers"] = response = [
                    *message["headers"],
                    *(header for header in _SECURITY_HEADERS if header[0] not in own),
                    (b"x-request-id", request_id.encode()),
                ]
                if traces is not None and span is not None:
                    MutableHeaders(raw=response).update(traces.headers(span))
                if service.admission.draining:
                    response.append((b"connection", b"close"))
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await respond(service, refusal, scope)(scope, receive, finish)
            else:
                await self._app(scope, receive, finish)
        except Exception:
            # A bug of ours. Caught here rather than by the framework, so that this answer too has its headers.
            service.log.exception("bug")
            if status:
                raise  # Half an answer is on its way: the server can only cut the connection.
            detail = f"a bug in the service; its log has the cause under request_id {request_id}"
            await respond(service, InternalError(detail), scope)(scope, receive, finish)
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
            seconds = service.clock() - started_s
            service.metrics.request(method, route, status)
            if method == "POST" and (route.startswith("/classify") or route.endswith("/infer")):
                service.metrics.inference(seconds, status)
            self._access.tell(Access(request_id, method, route, status, seconds, in_hand.code))
            if traces is not None and span is not None:
                traces.end(
                    span,
                    TracedRequest(
                        request_id=request_id,
                        method=method,
                        route=route,
                        status=status,
                        code=in_hand.code,
                        arrived_s=started_s,
                        body_read_s=in_hand.body_read_s,
                        images=in_hand.images or (),
                    ),
                )

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> ServiceError | None:
        """Why this request may not come in; also notes the caller for the handlers."""
        service = self._service
        host = headers.get("host", "")
        if "*" not in self._hosts and _host_name(host) not in self._hosts:
            return HostNotAllowedError(
                f"the Host {host[:64]!r} is not one of {', '.join(self._hosts)}; add it to DVT_ALLOWED_HOSTS"
            )
        caller = service.keys.caller(headers.get("authorization"))
        scope["dvt.caller"] = caller
        path = scope["path"]
        is_open = path in _OPEN_PATHS or is_page(path) or (path == "/metrics" and service.settings.metrics_public)
        if service.keys.needs_key and caller is None and not is_open:
            return UnauthorizedError(
                "a key is needed: send `Authorization: Bearer KEY` with one that this service knows"
            )
        return None


def _first_of_each(scope: Scope) -> dict[str, str]:
    """A request's headers, their names in lower case; of one that comes twice, the first."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _host_name(host: str) -> str:
    """Without its port; `[::1]:8000` is ::1."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
