"""Two faults other than a crash that can lose jobs, done to a running job server.

*second*: another job server comes to the same store, first under another name of it, then after the first one's hold
was broken: it stood still while its sessions were ended or its lease ran out. Both get traffic then.

*away*: what is kept is taken away under the job server's hands: the file is removed, renamed, replaced or mounted over,
the tables are dropped, Redis is emptied, or the jobs there alone, all memcached nodes are restarted. Some traffic later
it is told by SIGHUP to write what it knows again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from geartrain.store.lease import LASTS
from services import Memcached, Redis, Service, SqlService

PATIENCE = 60.0


class Running(Protocol):
    """A job server as a process."""

    log: Path
    process: subprocess.Popen[bytes] | None


def aliases(url: str, services: list[Service], folder: Path) -> list[str]:
    """Other names of the same store."""
    if url.startswith("sqlite:"):
        file = Path(url.removeprefix("sqlite:///"))
        link = folder / "link.sqlite"
        if not link.is_symlink():
            link.symlink_to(file)
        return [f"sqlite:///{link}", f"sqlite:///{file.parent}/./{file.name}"]
    if url.startswith("memcached:"):
        return [f"memcached://{','.join(f'localhost:{service.port}' for service in reversed(services))}"]
    return [url.replace("mariadb:", "mysql:")] if "mariadb" in url else [url.replace("127.0.0.1", "localhost")]


def break_hold(server: Running, services: list[Service], comes: Callable[[], bool]) -> None:
    """Stop the job server until another one has come, which ``comes`` tries; from a file none could be kept away so."""
    if not services:
        return
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        if isinstance(services[0], SqlService):
            services[0].drop_connections()
        give_up_at = time.monotonic() + LASTS + 5
        while not comes():
            if time.monotonic() > give_up_at:
                raise SystemExit("the second job server could not come though the first one's hold was broken")
    finally:
        server.process.send_signal(signal.SIGCONT)


def take_away(url: str, services: list[Service], chance: random.Random) -> str:
    """Take away all that is kept; what was done."""
    if not services:
        return _take_file(Path(url.removeprefix("sqlite:///")), chance)
    first = services[0]
    if isinstance(first, SqlService):
        if chance.random() < 0.5:
            first.sql(f"{chance.choice(('DELETE FROM', 'TRUNCATE TABLE'))} geartrain_jobs")
            return "its table of jobs emptied"
        first.sql(*[f"DROP TABLE geartrain_{name}" for name in ("jobs", "meta", "records", "set_aside")])
        return "its tables dropped"
    if isinstance(first, Redis):
        key = chance.choice(("", "jobs", "order"))
        _redis(first, key)
        return f"its key {key} removed" if key else "emptied"
    for service in services:
        assert isinstance(service, Memcached)
        service.kill()
    for service in services:
        service.start()
    return "all its nodes restarted"


def _redis(service: Redis, key: str) -> None:
    import redis

    with redis.Redis.from_url(service.url().partition("?")[0].replace("valkey", "redis", 1)) as client:
        if key:
            client.delete(f"{{geartrain}}:{key}")
        else:
            client.flushall()


def _take_file(file: Path, chance: random.Random) -> str:
    files = [file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm")]
    how = chance.choice(("removed", "renamed", "replaced", *(["mounted over"] if os.geteuid() == 0 else [])))
    if how == "mounted over":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=700", "tmpfs", str(file.parent)], check=True)
        return how
    copy = file.with_name("copy")
    if how == "replaced":
        shutil.copy(file, copy)
    for each in files:
        if how == "renamed":
            each.rename(each.with_name(f"away-{time.time_ns()}"))
        else:
            each.unlink()
    if how == "replaced":
        copy.rename(file)
    return how


def write_again(server: Running, url: str, services: list[Service]) -> None:
    """Tell the job server to write what it knows, until it says that it did."""
    assert server.process is not None
    before = server.log.read_text().count(" store_rebuilt ")
    give_up_at = time.monotonic() + PATIENCE
    if not services:
        file = Path(url.removeprefix("sqlite:///"))
        file.unlink(missing_ok=True)  # what replaced it
    while server.log.read_text().count(" store_rebuilt ") == before:
        if time.monotonic() > give_up_at:
            raise SystemExit(f"the store was not made again:\n{server.log.read_text()[-3000:]}")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
