"""Gearman over HTTP as gearmand speaks it (section 5 of the protocol): ``POST /FUNCTION`` submits the body.

Where gearmand's answers mislead, ours do not: a failed job is no 200, data and warnings do not spoil the answer, a name
may be percent-encoded, a connection may be used again. ``--http-gearmand`` brings back the statuses, the methods and
the raw names for callers that rely on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from geartrain.version import VERSION
from geartrain.web.problems import MEDIA_TYPE, Problem
from geartrain.web.requests import header
from geartrain.web.submitting import Outcome, RefusedError
from geartrain.wire.packets import WORK_COMPLETE, WORK_EXCEPTION
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from geartrain.web.access import Identity
    from geartrain.web.face import Face
    from geartrain.web.protocol import Protocol

PREFIX: Final = "/gearman/"
_SERVER: Final = b"Gearman/geartrain-" + VERSION.encode()
_BUSY: Final = (b"QUEUE_ERROR",)


class Dialect:
    """The ASGI application for all that is no path of ours, and for paths below ``/gearman/``."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._as_gearmand = face.config.http_gearmand
        self._methods = ("POST", "PUT", "GET", "HEAD") if self._as_gearmand else ("POST", "PUT")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        face = self._face
        identity: Identity = scope["identity"]
        method = scope["method"]
        if method not in self._methods:
            raise Problem(
                405,
                "method-not-allowed",
                f"{method} submits no job: send the workload with POST /FUNCTION",
                headers={"Allow": ", ".join(self._methods)},
            )
        name = self._function(scope)
        if not name:
            raise Problem(404, "no-function", "Name a function in the path: POST /FUNCTION")
        identity.need("submit", name)
        body = await face.bodies.read(scope, receive)
        unique, priority, background = self._asked(scope)
        traceparent = header(scope, b"traceparent")
        try:
            if background:
                handle = await face.submitting.submit(name, unique, body, priority=priority, traceparent=traceparent)
                await _answer(send, 200, handle, b"JOB_CREATED", b"", scope)
                return
            outcome = await face.submitting.run(
                name,
                unique,
                body,
                priority=priority,
                timeout=face.config.http_timeout,
                on_begin=_on_lost(scope),
                traceparent=traceparent,
            )
        except RefusedError as error:
            await self._refuse(send, error, scope)
            return
        except ConnectionError:  # nobody waits for the answer any more
            return
        await self._tell(send, outcome, scope)

    async def _tell(self, send: Send, outcome: Outcome, scope: Scope) -> None:
        body = b"".join(outcome.data)
        if outcome.end == WORK_COMPLETE:
            await _answer(send, 200, outcome.handle, b"WORK_COMPLETE", body, scope, outcome.warnings)
        elif outcome.end == 0:
            seconds = self._face.config.http_timeout
            detail = f"The job has not ended within {seconds:g} s (--http-timeout): submit it with X-Gearman-Background"
            problem = Problem(504, "not-in-time", detail, handle=as_text(outcome.handle))
            await _answer(send, 504, outcome.handle, b"", problem.body(), scope, type=MEDIA_TYPE.encode())
        else:
            command = b"WORK_EXCEPTION" if outcome.end == WORK_EXCEPTION else b"WORK_FAIL"
            if self._as_gearmand:
                await _answer(send, 200, outcome.handle, b"WORK_FAIL", b"", scope)
                return
            detail = as_text(outcome.exception) or "The job has failed; its worker said nothing about it"
            problem = Problem(500, "job-failed", detail, handle=as_text(outcome.handle))
            await _answer(
                send, 500, outcome.handle, command, problem.body(), scope, outcome.warnings, MEDIA_TYPE.encode()
            )

    async def _refuse(self, send: Send, error: RefusedError, scope: Scope) -> None:
        if self._as_gearmand:
            await _answer(send, 200, error.code, b"ERROR", b"", scope)
            return
        status = 503 if error.code in _BUSY else 400
        problem = Problem(status, error.code.decode().replace("_", "-").lower(), as_text(error.text))
        await _answer(send, status, b"", b"ERROR", problem.body(), scope, type=MEDIA_TYPE.encode())

    def _function(self, scope: Scope) -> bytes:
        path: bytes = scope["raw_path"]
        prefix = PREFIX.encode()
        if path.startswith(prefix):
            path = path[len(prefix) :]
        path = path.lstrip(b"/")
        if not self._as_gearmand:
            return unquote_to_bytes(path)
        query: bytes = scope["query_string"]
        return path + b"?" + query if query else path

    def _asked(self, scope: Scope) -> tuple[bytes, str, bool]:
        """The unique, the priority, and whether it is a background job."""
        unique = b"-"  # gearmand's: equal workloads are one job while it lives
        priority = "normal"
        background = False
        for key, value in scope["headers"]:
            if key == b"x-gearman-unique":
                unique = value.strip()
            elif key == b"x-gearman-background":
                background = value.strip().lower() == b"true"
            elif key == b"x-gearman-priority":
                priority = value.strip().lower().decode("latin-1")
                if priority not in ("high", "normal", "low"):
                    if not self._as_gearmand:
                        raise Problem(400, "bad-priority", f"X-Gearman-Priority is {priority!r}: write high or low")
                    priority = "normal"
        return unique, priority, background


def _on_lost(scope: Scope) -> Callable[[Callable[[], None]], None]:
    protocol: Protocol = scope["geartrain.protocol"]
    return protocol.on_lost


async def _answer(
    send: Send,
    status: int,
    handle: bytes,
    command: bytes,
    body: bytes,
    scope: Scope,
    warnings: list[bytes] | None = None,
    type: bytes = b"application/octet-stream",
) -> None:
    headers = [
        (b"content-length", b"%d" % len(body)),
        (b"content-type", type),
        (b"server", _SERVER),
        (b"x-content-type-options", b"nosniff"),
    ]
    if handle:
        headers.append((b"x-gearman-job-handle", handle))
    if command:
        headers.append((b"x-gearman-command", command))
    if warnings:
        headers.append((b"x-gearman-warnings", b"%d" % len(warnings)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
