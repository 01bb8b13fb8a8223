"""Who is measured, and how each is started: as its own guide says for many short tasks, one worker process each.

In the commands ``{port}`` and ``{dir}`` are the broker's, ``{ours}`` and ``{others}`` the Pythons with the packages.
"""

from __future__ import annotations

from dataclasses import dataclass

# Redis without a word to the disk, which is its fastest.
REDIS = "redis-server --bind 127.0.0.1 --port {port} --save '' --appendonly no --dir {dir}"
SERVE = "{ours} -m geartrain serve --listen 127.0.0.1 --port {port}"
IN_MEMORY = f"{SERVE} --store memory:"
ON_DISK = f"{SERVE} --store sqlite:///{{dir}}/queue.sqlite"

CELERY = "{others} -m celery --app celery_tasks worker --loglevel WARNING --without-gossip --without-mingle"
RQ = "{others} -m rq.cli worker --quiet --url redis://127.0.0.1:{port}/0 --worker-class"
DRAMATIQ = "{others} -m dramatiq dramatiq_tasks --processes 1 --threads"
GEARTRAIN = "{ours} geartrain_tasks.py work"
BARE = "bare socket"  # what bounds a worker that has one job at a time


@dataclass(frozen=True)
class Contender:
    """``program`` fills the queue with ``count`` tasks, ``worker`` empties it with ``concurrency`` tasks at a time.

    ``processes`` says how many processes run tasks, their parents not counted; 0 is a new one for each task.
    """

    name: str
    broker: str
    program: str
    worker: str
    count: int  # so that a run takes a few seconds
    concurrency: int = 1
    processes: int = 1

    @property
    def is_ours(self) -> bool:
        return self.program.startswith("geartrain")


def _celery(pool: str, concurrency: int) -> Contender:
    worker = f"{CELERY} --pool {pool} --concurrency {concurrency}"
    processes = concurrency if pool == "prefork" else 1
    return Contender(f"celery {pool}", REDIS, "celery_tasks.py", worker, 3000, concurrency, processes)


def _geartrain(kind: str, concurrency: int, count: int, broker: str = IN_MEMORY) -> Contender:
    name = f"geartrain {kind}{', kept on disk' if broker == ON_DISK else ''}"
    return Contender(name, broker, "geartrain_tasks.py", f"{GEARTRAIN} {kind} {concurrency}", count, concurrency)


CONTENDERS = (
    _celery("prefork", 1),
    _celery("prefork", 2),
    _celery("solo", 1),
    Contender("rq", REDIS, "rq_tasks.py", f"{RQ} rq.Worker", 500, processes=0),
    Contender("rq simple", REDIS, "rq_tasks.py", f"{RQ} rq.SimpleWorker", 1500),
    Contender("dramatiq", REDIS, "dramatiq_tasks.py", f"{DRAMATIQ} 8", 6000, 8),
    Contender("gear", IN_MEMORY, "gear_tasks.py", "{others} gear_tasks.py work", 10_000),
    Contender(BARE, IN_MEMORY, "geartrain_tasks.py", "{ours} bare.py", 20_000),
    _geartrain("blocking", 1, 20_000),
    _geartrain("blocking", 8, 30_000),
    _geartrain("asyncio", 100, 60_000),
    _geartrain("asyncio", 100, 60_000, ON_DISK),
)

# Tasks a second of our workers, at so many at once.
LEAST = {("geartrain blocking", 1): 18_000, ("geartrain asyncio", 100): 60_000}
TIMES = {"celery prefork": 10, "dramatiq": 5}  # how much faster than these geartrain is to be
