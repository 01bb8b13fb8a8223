"""``/api/v1/workers`` and ``/api/v1/connections``: who is connected, and what they can do."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from geartrain.jobserver import snapshot
from geartrain.jobserver.snapshot import PeerView
from geartrain.web.api.asking import (
    MAX_PAGE,
    Done,
    Model,
    Operator,
    Reader,
    face_of,
    look_now,
    order,
    problems,
)
from geartrain.web.names import to_name, to_text
from geartrain.web.problems import Problem
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.web.face import Face

AT_ONCE: Final = 500  # connections that are looked at in one go
SHOWN: Final = 20  # functions and jobs of one worker
router: Final = APIRouter(tags=["connections"])


class Connection(BaseModel):
    """A connection: a worker's, a client's or an administrator's."""

    number: int = Field(description="By which it can be disconnected; no other will ever have it")
    id: str = Field(description="What it calls itself; `-`: it does not")
    host: str
    fd: int
    functions: list[str] = Field(description=f"What it can do, last registered first; {SHOWN} at most")
    function_count: int
    running: list[str] = Field(description=f"Handles of its jobs; {SHOWN} at most")
    sleeping: bool = Field(description="Whether it waits to be woken")
    since: float
    silent: float = Field(description="Seconds since it last sent something; a worker that sleeps or runs a job may be")
    jobs_done: int = Field(description="Jobs that it has run, well or not")


class ConnectionPage(BaseModel):
    """Some connections, oldest first."""

    connections: list[Connection]
    next: int | None = Field(description="`after` of the next page; null: there is none")


class ConnectionFilters(Model):
    """Which connections are meant."""

    after: int = Field(0, ge=0, lt=2**62, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class WorkerFilters(ConnectionFilters):
    """Which workers are meant."""

    function: str | None = Field(None, description="That can do this")


@router.get("/connections", operation_id="list_connections", summary="List connections", response_model=ConnectionPage)
async def list_connections(
    request: Request, _: Reader, filters: Annotated[ConnectionFilters, Query()]
) -> ConnectionPage:
    """All connections."""
    return await _page(face_of(request), filters, None, workers_only=False)


@router.get("/workers", operation_id="list_workers", summary="List workers", response_model=ConnectionPage)
async def list_workers(request: Request, _: Reader, filters: Annotated[WorkerFilters, Query()]) -> ConnectionPage:
    """Connections that can do something."""
    return await _page(face_of(request), filters, filters.function, workers_only=True)


@router.get(
    "/connections/{number}",
    operation_id="show_connection",
    summary="Show a connection",
    response_model=Connection,
    responses=problems(404),
)
async def show_connection(request: Request, number: Annotated[int, Path(ge=1, lt=2**62)], _: Reader) -> Connection:
    """One connection, by its number."""
    face = face_of(request)
    look_now(face)
    for view in snapshot.peer_page(face.server, number - 1, 1):
        if view.place == number:
            return _connection(face, view)
    raise Problem(404, "unknown-connection", f"There is no connection {number}: it has gone, or never was")


@router.delete(
    "/connections/{number}",
    operation_id="disconnect",
    summary="Close a connection",
    response_model=Done,
    responses=problems(404, 409),
)
async def disconnect(request: Request, number: Annotated[int, Path(ge=1, lt=2**62)], identity: Operator) -> Done:
    """Jobs that it ran are handed out again, as when a worker is lost; whoever is at its other end may come again."""
    face = face_of(request)
    for view in snapshot.peer_page(face.server, number - 1, 1):
        if view.place != number:
            break
        if view.fd < 0:
            raise Problem(409, "own-connection", f"Connection {number} is one within the job server itself")
        whom = (view.host.encode(), *view.shown_id.split())
        await order(
            request, "disconnect", f"{view.fd} {as_text(b' '.join(whom))}", b"disconnect", b"%d" % view.fd, *whom
        )
        return Done()
    face.audit.note(identity.name, identity.host, "disconnect", str(number), "unknown-connection")
    raise Problem(404, "unknown-connection", f"There is no connection {number}: it has gone, or never was")


async def _page(face: Face, filters: ConnectionFilters, function: str | None, *, workers_only: bool) -> ConnectionPage:
    look_now(face)
    name = None if function is None else to_name(function)
    at = filters.after
    found: list[Connection] = []
    while page := snapshot.peer_page(face.server, at, AT_ONCE):
        for view in page:
            at = view.place
            if (workers_only and not view.ability_count) or (name is not None and not view.can_do(name)):
                continue
            found.append(_connection(face, view))
            if len(found) == filters.limit:
                return ConnectionPage(connections=found, next=at)
        await asyncio.sleep(0)
    return ConnectionPage(connections=found, next=None)


def _connection(face: Face, view: PeerView) -> Connection:
    server = face.server
    return Connection(
        number=view.place,
        id=as_text(view.shown_id),
        host=view.host,
        fd=view.fd,
        functions=[to_text(name) for name in islice(snapshot.abilities(server, view), SHOWN)],
        function_count=view.ability_count,
        running=[as_text(handle) for handle in islice(snapshot.running(server, view), SHOWN)],
        sleeping=view.sleeping,
        since=round(view.since + server.wall - server.now, 3),
        silent=round(max(server.now - view.heard_at, 0.0), 3),
        jobs_done=view.runs_ended,
    )
