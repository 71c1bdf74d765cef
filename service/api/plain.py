"""A route whose handler takes the request and gives the response, with nothing for FastAPI to do between."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import request_response


class PlainRoute(APIRoute):
    """For what is asked for most. Of such a route FastAPI makes the documentation alone: it would look for a body, and
    solve the dependencies, of a handler that has neither, at each request."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **described: Any) -> None:
        super().__init__(path, endpoint, **described)
        self.app = request_response(endpoint)
