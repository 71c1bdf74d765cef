"""Every way the service says no: one class a cause, each with an HTTP status and a stable code.

The code is also the metric label (`dvt_refusals_total{code=...}`). `docs/errors.md` is made from this file
(`python -m service.errors > docs/errors.md`).

| status | code | cause |
|---|---|---|
| 400 | empty_body | a request without a body where one is needed |
| 400 | empty_image | an image of 0 bytes |
| 400 | missing_image | no image in the request |
| 400 | wrong_field | a multipart field that is not `image` |
| 400 | bad_multipart | a multipart body that cannot be taken apart |
| 400 | bad_json | a body that is not the JSON expected |
| 400 | bad_base64 | an image that is not base64 |
| 401 | unauthorized | no key, or one that is not known |
| 403 | forbidden | a key that may not do this |
| 403 | above_ceiling | a request dearer than the operator allows |
| 404 | not_found | no such path |
| 404 | unknown_result | a result that this key did not ask for, or that is too old |
| 405 | method_not_allowed | a path that does not know this method |
| 408 | body_timeout | a body that does not arrive in time |
| 409 | feedback_given | a label for a result that has one |
| 410 | state_gone | a result that cannot be refined (any more) |
| 412 | revision_changed | a budget that is another one by now (`If-Match`) |
| 413 | body_too_large | a request body over its limit |
| 413 | image_too_large | an image file over its limit |
| 413 | too_many_images | more images or parts than one request may hold |
| 413 | too_many_pixels | an image with more pixels than its limit |
| 415 | unsupported_image | bytes that are no image of a format that the service reads |
| 421 | host_not_allowed | a Host header that is not on the list |
| 422 | budget_not_met | a budget that nothing measured meets; `nearest` is what could be had |
| 422 | corrupt_image | an image that is truncated or damaged |
| 422 | invalid_parameter | a parameter that is unknown or outside its range |
| 422 | invalid_thresholds | thresholds of the wrong length or outside 0..1 |
| 422 | unknown_profile | a profile that the bundle does not have |
| 499 | client_closed | the client left before its answer (only counted, nobody reads it) |
| 500 | inference_failed | this image could not be computed |
| 500 | internal | a bug |
| 503 | draining | the service is shutting down |
| 503 | not_ready | the service is starting, or its engine has stopped |
| 503 | replicas_unreachable | a budget that cannot be changed for all replicas now |
| 503 | overloaded | no room for more work now |
| 504 | deadline_exceeded | `deadline_ms` passed before any exit |
"""

import sys
from collections.abc import Iterator, Mapping
from typing import ClassVar


class ServiceError(Exception):
    """A refusal or a failure that the caller is told about; `detail` names the value, the limit and the way out.

    `more`: what stands in the document beside the usual.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self, detail: str, *, headers: Mapping[str, str] | None = None, more: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.more = more or {}


class InternalError(ServiceError):
    """A bug in the service; the log has it under the request's id."""


class InferenceFailedError(ServiceError):
    """Computing this image failed, alone in its batch; others of the batch were answered."""

    code = "inference_failed"
    title = "Inference failed"


class EmptyBodyError(ServiceError):
    """A request without a body where one is needed."""

    status = 400
    code = "empty_body"
    title = "Empty body"


class EmptyImageError(ServiceError):
    """An image of 0 bytes."""

    status = 400
    code = "empty_image"
    title = "Empty image"


class MissingImageError(ServiceError):
    """No image in the request."""

    status = 400
    code = "missing_image"
    title = "No image"


class WrongFieldError(ServiceError):
    """A multipart field that is not `image`."""

    status = 400
    code = "wrong_field"
    title = "Wrong field"


class BadMultipartError(ServiceError):
    """A multipart body that cannot be taken apart."""

    status = 400
    code = "bad_multipart"
    title = "Malformed multipart body"


class BadJsonError(ServiceError):
    """A body that is not the JSON expected."""

    status = 400
    code = "bad_json"
    title = "Malformed JSON"


class BadBase64Error(ServiceError):
    """An image in a JSON body that is not base64."""

    status = 400
    code = "bad_base64"
    title = "Malformed base64"


class UnauthorizedError(ServiceError):
    """No key, or one that is not known. Sends `WWW-Authenticate: Bearer`."""

    status = 401
    code = "unauthorized"
    title = "Key needed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="dvt"'})


class ForbiddenError(ServiceError):
    """A known key that may not do this."""

    status = 403
    code = "forbidden"
    title = "Admin key needed"


class AboveCeilingError(ServiceError):
    """A request that asks for more computation than the operator's ceiling allows."""

    status = 403
    code = "above_ceiling"
    title = "Above the ceiling"


class NotFoundError(ServiceError):
    """No such path."""

    status = 404
    code = "not_found"
    title = "Not found"


class UnknownResultError(ServiceError):
    """A result `id` that this key did not ask for, or that is too old (`DVT_FEEDBACK_RESULTS`)."""

    status = 404
    code = "unknown_result"
    title = "Unknown result"


class MethodNotAllowedError(ServiceError):
    """A path that does not know this method. Sends `Allow`."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class BodyTimeoutError(ServiceError):
    """A body that does not arrive in time (`DVT_BODY_SECONDS`)."""

    status = 408
    code = "body_timeout"
    title = "Body timeout"


class FeedbackGivenError(ServiceError):
    """A label for a result that has one already."""

    status = 409
    code = "feedback_given"
    title = "Feedback already given"


class StateGoneError(ServiceError):
    """A result that this key did not ask for here, or whose state is kept no longer (`DVT_REFINE_SECONDS`)."""

    status = 410
    code = "state_gone"
    title = "State gone"


class RevisionChangedError(ServiceError):
    """A budget that is another one by now than the request was made for (`If-Match`)."""

    status = 412
    code = "revision_changed"
    title = "Revision changed"


class BodyTooLargeError(ServiceError):
    """A request body over its limit (`DVT_MAX_BODY_BYTES`)."""

    status = 413
    code = "body_too_large"
    title = "Body too large"


class ImageTooLargeError(ServiceError):
    """An image file over its limit (`DVT_MAX_IMAGE_BYTES`)."""

    status = 413
    code = "image_too_large"
    title = "Image too large"


class TooManyImagesError(ServiceError):
    """More images or parts than one request may hold (`DVT_MAX_IMAGES`)."""

    status = 413
    code = "too_many_images"
    title = "Too many images"


class TooManyPixelsError(ServiceError):
    """An image with more pixels than its limit (`DVT_MAX_IMAGE_PX`), read from its header."""

    status = 413
    code = "too_many_pixels"
    title = "Too many pixels"


class UnsupportedImageError(ServiceError):
    """Bytes that are no image of a format, or with pixels of a kind, that the service reads."""

    status = 415
    code = "unsupported_image"
    title = "Unsupported image"


class HostNotAllowedError(ServiceError):
    """A Host header that is not on the list (`DVT_ALLOWED_HOSTS`)."""

    status = 421
    code = "host_not_allowed"
    title = "Host not allowed"


class CorruptImageError(ServiceError):
    """An image that is truncated or damaged."""

    status = 422
    code = "corrupt_image"
    title = "Corrupt image"


class InvalidParameterError(ServiceError):
    """A parameter that is unknown, outside its range, or at odds with another."""

    status = 422
    code = "invalid_parameter"
    title = "Invalid parameter"


class InvalidThresholdsError(ServiceError):
    """Thresholds of the wrong length or outside 0..1."""

    status = 422
    code = "invalid_thresholds"
    title = "Invalid thresholds"


class UnknownProfileError(ServiceError):
    """A profile that the bundle does not have."""

    status = 422
    code = "unknown_profile"
    title = "Unknown profile"


class BudgetNotMetError(ServiceError):
    """A budget that nothing measured meets; `nearest` in the document is what could be had, as it can be PUT."""

    status = 422
    code = "budget_not_met"
    title = "Budget not met"


class ClientClosedError(ServiceError):
    """The client left before its answer. Only counted: nobody reads the response."""

    status = 499
    code = "client_closed"
    title = "Client closed request"


class UnavailableError(ServiceError):
    """No room for more work now (429 would be for one key's own limit). Sends `Retry-After`."""

    status = 503
    code = "overloaded"
    title = "Overloaded"

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


class OverloadedError(UnavailableError):
    """No room for more work now. Sends `Retry-After`."""


class DrainingError(UnavailableError):
    """The service is shutting down; another replica, or this one restarted, will answer. Sends `Retry-After`."""

    code = "draining"
    title = "Shutting down"


class NotReadyError(UnavailableError):
    """The service is starting, or its engine has stopped. Sends `Retry-After`."""

    code = "not_ready"
    title = "Not ready"


class ReplicasUnreachableError(UnavailableError):
    """A budget that cannot be changed for all replicas now (`DVT_REDIS_URL`). Sends `Retry-After`."""

    code = "replicas_unreachable"
    title = "Replicas unreachable"


class DeadlineExceededError(ServiceError):
    """`deadline_ms` passed before any exit was reached."""

    status = 504
    code = "deadline_exceeded"
    title = "Deadline exceeded"


def kinds(base: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    """Every error that the service can answer with, in the order of this file."""
    for kind in base.__subclasses__():
        if kind is not UnavailableError:
            yield kind
        yield from kinds(kind)


def render_markdown() -> str:
    """docs/errors.md."""
    rows = sorted({(kind.status, kind.code, (kind.__doc__ or "").strip()) for kind in kinds()})
    lines = [
        "# Errors",
        "",
        "Made from `service/errors.py` by `python -m service.errors > docs/errors.md`.",
        "",
        "Every error is a problem document (RFC 9457, `application/problem+json`) with `type`, `title`, `status`,",
        "`detail`, `code` and `request_id`. `code` is stable: programs may rely on it, and",
        "`dvt_refusals_total{code=...}` counts by it. `detail` is for people: the value, the limit, the way out.",
        "",
        "| status | code | when |",
        "|---|---|---|",
    ]
    lines += [f"| {status} | `{code}` | {text} |" for status, code, text in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_markdown())
