"""``/api/v1/server``: the job server itself."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from geartrain.jobserver import snapshot
from geartrain.version import VERSION
from geartrain.web.api.asking import Done, Operator, Reader, face_of, look_now, now, order, problems

router: Final = APIRouter(tags=["server"])


class Counts(BaseModel):
    """How many there are."""

    queued: int = Field(description="Jobs that wait for a worker")
    blocked: int = Field(description="Jobs that a limit on keys keeps back")
    delayed: int
    running: int
    dead: int = Field(description="Dead letters")
    functions: int
    connections: int
    workers: int = Field(description="Connections that can do something")
    busy: int = Field(description="Workers that run a job")
    idle: int = Field(description="Workers that sleep")


class StoreState(BaseModel):
    """How it stands with the store."""

    durable: bool = Field(description="Whether jobs outlast a restart")
    trouble: str = Field(description="Why it takes nothing at the moment; empty: it does")


class Server(BaseModel):
    """The job server."""

    version: str
    pid: int
    addresses: list[str] = Field(description="Where it speaks Gearman")
    started: float
    uptime: float
    draining: bool
    fleet: str | None = Field(description="The fleet whose member it is (`GET /fleet`); null: none")
    store: StoreState
    memory: int = Field(description="Bytes that count against --max-memory")
    max_memory: int = Field(description="0: no limit")
    counts: Counts


@router.get("/server", operation_id="show_server", summary="Show the job server", response_model=Server)
async def show_server(request: Request, _: Reader) -> Server:
    """Its version, its store, and how much there is of everything."""
    face = face_of(request)
    look_now(face)
    server = face.server
    started: float = request.app.state.started
    totals = snapshot.totals(server)
    return Server(
        version=VERSION,
        pid=server.settings.process_id,
        addresses=face.host.addresses,
        started=started,
        uptime=max(now() - started, 0),
        draining=server.draining,
        fleet=None if face.host.fleet is None else face.host.fleet.name,
        store=StoreState(durable=server.durable, trouble=server.store.trouble),
        memory=totals.memory,
        max_memory=int(server.max_memory),
        counts=Counts(**{name: getattr(totals, name) for name in Counts.model_fields}),
    )


@router.post(
    "/server/drain",
    operation_id="drain_server",
    summary="Drain the job server",
    response_model=Done,
    responses=problems(503),
)
async def drain_server(request: Request, _: Operator) -> Done:
    """As SIGUSR1: it takes no more connections and jobs, lets what runs end, and stops. 503: it does so already."""
    await order(request, "drain server", "", b"drain")
    return Done()
