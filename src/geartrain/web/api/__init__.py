"""The JSON API below ``/api/v1``, and its OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from geartrain.version import VERSION
from geartrain.web.api import events
from geartrain.web.gate import fault, note_refusal
from geartrain.web.health import Health
from geartrain.web.metrics import Metrics
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from geartrain.web.face import Face

PREFIX: Final = "/api/v1"


def make_api(face: Face) -> FastAPI:
    """The application for our own paths."""
    api = FastAPI(
        title="geartrain",
        version=VERSION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,
    )
    api.state.face = face
    api.include_router(events.router, prefix=PREFIX)
    api.routes.extend([*Health(face).routes(), *Metrics(face).routes()])
    api.add_exception_handler(Problem, _problem)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(Exception, _fault)
    return api


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    note_refusal(error, request.scope)
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
        {"where": ".".join(str(part) for part in one["loc"]), "what": one["msg"], "value": repr(one.get("input"))[:200]}
        for one in error.errors()[:20]
    ]
    first = errors[0]
    detail = f"{first['where']}: {first['what']} (it is {first['value']})"
    return Problem(422, "invalid", detail, errors=errors).response()


async def _fault(request: Request, error: Exception) -> Response:
    return fault().response()  # the gate logs it
