"""``GET /api/v1/live``: how the job server is, told each second as Server-Sent Events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from geartrain.web.api.asking import Reader, face_of, problems
from geartrain.web.live import Live, TooManyError
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

router: Final = APIRouter(tags=["live"])
_EVENTS: Final = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {"$ref": "#/components/schemas/Overview"},
}


@router.get(
    "/live",
    operation_id="follow_overview",
    summary="Follow how the job server is",
    response_class=Response,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": _EVENTS}},
            "description": "An event `overview` each second, whose data is JSON: an `Overview`",
        },
        **problems(503),
    },
)
async def follow_overview(request: Request, _: Reader) -> Response:
    """One event `overview` at once, and then one each second; the stream does not end by itself."""
    return _Stream(face_of(request).live)


class _Stream(Response):
    """The answer, whose pieces are sent by ``Live``."""

    def __init__(self, live: Live) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers, media_type="text/event-stream")
        self._live = live
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protocol = scope["geartrain.protocol"]
        try:
            stream = self._live.enter(protocol)
        except TooManyError:
            detail = "As many live streams are open as the job server allows: close a tab, or ask for /api/v1/server"
            raise Problem(503, "too-many-streams", detail, headers={"Retry-After": "5"}) from None
        protocol.on_lost(stream.end)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._live.beginning, "more_body": True})
            stream.has_begun = True
            await stream.ended
        finally:
            protocol.on_lost(_nothing)
            self._live.leave(stream)
        await send({"type": "http.response.body", "body": b""})


def _nothing() -> None:
    pass
