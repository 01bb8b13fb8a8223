"""What each request to the API passes first: names in its path, its body within bounds, and whether anybody asks.

A name is one part of a path, percent-encoded, with the escapes that names have in JSON; so it may hold slashes and any
bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from starlette.responses import Response

from geartrain.web.api.content import BYTES, JSON
from geartrain.web.gate import note_refusal
from geartrain.web.problems import Problem
from geartrain.web.requests import header

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from geartrain.web.access import Identity
    from geartrain.web.face import Face

PREFIX: Final = "/api/v1"
MOST_JSON: Final = 1024 * 1024  # bytes of a body that is read as JSON at one go
MOST_VALUES: Final = 20_000  # in the body of a submission
MOST_KEYS: Final = 1000  # in any other
MOST_PARAMETERS: Final = 100
LOGIN: Final = ("POST", f"{PREFIX}/session")
_STRING: Final = re.compile(rb'"(?:[^"\\]+|\\.)*+"', re.DOTALL)
_WITH_BODY: Final = ("POST", "PUT", "PATCH", "DELETE")


class Entrance:
    """An ASGI middleware around the API. FastAPI reads bodies whole and without bounds, so that is done here."""

    def __init__(self, app: ASGIApp, face: Face) -> None:
        self._app = app
        self._face = face

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        scope["path"] = "/".join(map(_part, scope["raw_path"].split(b"/")))
        try:
            identity: Identity = scope["identity"]
            if not identity.roles and (scope["method"], scope["path"]) != LOGIN:
                identity.need("read")  # which tells what to do
            if scope["query_string"].count(b"&") >= MOST_PARAMETERS:
                raise Problem(422, "invalid", f"A query has {MOST_PARAMETERS} parameters at most")
            if scope["method"] in _WITH_BODY:
                body = await self._face.bodies.read(scope, receive)
                _check_size(body, scope)
                receive = _Whole(body, receive)
        except Problem as problem:
            note_refusal(self._face, problem, scope)
            await problem.response()(scope, receive, send)
        except ConnectionError:
            await Response(status_code=400)(scope, receive, send)  # to nobody
        else:
            await self._app(scope, receive, send)


def _check_size(body: bytes, scope: Scope) -> None:
    """Raises Problem for a body that takes too long to read as JSON, which is done at one go."""
    is_submission = scope["path"] == f"{PREFIX}/jobs"
    if is_submission and not is_json(scope):
        return  # it is a workload as it stands
    if len(body) > MOST_JSON:
        detail = f"A JSON body has {MOST_JSON} bytes at most: send a large workload as {BYTES}"
        raise Problem(413, "too-large", detail)
    most = MOST_VALUES if is_submission else MOST_KEYS
    if _has_more_values(body, most):
        raise Problem(413, "too-large", f"A JSON body has {most} values at most: send a large workload as {BYTES}")


def _has_more_values(body: bytes, most: int) -> bool:
    if _count_values(body) <= most:
        return False
    quotes = body.count(b'"') - body.count(rb"\"")
    return quotes > 4 * most or _count_values(_STRING.sub(b"", body)) > most


def _count_values(body: bytes) -> int:
    """About how many values there are, if no strings hold such characters."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def is_json(scope: Scope) -> bool:
    """Whether the body is said to be JSON."""
    return header(scope, b"content-type").partition(";")[0].strip().lower() == JSON


class _Whole:
    """Gives a body that is here, and then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _part(raw: bytes) -> str:
    """A part of a path, decoded, in which a slash is an escape."""
    return unquote_to_bytes(raw).decode("utf-8", "backslashreplace").replace("/", "\\x2f")
