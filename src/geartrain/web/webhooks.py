"""Webhooks: at a job's end a URL is called, and told how it has ended.

A hook is attached to one job, or a policy names one for all jobs of a function. Both are told of the end in the rule
where it happens (``watching``), and put what is to be told, a *delivery*, among the records: that is committed with the
end, so that it outlasts a crash. From there on it is tried until it has arrived or there have been tries enough. One
that has arrived just before a crash is made again: whoever gets it goes by its ``delivery``.

What it may cost is bounded: how many deliveries are kept, how many of them are for one host, how many are under way.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp

from geartrain.jobserver.model import DEAD, RUNNING
from geartrain.jobserver.records import Record, number_key, number_of
from geartrain.jobserver.rights import SUBMIT
from geartrain.jobserver.rules.answers import OK, find_job, refuse
from geartrain.jobserver.rules.keeping import put, put_in_memory
from geartrain.jobserver.rules.result_commands import unquoted
from geartrain.jobserver.watching import ASSIGNED, ENDS, MOVED, REFUSED
from geartrain.version import VERSION
from geartrain.web.address_guard import Resolver, check_url, guarded_socket
from geartrain.web.delivery import (
    LOST,
    Delivery,
    Hook,
    describe,
    pack_hooks,
    sign,
    unpack_delivery,
    unpack_hooks,
    without_content,
)

if TYPE_CHECKING:
    from geartrain.daemon.config import Config
    from geartrain.daemon.extension import Host
    from geartrain.jobserver import JobServer, Peer

log = logging.getLogger("geartrain.daemon")

HOOK_KIND: Final = "webhook"  # records of hooks that are attached, by the job's number
DELIVERY_KIND: Final = "webhook_delivery"
MAX_HOOKS: Final = 8  # of one job
AT_ONCE: Final = 16
PER_HOST: Final = 4
TIMEOUT: Final = 10.0  # seconds for one try, all in all
PAUSES: Final = (5, 15, 45, 120, 360, 900, 2100)  # seconds before the second try and each later one: an hour in all
JITTER: Final = 0.2  # of each pause
_IDLE: Final = 3.0  # seconds for which a connection is kept for the next call to its host
_LONGEST_TIMER: Final = 60.0  # since the clock may be set
_GONE: Final = 410  # whoever answers that wants no more of this


class Owner(Protocol):
    """What webhooks need of the ``Web``."""

    host: Host
    server: JobServer
    config: Config


@dataclass(slots=True)
class _Attached:
    """The hooks of one job, and which attempt of it was begun last."""

    hooks: list[Hook]
    attempts: int = 0


@dataclass(slots=True)
class _HostQueue:
    """The deliveries to one host."""

    waiting: deque[Delivery] = field(default_factory=deque)  # those that are due
    under_way: int = 0
    count: int = 0  # all of them, the later ones as well


class _PolicyEnds:
    """Watches the ends of all jobs whose policy names a webhook."""

    def __init__(self, told: Callable[[int, bytes, bytes], None]) -> None:
        self.tell = told


class Webhooks:
    """All hooks and deliveries of one job server."""

    def __init__(self, web: Owner) -> None:
        self._web = web
        self._host = web.host
        self._server = web.server
        self._secret = web.config.webhook_secret
        self._private = web.config.webhook_private
        self._limit = web.config.max_webhooks
        self._attached: dict[int, _Attached] = {}
        self._deliveries: dict[bytes, Delivery] = {}
        self._later: list[tuple[float, bytes]] = []  # a heap of due times and keys
        self._hosts: dict[str, _HostQueue] = {}
        self._ready: dict[str, None] = {}  # hosts that have deliveries due and may have one more under way, in turn
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._awake = False
        self._stopped = False
        self.delivered = 0
        self.failed = 0  # given up
        self.dropped = 0  # for which there was no room

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Take up what was kept, and watch the ends of jobs from now on."""
        connector = aiohttp.TCPConnector(
            resolver=Resolver(),
            limit=AT_ONCE,
            keepalive_timeout=_IDLE,
            socket_factory=None if self._private else guarded_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            headers={"User-Agent": f"geartrain/{VERSION}", "Content-Type": "application/json"},
        )
        self._host.open_iteration()
        self._server.watch_ends(_PolicyEnds(self._tell_policy))
        for kind, restore in ((DELIVERY_KIND, self._restore_delivery), (HOOK_KIND, self._restore)):
            for record in self._server.kept_of(kind):
                restore(record)
            self._server.inherit(kind, restore)
        if self._host.fleet is not None:
            self._server.add_command(b"webhook", self._attach_for_another, SUBMIT)

    def _restore_delivery(self, record: Record) -> None:
        if record.key in self._deliveries:
            return  # it has been ours before
        try:
            delivery = unpack_delivery(record.key, record.value or b"")
        except ValueError:
            self._server.keep(Record(DELIVERY_KIND, record.key, None))
            return
        self._add(delivery)

    def _restore(self, record: Record) -> None:
        number = number_of(record.key)
        try:
            hooks = unpack_hooks(record.value or b"")
        except ValueError:
            hooks = []
        job = self._server.jobs.get(number)
        if hooks and job is not None and self._server.watch(number, self):
            self._attached[number] = _Attached(hooks, int(job.attempts))
            return
        outcome = b"dead" if job is not None and job.state == DEAD else LOST
        self._end(number, outcome, b"", 0 if job is None else int(job.attempts), hooks)
        self._server.keep(Record(HOOK_KIND, record.key, None))

    def stop(self) -> None:
        """Make no more calls; those under way are made again after the next start."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._session is not None:
            connector = self._session.connector
            self._session.detach()
            if connector is not None:
                self._closing = asyncio.ensure_future(connector.close())  # the loop's end sees to its

    # ── hooks ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> int:
        """How many deliveries there are that have not arrived."""
        return len(self._deliveries)

    @property
    def attached(self) -> int:
        """How many jobs have a hook of their own."""
        return len(self._attached)

    def check(self, url: str) -> None:
        """Raises ValueError, with what is wrong, for a URL that would not be called."""
        check_url(url, self._private)

    def attach(self, number: int, url: str, secret: str | None = None) -> bool:
        """Have ``url`` told of the end of the job of this number, which was submitted in this iteration.

        The hook is committed with the job. The same URL again replaces the secret. False: there is no such job any
        more, or no room for another hook. Raises ValueError as ``check`` does.
        """
        self.check(url)
        server = self._server
        had = self._attached.get(number)
        hooks = [hook for hook in had.hooks if hook.url != url] if had is not None else []
        if len(hooks) >= MAX_HOOKS or not server.watch(number, self):
            return False
        hooks.append(Hook(url, secret))
        self._host.open_iteration()
        if not server.keep_with(number, Record(HOOK_KIND, number_key(number), pack_hooks(hooks))):
            if had is None:
                server.unwatch(number, self)
            return False
        self._attached[number] = _Attached(hooks, 0 if had is None else had.attempts)
        return True

    def _attach_for_another(self, peer: Peer, words: list[bytes]) -> None:
        """``webhook HANDLE URL [SECRET]``: how members attach one to a job that another has."""
        if len(words) not in (2, 3):
            refuse(peer, b"INVALID_ARGUMENTS", "Write webhook HANDLE URL [SECRET]")
            return
        job = find_job(self._server, peer, words[0])
        if job is None:
            return
        try:
            url, *secret = (unquoted(word).decode() for word in words[1:])
            is_attached = self.attach(int(job.number), url, secret[0] if secret else None)
        except ValueError as error:
            refuse(peer, b"INVALID_ARGUMENTS", str(error))
            return
        if is_attached:
            self._server.acknowledge(peer, OK)
        else:
            refuse(peer, b"NO_ROOM", "There is no room for another webhook, or the job has ended")

    def tell(self, number: int, event: bytes, data: bytes) -> None:
        """What happens to a job that has a hook of its own."""
        attached = self._attached.get(number)
        if attached is None:
            return
        if event == ASSIGNED:
            attached.attempts = int(data)
        elif event == MOVED:
            del self._attached[number]
            put_in_memory(
                self._server, Record(HOOK_KIND, number_key(number), None)
            )  # in the store it goes with the job
        elif event in ENDS:
            del self._attached[number]
            if event != REFUSED:  # else its submitter has been told that there is no such job
                job = self._server.jobs.get(number)
                attempts = max(attached.attempts, 0 if job is None else int(job.attempts))
                self._end(number, event, data, attempts, attached.hooks)
            self._server.keep(Record(HOOK_KIND, number_key(number), None))  # behind what takes its place

    def _tell_policy(self, number: int, event: bytes, data: bytes) -> None:
        """The end of a job whose policy names a webhook."""
        job = self._server.jobs.get(number)
        policy = None if job is None else job.function.policy
        if job is not None and policy is not None:
            attempts = int(job.attempts) + (job.state == RUNNING)
            self._end(number, event, data, attempts, [Hook(policy.webhook)])

    # ── deliveries ──────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self, number: int, outcome: bytes, data: bytes, attempts: int, hooks: list[Hook]) -> None:
        """A job has ended: keep what each hook is to be told, and begin to tell it."""
        told = describe(self._server, number, outcome, data, attempts)
        for hook in hooks:
            key = number_key(number) + os.urandom(8)
            try:
                url = check_url(hook.url, self._private)
            except ValueError as error:  # a policy's, or the option has changed
                self._note("webhook_failed", told["handle"], reason=str(error))
                self.failed += 1
                continue
            delivery = Delivery(key, hook.url, hook.secret, url.authority, told["handle"], time.time())
            host = self._hosts.get(delivery.host)
            if len(self._deliveries) >= self._limit or (host is not None and host.count >= max(self._limit // 2, 1)):
                self._note("webhook_dropped", told["handle"], host=delivery.host, pending=len(self._deliveries))
                self.dropped += 1
                continue
            self._keep(delivery, told)
            self._add(delivery)

    def _keep(self, delivery: Delivery, told: dict[str, Any]) -> None:
        """Keep it until it has arrived; without the result, if there is no room for that."""
        server = self._server
        record = _record(delivery, told)
        if not server.keep(record):
            room = len(record.key) + len(record.value or b"")
            put(server, record if server.has_room(room) else _record(delivery, without_content(told)))

    def _add(self, delivery: Delivery) -> None:
        self._deliveries[delivery.key] = delivery
        host = self._hosts.setdefault(delivery.host, _HostQueue())
        host.count += 1
        heapq.heappush(self._later, (delivery.due, delivery.key))
        self._wake()

    def _forget(self, delivery: Delivery) -> None:
        del self._deliveries[delivery.key]
        self._server.keep(Record(DELIVERY_KIND, delivery.key, None))
        host = self._hosts[delivery.host]
        host.count -= 1
        if not host.count:
            del self._hosts[delivery.host]

    def _wake(self) -> None:
        """See soon to what is due: it may be the middle of a rule now."""
        if not self._awake and not self._stopped:
            self._awake = True
            self._host.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Begin what is due, as far as there may be more under way; hosts take turns."""
        self._awake = False
        if self._stopped:
            return
        now = time.time()
        while self._later and self._later[0][0] <= now:
            delivery = self._deliveries[heapq.heappop(self._later)[1]]
            host = self._hosts[delivery.host]
            host.waiting.append(delivery)
            if host.under_way < PER_HOST:
                self._ready[delivery.host] = None
        while self._ready and len(self._tasks) < AT_ONCE:
            name = next(iter(self._ready))
            del self._ready[name]
            host = self._hosts[name]
            host.under_way += 1
            task = self._host.loop.create_task(self._deliver(host.waiting.popleft(), host))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            if host.waiting and host.under_way < PER_HOST:
                self._ready[name] = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later:
            self._timer = self._host.loop.call_later(min(self._later[0][0] - now, _LONGEST_TIMER), self._wake)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake()

    async def _deliver(self, delivery: Delivery, host: _HostQueue) -> None:
        """One try, and what follows from it."""
        kept = self._server.kept(DELIVERY_KIND, delivery.key)
        body = b"" if kept is None else (kept.value or b"").partition(b"\n")[2]
        trouble, is_final = await self._call(delivery, body) if kept is not None else ("", False)
        delivery.tries += 1
        self._host.open_iteration()
        host.under_way -= 1
        if host.waiting:
            self._ready[delivery.host] = None
        fields = {"host": delivery.host, "tries": delivery.tries}
        if kept is None:  # others of the fleet have taken us for dead, and make it
            self._forget(delivery)
        elif not trouble:
            self.delivered += 1
            self._forget(delivery)
        elif is_final or delivery.tries > len(PAUSES):
            self.failed += 1
            self._note("webhook_failed", delivery.handle, **fields, reason=trouble)
            self._forget(delivery)
        else:
            pause = PAUSES[delivery.tries - 1] * random.uniform(1 - JITTER, 1 + JITTER)
            delivery.due = time.time() + pause
            self._note("webhook_delayed", delivery.handle, **fields, reason=trouble, again_in=f"{pause:.1f}")
            self._server.keep(Record(DELIVERY_KIND, delivery.key, delivery.pack(body)))  # else it is tried sooner
            heapq.heappush(self._later, (delivery.due, delivery.key))

    async def _call(self, delivery: Delivery, body: bytes) -> tuple[str, bool]:
        """Make the call: what went wrong (nothing: it has arrived), and whether that is final."""
        assert self._session is not None
        headers = {"X-Geartrain-Delivery": delivery.id}
        secret = delivery.secret or self._secret
        if secret:
            headers["X-Geartrain-Signature"] = sign(secret, body, int(time.time()))
        try:
            url = check_url(delivery.url, self._private)
        except ValueError as error:
            return str(error), True
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
        except asyncio.CancelledError:
            raise
        except TimeoutError:
            return f"no answer within {TIMEOUT:g} s", False
        except Exception as error:  # whatever aiohttp makes of what it is answered
            return f"{type(error).__name__}: {error}"[:200], False
        return "" if 200 <= status < 300 else f"status {status}", status == _GONE

    def _note(self, event: str, handle: str, **fields: object) -> None:
        log.warning(event, extra={"fields": {"handle": handle, **fields}})


def _record(delivery: Delivery, told: dict[str, Any]) -> Record:
    body = json.dumps({"delivery": delivery.id, **told}, ensure_ascii=False).encode()
    return Record(DELIVERY_KIND, delivery.key, delivery.pack(body))
