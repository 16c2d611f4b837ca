"""The web application: Clever's two hosts and the control API on one port.

Does not belong here: anything about single paths (`api.py`, `control.py`).
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from roster_pipeline.sandbox import api, control
from roster_pipeline.sandbox.misbehaving import Misbehaving
from roster_pipeline.sandbox.state import Sandbox


def create_app(sandbox: Sandbox, *, gzip: bool = False) -> Starlette:
    """The application for `sandbox`. `gzip` compresses answers for clients that accept it, which is slower."""

    async def html(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return api.html_error(status, "Page not found" if status == 404 else "Something went wrong")

    middleware = [Middleware(GZipMiddleware, minimum_size=1000, compresslevel=1)] if gzip else []
    middleware.append(Middleware(Misbehaving, sandbox=sandbox))
    return Starlette(
        routes=[*api.routes(sandbox), *control.routes(sandbox)], middleware=middleware, exception_handlers={HTTPException: html}
    )
