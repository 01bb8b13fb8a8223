"""Gearman over HTTP as gearmand speaks it (section 5 of the protocol): ``POST /FUNCTION`` submits the body.

Where gearmand's answers mislead, ours do not: a failed job is no 200, data and warnings do not spoil the answer, a name
may be percent-encoded, a connection may be used again. ``--http-gearmand`` brings back the statuses, the methods and
the raw names for callers that rely on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple
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
PROBLEM: Final = MEDIA_TYPE.encode()
SERVER: Final = b"Gearman/geartrain-" + VERSION.encode()
_BUSY: Final = (b"QUEUE_ERROR",)


class Answer(NamedTuple):
    """What is answered, however it is written."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


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
        name = self.function(scope["raw_path"], scope["query_string"])
        if not name:
            raise Problem(404, "no-function", "Name a function in the path: POST /FUNCTION")
        identity.need("submit", name)
        body = await face.bodies.read(scope, receive)
        unique, priority, background = self._asked(scope)
        traceparent = header(scope, b"traceparent")
        try:
            if background:
                handle = await face.submitting.submit(name, unique, body, priority=priority, traceparent=traceparent)
                await _send(send, _answer(200, handle, b"JOB_CREATED", b""), scope)
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
            await _send(send, self.refusal(error), scope)
            return
        except ConnectionError:  # nobody waits for the answer any more
            return
        await _send(send, self.answer(outcome), scope)

    def answer(self, outcome: Outcome) -> Answer:
        """What is answered to a foreground job of which this has come."""
        handle = outcome.handle
        if outcome.end == WORK_COMPLETE:
            return _answer(200, handle, b"WORK_COMPLETE", b"".join(outcome.data), outcome.warnings)
        if outcome.end == 0:
            seconds = self._face.config.http_timeout
            detail = f"The job has not ended within {seconds:g} s (--http-timeout): submit it with X-Gearman-Background"
            problem = Problem(504, "not-in-time", detail, handle=as_text(handle))
            return _answer(504, handle, b"", problem.body(), type=PROBLEM)
        if self._as_gearmand:
            return _answer(200, handle, b"WORK_FAIL", b"")
        command = b"WORK_EXCEPTION" if outcome.end == WORK_EXCEPTION else b"WORK_FAIL"
        detail = as_text(outcome.exception) or "The job has failed; its worker said nothing about it"
        problem = Problem(500, "job-failed", detail, handle=as_text(handle))
        return _answer(500, handle, command, problem.body(), outcome.warnings, PROBLEM)

    def refusal(self, error: RefusedError) -> Answer:
        """What is answered to a submission that the job server has refused."""
        if self._as_gearmand:
            return _answer(200, error.code, b"ERROR", b"")
        status = 503 if error.code in _BUSY else 400
        problem = Problem(status, error.code.decode().replace("_", "-").lower(), as_text(error.text))
        return _answer(status, b"", b"ERROR", problem.body(), type=PROBLEM)

    def function(self, path: bytes, query: bytes = b"") -> bytes:
        """The function that a request to this path, as it was written, submits to; empty: none."""
        prefix = PREFIX.encode()
        if path.startswith(prefix):
            path = path[len(prefix) :]
        path = path.lstrip(b"/")
        if not self._as_gearmand:
            return unquote_to_bytes(path)
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


def _answer(
    status: int,
    handle: bytes,
    command: bytes,
    body: bytes,
    warnings: list[bytes] | None = None,
    type: bytes = b"application/octet-stream",
) -> Answer:
    headers = [
        (b"content-length", b"%d" % len(body)),
        (b"content-type", type),
        (b"server", SERVER),
        (b"x-content-type-options", b"nosniff"),
    ]
    if handle:
        headers.append((b"x-gearman-job-handle", handle))
    if command:
        headers.append((b"x-gearman-command", command))
    if warnings:
        headers.append((b"x-gearman-warnings", b"%d" % len(warnings)))
    return Answer(status, headers, body)


async def _send(send: Send, answer: Answer, scope: Scope) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
