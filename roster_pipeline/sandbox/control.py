"""The control API under `/_sandbox`: the methods of `Sandbox` and `Changes`, over HTTP with JSON bodies.

`GET /_sandbox/state` returns counts. `POST /_sandbox/<verb>` takes the arguments of the method of that name as a JSON object. If there are
several districts, a change needs `district` too. There is no authentication, because the server listens on loopback only.
Does not belong here: what the verbs do (`edits.py`, `changes.py`, `state.py`).
"""

import inspect
import json
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox.api import JSON, json_message
from roster_pipeline.sandbox.changes import Changes
from roster_pipeline.sandbox.district import encode
from roster_pipeline.sandbox.generate import generate_district
from roster_pipeline.sandbox.state import Sandbox

CHANGES = tuple(sorted(name for name, _ in inspect.getmembers(Changes, inspect.isfunction) if not name.startswith("_")))


def routes(sandbox: Sandbox) -> list[Route]:
    """The routes of the control API."""

    def add_district(seed: int, students: int, name: str | None = None, *, oddities: bool = True) -> dict[str, str]:
        return {"district": sandbox.add(generate_district(seed, students, name=name, oddities=oddities)).id}

    own: dict[str, Callable[..., object]] = {"misbehave": sandbox.misbehave, "behave": sandbox.behave, "add_district": add_district}

    async def state(_: Request) -> Response:
        return Response(encode(sandbox.counts()), media_type=JSON)

    async def verb(request: Request) -> Response:
        name = request.path_params["verb"]
        try:
            arguments = json.loads(await request.body() or b"{}")
            if name in own:
                method = own[name]
            elif name in CHANGES:
                method = getattr(sandbox.change(arguments.pop("district", None)), name)
            else:
                return json_message(404, f"There is no verb {name}. There are: {', '.join(sorted([*own, *CHANGES]))}.")
            inspect.signature(method).bind(**arguments)
            result = method(**arguments)
        except (UsageError, TypeError, ValueError, KeyError) as error:
            return json_message(400, str(error))
        return Response(encode({"result": result}), media_type=JSON)

    return [Route("/_sandbox/state", state), Route("/_sandbox/{verb}", verb, methods=["POST"])]
