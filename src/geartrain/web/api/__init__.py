"""The JSON API below ``/api/v1``, and its OpenAPI document."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from geartrain.errors import LocalProtocolError
from geartrain.version import VERSION
from geartrain.web import problem_pages
from geartrain.web.api import (
    audit,
    configuration,
    connections,
    dead,
    events,
    fleet,
    functions,
    history,
    jobs,
    live,
    many_jobs,
    policies,
    schedules,
    server,
    session,
    submission,
)
from geartrain.web.api.asking import face_of
from geartrain.web.api.document import DESCRIPTION, TAGS, complete
from geartrain.web.api.entrance import PREFIX, Entrance
from geartrain.web.gate import fault, note_refusal
from geartrain.web.health import Health
from geartrain.web.metrics import Metrics
from geartrain.web.pages import Pages
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from geartrain.web.face import Face

_PARTS: Final = (
    submission, jobs, many_jobs, events, functions, live, history, policies, connections, schedules, dead, server,
    configuration, fleet, audit, session,
)  # fmt: skip


def make_api(face: Face) -> FastAPI:
    """The application for our own paths."""
    api = describe()
    api.state.face = face
    api.state.started = time.time()
    api.add_middleware(Entrance, face=face)
    api.routes.extend([*Health(face.server).routes(), *Metrics(face).routes(), *problem_pages.routes()])
    api.routes.extend(Pages().routes())
    api.add_exception_handler(Problem, _problem)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(LocalProtocolError, _not_to_be_told)
    api.add_exception_handler(ConnectionError, _gone)
    api.add_exception_handler(Exception, _fault)
    prepare(api)
    return api


def prepare(api: FastAPI) -> None:
    """Have made what FastAPI makes at the first request to a path, since nobody may wait for it then."""
    api.middleware_stack = api.build_middleware_stack()
    nowhere = {"type": "http", "method": "GET", "path": f"{PREFIX}/", "root_path": "", "headers": []}
    for route in api.router.routes:
        route.matches(nowhere)


def describe() -> FastAPI:
    """The API without a job server, which can be asked for its ``openapi()``."""
    api = FastAPI(
        title="geartrain",
        version=VERSION,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,
    )
    for part in _PARTS:
        api.include_router(part.router, prefix=PREFIX)
    complete(api)
    return api


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    note_refusal(face_of(request), error, request.scope)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    if error.status_code == 404:
        detail = f"There is nothing at {path}: {PREFIX}/openapi.json lists what there is"
        return Problem(404, "no-such-path", detail).response()
    headers = dict(error.headers or {})
    if error.status_code == 405:
        return Problem(405, "method-not-allowed", f"{path} does not take {method}", headers=headers).response()
    return Problem(error.status_code, "refused", str(error.detail), headers=headers).response()


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            "where": ".".join(str(part) for part in one["loc"]),
            "what": one["msg"].removeprefix("Value error, "),
            "value": repr(one.get("input"))[:200],
        }
        for one in error.errors()[:20]
    ]
    first = errors[0]
    detail = f"{first['where']}: {first['what']} (it is {first['value']})"
    return Problem(422, "invalid", detail, errors=errors).response()


async def _not_to_be_told(request: Request, error: Exception) -> Response:
    return Problem(422, "invalid", str(error)).response()


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # to nobody


async def _fault(request: Request, error: Exception) -> Response:
    return fault().response()  # the gate logs it
