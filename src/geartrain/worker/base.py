"""What the blocking and the asyncio worker have in common: their servers, their settings and their functions."""

from __future__ import annotations

import logging
import os
import random
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Unpack

from geartrain.errors import GeartrainError, ServerError
from geartrain.link.address import Address, ServerList, parse_addresses
from geartrain.systemd import Systemd
from geartrain.wire.parser import DEFAULT_MAX_RECEIVED
from geartrain.worker.batch_function import BatchFunction
from geartrain.worker.calls import AsyncClientLike, ClientLike
from geartrain.worker.declaration import BatchDeclaration, Declaration
from geartrain.worker.encoding import EncodingName
from geartrain.worker.functions import Function, Limits
from geartrain.worker.heartbeat import WorkerProcess
from geartrain.worker.middleware import JobLog, Middleware
from geartrain.worker.once import Once
from geartrain.worker.policy import Policy, PolicyOptions
from geartrain.worker.pool import Pool, PoolOptions, check_options
from geartrain.worker.session import PolicyRefusal, WorkerSession
from geartrain.worker.slots import Slots

logger = logging.getLogger("geartrain.worker")


class BaseWorker:
    """A set of declared functions and the job servers that send jobs for them.

    ``servers`` is a list of servers as everywhere; None means $GEARMAN_SERVERS, else localhost:4730. ``id`` is what a
    job server lists the worker as (SET_CLIENT_ID); by default the host's name and the process's number.
    ``namespace`` is put before every function's name on the wire as libgearman does it, ``prefix`` as the Perl library
    does it, with a TAB behind it. ``middleware`` is told of every job. ``client`` and ``async_client`` are what the
    declared functions are submitted through; they may be set later, too.

    With ``exceptions=False`` a function that raises sends just WORK_FAIL: clients on libgearman 1.1 behind a gearmand
    1.1 wait for ever for a job that raised, unless they asked for exceptions (section 3.7). With ``reducers=True`` the
    job servers tell the reducers of map/reduce jobs.

    Times are in seconds: a connection must come about in ``connect_within``, an answer or progress in sending come in
    ``answer_within``, else the connection is given up; a sleeping worker asks for jobs again after ``regrab_after``.
    A job that comes in a packet of more than ``max_packet`` bytes fails with a text that says so.
    """

    def __init__(
        self,
        servers: ServerList = None,
        *,
        id: str | None = None,
        namespace: str = "",
        prefix: str = "",
        client: ClientLike | None = None,
        async_client: AsyncClientLike | None = None,
        middleware: Iterable[Middleware] | None = None,
        exceptions: bool = True,
        reducers: bool = False,
        tls: ssl.SSLContext | None = None,
        connect_within: float = 5.0,
        answer_within: float = 10.0,
        regrab_after: float = 10.0,
        max_packet: int = DEFAULT_MAX_RECEIVED,
    ) -> None:
        if namespace and prefix:
            raise ValueError("a worker has a namespace (libgearman's) or a prefix (Perl's), not both")
        if id is not None and (not id or any(letter.isspace() or letter == "\0" for letter in id)):
            raise ValueError(f"{id!r} can't be a worker's id: job servers list it between spaces")
        self.function_prefix = namespace or (prefix + "\t" if prefix else "")
        self.addresses = parse_addresses(servers)
        self.functions: dict[str, Function] = {}
        self.by_wire_name: dict[str, Function] = {}
        self.middleware: list[Middleware] = [JobLog()] if middleware is None else list(middleware)
        self.id = id
        self.client = client
        self.async_client = async_client
        self.exceptions = exceptions
        self.reducers = reducers
        self.tls = tls
        self.connect_within = connect_within
        self.answer_within = answer_within
        self.regrab_after = regrab_after
        self.max_packet = max_packet
        self.process = WorkerProcess()
        self._once = Once()
        self._set_up()

    def _set_up(self) -> None:
        """Make ready what this kind of worker keeps besides."""
        raise NotImplementedError

    def function(
        self,
        name: str | None = None,
        *,
        raw: bool | None = None,
        encoding: EncodingName = "json",
        timeout: float | None = None,
        soft_limit: float | None = None,
        hard_limit: float | None = None,
        concurrency: int | None = None,
        **policy: Unpack[PolicyOptions],
    ) -> Declaration:
        """Declare the function below as one that this worker can do, by ``name`` or else its own name.

        A function whose only parameter is the job (by the hint ``AssignedJob`` or the name ``job``) is *raw*: it gives
        bytes. Any other is *typed*: its arguments and its result travel in ``encoding``, and it gets the job as well
        if that is its first parameter. ``raw`` says so where this guess is wrong.

        The limits are those of ``geartrain.worker.functions.Limits``; times are in seconds. The other options, such as
        ``retries=5``, are for the job servers to keep to: see ``geartrain.worker.policy.PolicyOptions``. Raises
        ValueError or TypeError for what can't be declared.
        """
        if callable(name):
            raise TypeError("write @worker.function() with its brackets")
        return Declaration(
            self._add,
            self,
            name=name,
            raw=raw,
            encoding=encoding,
            limits=Limits(timeout, soft_limit, hard_limit, concurrency),
            policy=Policy(**policy),
        )

    def batch(
        self,
        name: str | None = None,
        *,
        size: int = 64,
        wait: float = 0.005,
        raw: bool | None = None,
        encoding: EncodingName = "json",
        timeout: float | None = None,
        soft_limit: float | None = None,
        hard_limit: float | None = None,
        concurrency: int | None = None,
        **policy: Unpack[PolicyOptions],
    ) -> BatchDeclaration:
        """Declare the function below as one that does up to ``size`` jobs in one call.

        Each of its parameters is a list with one place for each job, and so is what it gives: ``list[str]`` where a
        function of one job would have ``str``. A place of what it gives may hold an exception, with which that job
        fails; None stands for a list of None. Where it raises, or gives a list of another length, all of the batch
        fails. Raw is a function whose only parameter is ``list[AssignedJob]`` or called ``jobs``. Everything else is as
        in ``function``, also how its jobs are submitted, each by itself.

        A batch is run when it has ``size`` jobs, or when ``wait`` seconds have passed since its first came. Each
        thread of a ``Worker`` and each process of an ``AsyncWorker`` has one at a time; ``concurrency`` is the number
        of batches in all of them, and with it an ``AsyncWorker`` may have several in a process. ``soft_limit`` and
        ``hard_limit`` are for the call; ``timeout`` is for it too: the job server is told the ``wait`` besides.
        """
        if callable(name):
            raise TypeError("write @worker.batch() with its brackets")
        limits = Limits(timeout, soft_limit, hard_limit, concurrency)

        def make(original: Callable[..., Any], name: str) -> BatchFunction[Any, Any, Any]:
            return BatchFunction(original, name, limits, self, raw=raw, encoding=encoding, size=size, wait=wait)

        return BatchDeclaration(self._add, name, make, Policy(**policy))

    def _add(self, function: Function) -> None:
        if function.name in self.functions:
            raise ValueError(f"this worker has a function {function.name!r} already")
        name = self.wire_name(function)
        if function.policy.words and any(letter in name for letter in "* \r\n"):
            raise ValueError(f"{name!r} can't have a policy here: * means other functions too, and a blank ends a name")
        self.functions[function.name] = function
        self.by_wire_name[name] = function

    # For those who run it.

    def check(self, room: int) -> None:
        """Raises GeartrainError if there is nothing to run, ValueError without room for at least one job."""
        if not self.functions:
            raise GeartrainError("this worker has no function: declare one with @worker.function()")
        if room < 1:
            raise ValueError(f"a worker needs room for at least one job, not {room}")

    def supervise(
        self, work: Callable[[WorkerProcess], None], processes: int | None, slots: int, options: PoolOptions
    ) -> None:
        """Call ``work`` in this process or, where anything asks for it, in processes with a supervisor."""
        check_options(options)
        limits = [function.limits for function in self.functions.values()]
        needs = any(value for name, value in options.items() if name != "grace")
        if processes is None and not needs and not any(one.hard_limit for one in limits) and not Systemd():
            work(WorkerProcess(slots=slots))
            return
        Pool(
            work,
            processes=1 if processes is None else processes,
            slots=slots,
            has_narrow=any(one.concurrency is not None for one in limits),
            options=options,
        ).run()

    def warn_of_hard_limits(self) -> None:
        """For who works without a supervisor."""
        names = [name for name, function in self.functions.items() if function.limits.hard_limit is not None]
        if names:
            logger.warning("hard limits (of %s) need a process that can be killed: only run() has them", names)

    def log_refusal(self, address: Address, event: ServerError | PolicyRefusal) -> None:
        """Log what a job server did not take; that it does not keep to a policy once, by whomever it is heard."""
        if isinstance(event, ServerError):
            logger.warning("%s refused something: %s", address, event)
        elif self._once.is_new(f"{address} {event.text}"):
            logger.warning("%s %s", address, event.text)

    def wire_name(self, function: Function) -> str:
        """The function's name as the job servers know it."""
        return self.function_prefix + function.name

    def new_session(self, functions: Iterable[Function], slots: Slots) -> WorkerSession:
        """A session that can do ``functions``, with this worker's settings."""
        id = self.id if self.id is not None else f"{socket.gethostname()}-{os.getpid()}"
        declared = {_encode(self.wire_name(function)): function for function in functions}
        return WorkerSession(
            {name: function.timeout for name, function in declared.items()},
            slots,
            id=_encode(id),
            reducers=self.reducers,
            max_packet=self.max_packet,
            answer_within=self.answer_within,
            # Workers that were started together need not ask together.
            regrab_after=self.regrab_after * random.uniform(0.8, 1.2),
            policies={name: one.policy.words.encode() for name, one in declared.items() if one.policy.words},
            traces=any(member.wants_traces for member in self.middleware),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self.functions)} at {', '.join(map(str, self.addresses))}>"


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
