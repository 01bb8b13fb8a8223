"""When the store is given a batch: at once, but for a rest between commits where there is much to do."""

from __future__ import annotations

import time
from pathlib import Path

from daemon_within import within_with

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.in_process import InProcessPeer
from geartrain.daemon.keeper import MUCH, Keeper
from geartrain.jobserver import JobServer
from geartrain.jobserver.records import Batch
from geartrain.store import engine
from geartrain.wire import packets as p
from geartrain.wire.packets import pack_request

HALF = MUCH // 2


class WatchedKeeper(Keeper):
    """Notes each batch: how many jobs it added and removed, and whether the store rests after it."""

    def __init__(self, server: JobServer, url: str) -> None:
        super().__init__(server, engine(url), 10)
        self.seen: list[tuple[int, int, bool]] = []

    def written(self, batch: Batch) -> None:
        super().written(batch)
        self.seen.append((len(batch.added), len(batch.removed), self.resting))


def test_the_store_rests_where_much_is_submitted_and_done_at_the_same_time(tmp_path: Path) -> None:
    config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": f"sqlite:///{tmp_path}/jobs.sqlite"})
    server = JobServer(config.rules())
    keeper = WatchedKeeper(server, config.store)
    server.tick(time.monotonic(), time.time())
    keeper.load()
    submission = pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"x")

    async def act(daemon: Daemon, _port: int) -> None:
        client, worker = InProcessPeer(daemon), InProcessPeer(daemon)

        async def acknowledged(jobs: int) -> None:
            for _ in range(jobs):
                assert (await client.receive()).type == p.JOB_CREATED

        client.send(submission * MUCH)
        await acknowledged(MUCH)
        worker.send(pack_request(p.CAN_DO, b"f") + pack_request(p.GRAB_JOB) * HALF)
        running = [await worker.receive() for _ in range(HALF)]
        for job in running:
            worker.send(pack_request(p.WORK_COMPLETE, job.arguments[0], b""))
        client.send(submission * HALF)
        await acknowledged(HALF)
        client.send(submission)
        await acknowledged(1)
        assert keeper.seen == [(MUCH, 0, False), (HALF, HALF, True), (1, 0, False)]

    within_with(server, config, act, keeper)
