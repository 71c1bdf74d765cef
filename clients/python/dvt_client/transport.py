"""What the two clients share beyond the calls themselves: how httpx is set up, and what its errors mean."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from dvt_client.calls import Call, Reply, error_of
from dvt_client.errors import ClientError, UnreachableError
from dvt_client.retry import DEFAULT, Attempts, Retry
from dvt_client.version import __version__

CONNECT_S = 5.0
# Never sent, so that sending it again changes nothing.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# May have arrived: the connection broke off before an answer came.
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_COME_AGAIN = (429, 503)


@dataclass(frozen=True)
class Setup:
    """Of a client. `key` is a secret, so it is not shown; `timeout_s` is the longest silence of the server."""

    url: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    retry: Retry = DEFAULT

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except (httpx.InvalidURL, TypeError) as error:
            raise ValueError(f"{self.url!r} is no address: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"{self.url!r} is no address of a server; write it as http://127.0.0.1:8000")
        if url.userinfo:
            raise ValueError("an address with a user and a password in it is not used; give the key apart from it")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip()):
            raise ValueError("the key must be printable ASCII")

    def httpx_options(self) -> dict[str, Any]:
        headers = {"User-Agent": f"dvt-client/{__version__}"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key.strip()}"
        timeout = httpx.Timeout(self.timeout_s, connect=min(CONNECT_S, self.timeout_s))
        return {"base_url": self.url, "headers": headers, "timeout": timeout}

    def attempts(self, call: Call[Any]) -> Attempts:
        return Attempts(self.retry, clock=time.monotonic, random=random.random, within_s=call.within_s)

    def broken(self, error: httpx.HTTPError | httpx.InvalidURL | httpx.StreamError) -> UnreachableError:
        """What an error of httpx means to who called."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return UnreachableError(f"nothing answers at {self.url} ({_reason(error)})")
        if isinstance(error, httpx.TimeoutException):
            return UnreachableError(f"{self.url} has not answered for {self.timeout_s:g} s")
        return UnreachableError(f"the connection to {self.url} broke off ({_reason(error)})")


def request_options(call: Call[Any]) -> dict[str, Any]:
    """Arguments of httpx's `build_request`."""
    body: Mapping[str, Any] = {"content": call.content} if call.files is None else {"files": call.files}
    return {
        "method": call.method,
        "url": call.path,
        "params": call.parameters or None,
        "headers": dict(call.headers),
        **body,
    }


def may_repeat(call: Call[Any], error: Exception) -> bool:
    """Whether to send it again is safe after this error of httpx."""
    return isinstance(error, _UNSENT) or (call.is_safe and isinstance(error, _BROKEN))


def is_answer(call: Call[Any], status: int) -> bool:
    """Whether the call has an answer for this status. A redirect is none: a key is not carried elsewhere."""
    return status < 300 or status in call.accepts


def refusal(response: httpx.Response) -> tuple[ClientError, bool]:
    """The error of a read response, and whether to try again makes sense."""
    if response.status_code < 400:
        where = response.headers.get("location", "elsewhere")
        return UnreachableError(f"{response.url} redirects to {where}; give that address if you trust it"), False
    return error_of(reply_of(response)), response.status_code in _COME_AGAIN


def reply_of(response: httpx.Response) -> Reply:
    return Reply(response.status_code, response.headers, response.content)


def ended_early(events: int) -> UnreachableError:
    return UnreachableError(f"the stream of events ended after {events} of them, before `done`")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
