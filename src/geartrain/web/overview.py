"""How the job server is at this moment, as the dashboard's first page shows it and its live stream tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, Field

from geartrain.daemon.machine import node_name
from geartrain.jobserver import snapshot
from geartrain.redaction import HIDDEN
from geartrain.version import VERSION
from geartrain.web.health import troubles_of
from geartrain.web.wrong import Lookout, Wrong

if TYPE_CHECKING:
    from geartrain.daemon.config import Config
    from geartrain.jobserver import JobServer
    from geartrain.web.history import History

RATE_SECONDS: Final = 5  # over which rates are taken


class Store(BaseModel):
    """Where background jobs are kept."""

    kind: str = Field(description="The scheme of its URL, such as sqlite or postgresql; memory: nowhere")
    state: Literal["up", "late", "down"] = Field(
        description="late: its answer has been waited for too long; late and down: it takes no jobs"
    )


class Memory(BaseModel):
    """Bytes that peers make the job server keep."""

    used: int
    limit: int = Field(description="--max-memory; 0: no limit")


class Rates(BaseModel):
    """How many jobs a second, on average over the last seconds."""

    submitted: float
    started: float
    completed: float
    failed: float
    retried: float
    dead: float = Field(description="That became dead letters")


class Workers(BaseModel):
    """Connections that can do something; one that runs a job and could take another is busy and idle."""

    able: int
    busy: int = Field(description="That run a job")
    idle: int = Field(description="That sleep")


class Overview(BaseModel):
    """The job server as a whole."""

    time: float = Field(description="When this was true, as a Unix time")
    name: str = Field(description="The name of its machine")
    version: str
    ready: bool = Field(description="Whether it takes jobs")
    reason: str = Field(description="Why it takes none; empty: it does")
    draining: bool = Field(description="Whether it is about to stop")
    store: Store
    memory: Memory
    rates: Rates
    running: int
    waiting: int = Field(description="Jobs that wait for a worker, or for a limit to let them start")
    delayed: int = Field(description="Jobs for later, and jobs between two attempts")
    oldest_waiting: float = Field(description="Seconds that a job has waited at most; 0: none waits")
    workers: Workers
    connections: int
    functions: int
    dead: int = Field(description="Dead letters")
    wrong: list[Wrong] = Field(description="What somebody should look at, as it was seconds ago at most")
    more: int = Field(description="How many more things are wrong than `wrong` has room for")
    revision: int = Field(
        description="Grows when a job, function or connection has come, gone or changed: while it is the same, a list "
        "need not be fetched again"
    )


def kind_of(url: str) -> str:
    """The kind of a store by its URL."""
    scheme = url.partition(":")[0].partition("+")[0]
    return scheme if scheme.isalnum() else HIDDEN


def overview_of(
    server: JobServer, config: Config, history: History, oldest_waiting: float, lookout: Lookout, revision: int
) -> Overview:
    """What is true now; what takes longer to find out is given."""
    totals = snapshot.totals(server)
    troubles = troubles_of(server)
    return Overview(
        time=round(server.wall, 3),
        name=node_name(),
        version=VERSION,
        ready=not troubles,
        reason="; ".join(troubles),
        draining=server.draining,
        store=Store(
            kind=kind_of(config.store),
            state="up" if not server.durable or not server.store.trouble else "late" if server.store.late else "down",
        ),
        memory=Memory(used=totals.memory, limit=int(server.max_memory)),
        rates=Rates(**history.rates(RATE_SECONDS)),
        running=totals.running,
        waiting=totals.queued + totals.blocked,
        delayed=totals.delayed,
        oldest_waiting=round(oldest_waiting, 3),
        workers=Workers(able=totals.workers, busy=totals.busy, idle=totals.idle),
        connections=totals.connections,
        functions=totals.functions,
        dead=totals.dead,
        wrong=lookout.found,
        more=lookout.more,
        revision=revision,
    )
