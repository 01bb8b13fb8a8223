"""The worker's side of one connection to a job server, without any I/O.

Bytes from the job server go in by ``receive``; what is to be sent waits in ``take``; ``tick`` is told the time and says
when it wants to be told again; ``lost`` says that the connection ended. A new session, and one whose connection was
lost, holds the registration ready for the next connection.

    registering ──ECHO_RES──► grabbing ──NO_JOB──► asleep
                                 ▲ └─JOB_ASSIGN─┘      │
                                 └────────NOOP─────────┘

The registration ends with an echo: its answer proves that the job server has read all before it, and until then no slot
is spent on a server that may be frozen. From then on the session grabs as slots allow: one job at first, one more in
flight for each that came, so that a full queue is drained without waiting and an empty one costs one request.

Sections 3.5 to 3.8 of the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

from geartrain.errors import (
    LocalProtocolError,
    PacketTooLargeError,
    RemoteProtocolError,
    ServerError,
    TimedOutError,
)
from geartrain.wire.packets import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GET_STATUS,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SET_CLIENT_ID,
    STATUS_RES,
    WORK_COMPLETE,
    WORK_EXCEPTION,
    WORK_FAIL,
    pack_request,
)
from geartrain.wire.parser import DEFAULT_MAX_RECEIVED, Packet, Parser
from geartrain.worker.job import AssignedJob
from geartrain.worker.slots import Grabber, Slots

_GRABS: Final = {type: pack_request(type) for type in (GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL)}
_PRE_SLEEP: Final = pack_request(PRE_SLEEP)
_PROBE: Final = b"geartrain"

TimeLimit = float | None  # seconds until the job server gives up a job of the function; None: never


@final
class WorkerSession(Grabber):
    """One worker's conversation with one job server.

    ``abilities`` names the functions (as the job server knows them), each with its time limit in seconds or None; the
    one named first is served first where the job server keeps to an order. ``slots`` is shared by all sessions of a
    worker. ``id`` is what the job server lists the worker as. A sleeping worker asks again after ``regrab_after``
    seconds, since job servers forget to wake (section 3.5). A job server that leaves a request without any answer for
    ``answer_within`` seconds is given up. A job in a packet of more than ``max_packet`` bytes comes with an ``error``
    in place of its workload.
    """

    def __init__(
        self,
        abilities: Mapping[bytes, TimeLimit],
        slots: Slots,
        *,
        id: bytes = b"",
        reducers: bool = False,
        max_packet: int = DEFAULT_MAX_RECEIVED,
        regrab_after: float = 10.0,
        answer_within: float = 10.0,
    ) -> None:
        super().__init__(slots)
        self.regrab_after = regrab_after
        self.answer_within = answer_within
        self.is_draining = False
        self._timed = frozenset(function for function, timeout in abilities.items() if timeout is not None)
        self._names: dict[bytes, str] = {}
        self._registration = _registration(abilities, id)
        self._favourite_grab = GRAB_JOB_ALL if reducers else GRAB_JOB_UNIQ
        self._max_packet = max_packet
        self._start()

    def _start(self) -> None:
        """Begin as on a new connection."""
        self.is_registered = False
        self._parser = Parser(self._max_packet)
        self._outbox = [self._registration]
        self._held: dict[bytes, AssignedJob] = {}
        self._raised: set[bytes] = set()  # handles of jobs that raised, whose end is not sure yet
        self._grab = self._favourite_grab
        self._is_proven = False  # whether a grab was answered as it should be
        self._is_awake = False  # whether the job server may have a job for us
        self._is_asleep = False  # whether it has our PRE_SLEEP
        self._grabs = 0  # in flight
        self._window = 1  # how many may be in flight
        self._asleep_since: float | None = None
        self._silent_since: float | None = None

    # The four verbs.

    def receive(self, data: bytes) -> list[AssignedJob | ServerError]:
        """Take in bytes from the job server; returns the jobs it assigned and the errors it reported.

        Each job must be ended by ``complete``, ``fail`` or ``raised``. An error needs no action: it is for the log.
        Raises RemoteProtocolError, after which the connection is of no more use.
        """
        self._silent_since = None
        self._parser.feed(data)
        events: list[AssignedJob | ServerError] = []
        while True:
            try:
                packet = self._parser.next_packet()
            except PacketTooLargeError as error:
                packet = Packet(error.type, (*error.arguments, b""))
                event = self._read(packet)
                if isinstance(event, AssignedJob):
                    event.error = error
            else:
                if packet is None:
                    break
                event = self._read(packet)
            if event is not None:
                events.append(event)
        self._go_on()
        return events

    def take(self) -> bytes:
        """What is to be sent now; it is given out once."""
        outbox = self._outbox
        if not outbox:
            return b""
        data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
        outbox.clear()
        return data

    def tick(self, now: float) -> float | None:
        """Let the time be ``now`` (in seconds, of any clock that does not jump); returns when to be told it again.

        To be called only while connected, after all that has arrived was received. Raises TimedOutError when the job
        server has not answered in time.
        """
        wake_at = None
        if self._is_asleep and not self.is_draining:
            if self._asleep_since is None:
                self._asleep_since = now
            wake_at = self._asleep_since + self.regrab_after
            if now >= wake_at:
                self._wake()
                self._go_on()
                wake_at = None
        if self.is_registered and not self._grabs and not self._raised:
            self._silent_since = None
            return wake_at
        if self._silent_since is None:
            self._silent_since = now
        give_up_at = self._silent_since + self.answer_within
        if now >= give_up_at:
            raise TimedOutError(f"the job server has not answered for {self.answer_within:g} s")
        return give_up_at if wake_at is None else min(wake_at, give_up_at)

    def moved(self) -> None:
        """Bytes have left for the job server: it is alive, and need not have read what waits behind them."""
        self._silent_since = None

    def lost(self) -> None:
        """The connection has ended: jobs held are lost (the job server gives them to others), and it starts again."""
        for job in self._held.values():
            job.lost = True
        for _ in range(self._grabs):
            self.slots.give_back()
        self._start()
        self.slots.serve()

    # What happens to the jobs.

    def post(self, job: AssignedJob, type: int, *arguments: bytes) -> None:
        """Send a packet about ``job`` (WORK_STATUS, WORK_DATA, WORK_WARNING) with ``arguments`` behind its handle.

        Of a job that is lost or has ended nothing is sent.
        """
        packet = pack_request(type, job.handle, *arguments)
        if self._held.get(job.handle) is job:
            self._outbox.append(packet)

    def complete(self, job: AssignedJob, result: bytes) -> None:
        """The job is done: WORK_COMPLETE, and in the same write the next grab."""
        try:
            self._end(job, WORK_COMPLETE, result)
        except LocalProtocolError as error:  # more than a packet can hold
            self.raised(job, str(error).encode())

    def fail(self, job: AssignedJob) -> None:
        """The job failed, without a reason: WORK_FAIL."""
        self._end(job, WORK_FAIL)

    def raised(self, job: AssignedJob, text: bytes) -> None:
        """The job failed with an exception: WORK_EXCEPTION.

        gearmand ends the job by that, and answers a WORK_FAIL after it with an ERROR; the Perl server waits for the
        WORK_FAIL. So the job server is asked whether the job still exists, and only then told that it failed.
        """
        if not job.lost:
            self._raised.add(job.handle)
        self._end(job, WORK_EXCEPTION, text)

    def drain(self) -> None:
        """Grab no more jobs."""
        self.is_draining = True

    @property
    def is_grabbing(self) -> bool:
        """Whether the answer to a grab is on its way."""
        return self._grabs > 0

    @property
    def is_idle(self) -> bool:
        """Whether it holds no job and none can come, so that a draining worker may leave."""
        return not (self._held or self._grabs or self._raised or self._outbox)

    # How slots see it.

    def is_hungry(self) -> bool:
        return self._is_awake and self._grabs < self._window and self.is_registered and not self.is_draining

    def grab(self) -> None:
        self._grabs += 1
        self._is_asleep = False
        self._outbox.append(_GRABS[self._grab])

    # Packets from the job server.

    def _read(self, packet: Packet) -> AssignedJob | ServerError | None:
        type = packet.type
        if type == JOB_ASSIGN_UNIQ:
            handle, function, unique, workload = packet.arguments
            return self._assigned(handle, function, unique, b"", workload)
        if type == NO_JOB:
            self._answered()
            self.slots.give_back()
            self._is_awake = False
            self._window = 1
        elif type == NOOP:
            self._wake()
        elif type == JOB_ASSIGN:
            handle, function, workload = packet.arguments
            return self._assigned(handle, function, b"", b"", workload)
        elif type == JOB_ASSIGN_ALL:
            return self._assigned(*packet.arguments)
        elif type == ECHO_RES:
            self.is_registered = True
            self._wake()
        elif type == STATUS_RES:
            self._has_status(packet.arguments[0], packet.arguments[1])
        elif type == ERROR:
            return self._refused(packet)
        else:
            raise RemoteProtocolError(f"the job server sent {packet!r:.80} to a worker")
        return None

    def _assigned(self, handle: bytes, function: bytes, unique: bytes, reducer: bytes, workload: bytes) -> AssignedJob:
        self._answered()
        self._is_awake = True
        self._window += 1
        name = self._names.get(function)
        if name is None:
            name = self._names[function] = function.decode("utf-8", "surrogateescape")
        job = AssignedJob(workload, function=name, handle=handle, unique=unique, reducer=reducer)
        before = self._held.get(handle)
        if before is not None:  # its time was up, and it comes again
            before.lost = True
        self._held[handle] = job
        return job

    def _answered(self) -> None:
        if not self._grabs:
            raise RemoteProtocolError("the job server answered a GRAB_JOB that was not sent")
        self._grabs -= 1
        self._is_proven = True

    def _refused(self, packet: Packet) -> ServerError | None:
        """An ERROR names no request. The first on a connection with just its first grab in flight is about that grab,
        and means a server that knows only the oldest way to grab; any other is about a job that is no more ours."""
        if self._grabs and not self._is_proven and self._grab != GRAB_JOB:
            self._grab = GRAB_JOB
            self._outbox.append(_GRABS[GRAB_JOB])
            return None
        code, text = packet.arguments
        return ServerError(code.decode("utf-8", "replace"), text.decode("utf-8", "replace"))

    def _has_status(self, handle: bytes, known: bytes) -> None:
        if handle in self._raised:
            self._raised.discard(handle)
            if known == b"1":
                self._outbox.append(pack_request(WORK_FAIL, handle))

    # States.

    def _wake(self) -> None:
        self._is_awake = True
        self._is_asleep = False
        self._asleep_since = None

    def _go_on(self) -> None:
        """Grab what slots allow; when nothing is to be had, say that we sleep until woken."""
        if self.is_hungry():
            self.slots.stand_in_line(self)
        self.slots.serve()
        if self.is_registered and not self._is_awake and not self._is_asleep and not self._grabs:
            self._is_asleep = True
            self._asleep_since = None
            if not self.is_draining:
                self._outbox.append(_PRE_SLEEP)

    def _end(self, job: AssignedJob, type: int, *arguments: bytes) -> None:
        self.post(job, type, *arguments)
        if self._held.get(job.handle) is job:
            del self._held[job.handle]
            if type == WORK_EXCEPTION:
                self._outbox.append(pack_request(GET_STATUS, job.handle))
            if self._timed:
                # gearmand 1.1 forgets to stop the time limit of a job that is done, and hangs when it fires;
                # PRE_SLEEP stops it (section 3.6). A NOOP that may come of it does no harm.
                self._outbox.append(_PRE_SLEEP)
        self.slots.give_back()
        self._go_on()

    def __repr__(self) -> str:
        if not self.is_registered:
            state = "registering"
        elif self._is_asleep:
            state = "asleep"
        else:
            state = f"awake, {self._grabs} grabs in flight"
        return f"<WorkerSession {state}, {len(self._held)} jobs{', draining' if self.is_draining else ''}>"


def _registration(abilities: Mapping[bytes, TimeLimit], id: bytes) -> bytes:
    packets = [pack_request(SET_CLIENT_ID, id)] if id else []
    # Job servers look through a connection's functions from the one registered last (section 3.3).
    for function, timeout in reversed(list(abilities.items())):
        if timeout is None:
            packets.append(pack_request(CAN_DO, function))
        else:
            packets.append(pack_request(CAN_DO_TIMEOUT, function, b"%d" % max(1, round(timeout * 1000))))
    packets.append(pack_request(ECHO_REQ, _PROBE))
    return b"".join(packets)
