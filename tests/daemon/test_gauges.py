"""What the daemon measures of itself: commits, and how late its loop is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from daemon_within import within, within_with
from hypothesis import given
from hypothesis import strategies as st

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.gauges import SIZES, Sizes
from geartrain.daemon.in_process import InProcessPeer
from geartrain.daemon.keeper import Keeper
from geartrain.daemon.loop_lag import EVERY, LoopLag
from geartrain.jobserver import JobServer
from geartrain.store import engine
from geartrain.wire import packets as p
from geartrain.wire.packets import pack_request


@given(st.integers(0, 1 << 20))
def test_a_size_is_in_the_bucket_of_the_first_bound_that_it_is_not_above(size: int) -> None:
    sizes = Sizes()
    sizes.add(size)
    at = next((at for at, bound in enumerate(SIZES) if size <= bound), len(SIZES))
    assert (sizes.counts.index(1), sizes.count, sizes.sum) == (at, 1, size)


def test_commits_are_counted_and_measured(tmp_path: Path) -> None:
    config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": f"sqlite:///{tmp_path}/jobs.sqlite"})
    server = JobServer(config.rules())
    keeper = Keeper(server, engine(config.store), 10)
    server.tick(time.monotonic(), time.time())
    keeper.load()

    async def act(daemon: Daemon, _port: int) -> None:
        client = InProcessPeer(daemon)
        for jobs in (1, 5):
            client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"x") * jobs)
            for _ in range(jobs):
                assert (await client.receive()).type == p.JOB_CREATED
        gauges = daemon.gauges
        assert (gauges.commits, gauges.commits_refused) == (2, 0)
        assert (gauges.batch_jobs.count, gauges.batch_jobs.sum) == (2, 6)
        assert gauges.commit_seconds.count == 2
        assert gauges.commit_seconds.sum > 0

    within_with(server, config, act, keeper)


def test_the_lag_of_the_loop_is_what_holds_it_up() -> None:
    async def act(daemon: Daemon, _port: int) -> None:
        gauges = daemon.gauges
        await _looked(daemon)
        before = gauges.loop_lag.sum
        time.sleep(EVERY + 0.2)  # noqa: ASYNC251 - nobody is served meanwhile
        await _looked(daemon)
        assert gauges.loop_lag.sum - before >= 0.19
        assert gauges.iterations <= daemon.server.iterations

    within(act, LoopLag())


async def _looked(daemon: Daemon) -> None:
    """Wait for the next look at the loop."""
    before = daemon.gauges.loop_lag.count
    while daemon.gauges.loop_lag.count == before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_the_looks_at_the_loop_ask_nothing_of_each_iteration() -> None:
    async def act(daemon: Daemon, _port: int) -> None:
        assert daemon._flushing == daemon._timed == []

    within(act, LoopLag())
