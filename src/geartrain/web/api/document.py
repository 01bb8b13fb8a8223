"""The OpenAPI document: what FastAPI finds, with the problems and the ways in that it does not know of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from geartrain.web.api.asking import problems
from geartrain.web.overview import Overview
from geartrain.web.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from fastapi import FastAPI

DESCRIPTION: Final = """\
Submit jobs, and see and change everything that the text commands and the command line do.

Names (functions, uniques, workers) are text in UTF-8; any other byte is written `\\xNN`, and a backslash is doubled.
In a path a name is percent-encoded, so that it may hold slashes. Times are Unix times, durations are seconds.

Every error is a problem (RFC 9457, `application/problem+json`) whose `detail` says what to do.
"""
TAGS: Final = [
    {"name": "jobs", "description": "Jobs: submit, follow, change"},
    {"name": "functions", "description": "Functions, their limits and counters"},
    {"name": "live", "description": "How everything stands, told each second"},
    {"name": "history", "description": "What has happened over time"},
    {"name": "policies", "description": "Retries, time limits, limits and results, by function or pattern"},
    {"name": "connections", "description": "Workers, and all who are connected"},
    {"name": "schedules", "description": "Jobs made at set times"},
    {"name": "dead letters", "description": "Jobs that did not succeed, kept for somebody to look at"},
    {"name": "server", "description": "The job server itself"},
    {"name": "fleet", "description": "Job servers that take over from each other"},
    {"name": "audit", "description": "Who has done what"},
    {"name": "session", "description": "Sessions of browsers"},
]
_ALWAYS: Final = (401, 403, 422)
_PROBLEM: Final = {
    "title": "Problem",
    "description": "What was wrong, and what to do (RFC 9457)",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "The kind, as a part of the page on problems"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong with what, and what to do"},
    },
    "example": {
        "type": "/problems#unknown-job",
        "title": "Not Found",
        "status": 404,
        "detail": "No job H:here:7 is known: it has ended, or never was",
    },
}
_REFERENCE: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def complete(api: FastAPI) -> None:
    """Have ``api`` describe itself whole."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            _complete(plain())
        assert api.openapi_schema is not None
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    overview = Overview.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(overview.pop("$defs"), Overview=overview)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A token of the configuration"},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "geartrain_session",
            "description": "Of POST /api/v1/session; what changes something sends the header X-CSRF-Token too",
        },
    }
    document["security"] = [{"bearer": []}, {"session": []}, {}]
    for path in document["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            for status, told in problems(*_ALWAYS).items():
                responses[str(status)] = told
            responses["default"] = {"description": "Any other problem"}
            for status, response in responses.items():
                if status == "default" or int(status) >= 400:
                    response["content"] = _REFERENCE
