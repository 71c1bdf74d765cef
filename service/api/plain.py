"""A route whose handler takes the request and gives the response, with nothing for the framework to do between."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class PlainRoute(APIRoute):
    """For what is asked for most. FastAPI would look for a body and solve dependencies of a handler that has none of
    either, at each request; of such a route it makes the documentation alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler
