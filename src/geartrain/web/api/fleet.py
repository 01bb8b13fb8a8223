"""``/api/v1/fleet``: the job servers that share one database, as this one of them sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from geartrain.client import fleet as client
from geartrain.daemon.fleet_view import leader_of, shown_members
from geartrain.web.api.asking import (
    Done,
    Model,
    Operator,
    Reader,
    ask,
    face_of,
    moment,
    order,
    problems,
    unreadable,
)
from geartrain.web.names import to_text
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from geartrain.daemon.fleet_view import FleetView

router: Final = APIRouter(prefix="/fleet", tags=["fleet"])
MemberId = Annotated[int, Path(ge=1, lt=2**62, description="The member's id")]


class FleetMember(BaseModel):
    """A job server of the fleet, from one start, or return, to its end."""

    id: int
    address: str = Field(description="Where the others reach it", examples=["10.0.0.7:4730"])
    state: str = Field(description="live, left, dead or gone; of the one that was asked also lapsed or forsaking")
    lease: float | None = Field(description="Seconds for which it counts as alive; below 0: over; null: it has ended")
    draining: bool = Field(description="Whether it gives its jobs away")
    joined: float = Field(description="By the database's clock, as all times here")
    ended: float | None
    jobs_adopted: int = Field(description="How many of its jobs others have taken over")
    version: str


class Fleet(BaseModel):
    """The fleet as one member sees it."""

    name: str
    me: int = Field(description="The id of the job server that was asked; 0: it has none at the moment")
    state: str = Field(description="Its state: joining, live, lapsed, forsaking or left")
    leader: int = Field(description="The member that makes the runs of schedules; 0: there is none")
    members: list[FleetMember] = Field(description="Those that have not gone, the oldest first")
    adopted_jobs: int = Field(description="Jobs of others that it has taken over since it started")
    moved_jobs: int = Field(description="Jobs that it has sent to others since")
    fenced: int = Field(description="How often the others have taken it for dead since")


class Adoption(BaseModel):
    """Jobs that one member has taken over of another."""

    estate: int = Field(description="Of whom; 0: they were there before the fleet was")
    heir: int = Field(description="By whom")
    jobs: int
    first: float
    last: float


class FleetHistory(BaseModel):
    """What the database remembers, the newest first."""

    members: list[FleetMember]
    adoptions: list[Adoption]


class FunctionSum(BaseModel):
    """A function in the whole fleet."""

    name: str
    queued: int = Field(description="Jobs that wait")
    running: int
    total: int
    workers: int


class FunctionSums(BaseModel):
    """All functions, by name."""

    functions: list[FunctionSum]


class Drain(Model):
    """Whether a member is to give its jobs away."""

    on: bool = True


def _fleet(request: Request) -> FleetView:
    fleet = face_of(request).host.fleet
    if fleet is None:
        raise Problem(404, "no-fleet", "This job server is no member of a fleet: it was started without --fleet")
    return fleet


def _member(each: Any, *, draining: bool) -> FleetMember:
    """One as ``daemon.fleet_view`` and ``client.fleet`` have it."""
    return FleetMember(
        id=each.id,
        address=each.address,
        state=each.state,
        lease=None if each.ended else round(each.lease, 1),
        draining=draining,
        joined=round(each.joined, 3),
        ended=moment(each.ended or 0.0),
        jobs_adopted=each.jobs_adopted,
        version=each.version,
    )


@router.get("", operation_id="show_fleet", summary="Show the fleet", response_model=Fleet, responses=problems(404))
async def show_fleet(request: Request, _: Reader) -> Fleet:
    """Its members, and how this one of them is; as it was found half a second ago, or when the database was there."""
    fleet = _fleet(request)
    return Fleet(
        name=fleet.name,
        me=fleet.me,
        state=fleet.state,
        leader=leader_of(fleet.members),
        members=[_member(each, draining=each.draining) for each in shown_members(fleet)],
        adopted_jobs=fleet.adopted_jobs,
        moved_jobs=fleet.moved_away,
        fenced=fleet.fenced,
    )


@router.get(
    "/history",
    operation_id="show_fleet_history",
    summary="Show who has taken over what",
    response_model=FleetHistory,
    responses=problems(404, 409),
)
async def show_fleet_history(request: Request, _: Reader) -> FleetHistory:
    """The latest members, those that have gone as well, and the latest adoptions."""
    _fleet(request)
    command = await ask(request, b"fleet", b"history", form="listing")
    try:
        history = client.FleetHistory.read(command.lines())
    except ValueError:
        raise unreadable(command) from None
    return FleetHistory(
        members=[_member(each, draining=each.is_draining) for each in history.members],
        adoptions=[
            Adoption(estate=each.estate, heir=each.heir, jobs=each.jobs, first=each.first, last=each.last)
            for each in history.adoptions
        ],
    )


@router.get(
    "/functions",
    operation_id="sum_functions",
    summary="List the functions of the whole fleet",
    response_model=FunctionSums,
    responses=problems(404, 503),
)
async def sum_functions(request: Request, _: Reader) -> FunctionSums:
    """The jobs and workers of all members together. 503: a live member did not answer."""
    _fleet(request)
    command = await ask(request, b"fleet", b"functions", form="listing")
    found = []
    for line in command.lines():
        name, *numbers = line.rsplit(b"\t", 3)
        total, running, workers = map(int, numbers)
        queued = max(total - running, 0)
        found.append(FunctionSum(name=to_text(name), queued=queued, running=running, total=total, workers=workers))
    return FunctionSums(functions=found)


@router.post(
    "/members/{member}/drain",
    operation_id="drain_member",
    summary="Have a member give its jobs away",
    response_model=Done,
    responses=problems(404, 409),
)
async def drain_member(request: Request, member: MemberId, _: Operator, drain: Drain) -> Done:
    """It goes on to serve; with `on: false` it keeps its jobs again. 409: no such member is live."""
    _fleet(request)
    action = "drain member" if drain.on else "end drain of member"
    await order(request, action, str(member), b"fleet", b"drain", b"%d" % member, *([] if drain.on else [b"off"]))
    return Done()


@router.post(
    "/members/{member}/forget",
    operation_id="forget_member",
    summary="Take a member for dead, or list it no more",
    response_model=Done,
    responses=problems(404, 409),
)
async def forget_member(request: Request, member: MemberId, _: Operator) -> Done:
    """409: it is live, or not all of its jobs have been taken over."""
    _fleet(request)
    await order(request, "forget member", str(member), b"fleet", b"forget", b"%d" % member)
    return Done()
