"""``GET /api/v1/jobs/{handle}/events``: what happens to a job, told as Server-Sent Events while it happens."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from geartrain.jobserver import watching
from geartrain.web.api.asking import problems, unknown_here
from geartrain.web.events import GAP, Reader, Told, TooManyError
from geartrain.web.names import to_name
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Message, Receive, Scope, Send

    from geartrain.web.face import Face

BEGIN: Final = b"retry: 1000\n\n"  # milliseconds after which a browser comes back
STILL_HERE: Final = b": nothing new\n\n"
QUIET: Final = 15.0  # seconds after which it is said that the stream still stands
WRITE_SECONDS: Final = 60.0  # that a reader may leave a block unread

router: Final = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{handle}/events",
    operation_id="follow_job",
    summary="Follow a job",
    response_class=Response,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events as they come"},
        204: {"description": "The last event has been read"},
        **problems(404, 409, 503),
    },
)
async def follow_job(
    request: Request,
    handle: str,
    last_event_id: Annotated[
        str, Query(max_length=100, description="Only what comes behind the event with this id")
    ] = "",
) -> Response:
    """Data, warnings, status, attempts and the end of a job, one event each; `Last-Event-ID` is heeded too.

    The stream ends with the last event: `completed`, `failed`, `cancelled`, `dead`, `dropped`, `abandoned`, `refused`
    or `moved`, if the job goes on at another job server of the fleet, where it can be followed. What is no longer there
    to be read is told as an event `gap`.
    """
    request.scope["identity"].need("read")
    face: Face = request.app.state.face
    number = int(face.server.handles.number(to_name(handle)))
    face.host.open_iteration()
    try:
        reader = face.events.open(number, request.headers.get("last-event-id", last_event_id)) if number > 0 else None
    except TooManyError:
        detail = "As many jobs are followed as the job server allows: try again, or ask for the job's state instead"
        raise Problem(503, "too-many-streams", detail, headers={"Retry-After": "5"}) from None
    if reader is None:
        raise await unknown_here(request, handle)
    if reader.is_over:
        reader.close()
        return Response(status_code=204)
    return EventStream(reader)


class EventStream(StreamingResponse):
    """The events of a reader, until the last one or until the client goes."""

    def __init__(self, reader: Reader) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_blocks(reader), headers=headers, media_type="text/event-stream")
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(WRITE_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            scope["geartrain.protocol"].transport.abort()
        finally:
            self._reader.close()


async def _blocks(reader: Reader) -> AsyncIterator[bytes]:
    yield BEGIN
    while not reader.is_over:
        blocks = reader.take(_written)
        if blocks is not None:
            yield blocks
        elif not await reader.wait(QUIET):
            yield STILL_HERE


def _written(told: list[Told]) -> bytes:
    return b"".join(map(_block, told))


def _block(told: Told) -> bytes:
    """An event as it is written."""
    data = json.dumps(_members(told), ensure_ascii=False)
    return f"id: {told.id}\nevent: {told.event.decode()}\ndata: {data}\n\n".encode()


def _members(told: Told) -> dict[str, Any]:
    data = told.data
    if told.event == GAP:
        return {"missed": None if told.size < 0 else told.size}
    if told.event == watching.ASSIGNED:
        return {"attempt": int(data)}
    if told.event == watching.STATUS:
        numerator, _, denominator = data.partition(b"/")
        return {"numerator": int(numerator), "denominator": int(denominator)}
    if told.event == watching.RETRY:
        return {"reason": data.decode()}
    if told.size > len(data):
        return {"left_out": told.size}
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
