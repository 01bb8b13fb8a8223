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

The registration begins with the question whether the job server knows policies. One that does is told those that the
worker declares, by text commands whose answers come as lines between the packets, and what a function wants to become
of its job. Any other is sent nothing that it can't know.

Sections 3.5 to 3.8 of the protocol.
"""

from __future__ import annotations

from collections import deque
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
    OPTION_REQ,
    OPTION_RES,
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
_TRACES: Final = b"traces"  # asks for the next one ahead of each job that has it
_TRACEPARENT: Final = b"traceparent="
_POLICIES: Final = b"policies"  # the option that a job server grants which knows them

TimeLimit = float | None  # seconds until the job server gives up a job of the function; None: never


@final
class PolicyRefusal:
    """A job server does not keep to a policy or a verdict; ``text`` says to which, and why, behind its address."""

    def __init__(self, text: str) -> None:
        self.text = text


Event = AssignedJob | ServerError | PolicyRefusal


@final
class WorkerSession(Grabber):
    """One worker's conversation with one job server.

    ``abilities`` names the functions (as the job server knows them), each with its time limit in seconds or None; the
    one named first is served first where the job server keeps to an order. ``slots`` is shared by all sessions of a
    worker. ``id`` is what the job server lists the worker as. A sleeping worker asks again after ``regrab_after``
    seconds, since job servers forget to wake (section 3.5). A job server that leaves a request without any answer for
    ``answer_within`` seconds is given up. A job in a packet of more than ``max_packet`` bytes comes with an ``error``
    in place of its workload. ``policies`` has the words of ``policy set`` for functions whose policy is declared. With
    ``traces`` job servers that can are asked to say where jobs belong in a trace.
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
        policies: Mapping[bytes, bytes] | None = None,
        traces: bool = False,
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
        self._policies = dict(policies or {})
        self._traces = traces
        self._has_told_of_verdicts = False
        self._untold: PolicyRefusal | None = None
        self._start()

    def _start(self) -> None:
        """Begin as on a new connection."""
        self.is_registered = False
        self.knows_policies = False  # whether the job server does
        self._awaits_option = True
        self._awaits_traces = False
        self._traceparent = b""  # of the job that comes next
        self._asked: deque[bytes] = deque()  # functions whose policy was told, till the job server has answered
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

    def receive(self, data: bytes) -> list[Event]:
        """Take in bytes from the job server; returns the jobs it assigned, the errors it reported, what it refused.

        Each job must be ended by ``complete``, ``fail``, ``raised`` or ``declined``. All else is for the log. Raises
        RemoteProtocolError, after which the connection is of no more use.
        """
        self._silent_since = None
        self._parser.feed(data)
        events: list[Event] = []
        if self._untold is not None:
            events.append(self._untold)
            self._untold = None
        while True:
            event: Event | None
            if self._asked:
                line = self._parser.next_line()
                if line is not None:
                    event = self._has_policy(line)
                    if event is not None:
                        events.append(event)
                    continue
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
        WORK_FAIL. So the job server is asked whether the job still exists, and only then told that it failed. One that
        knows policies is not: a job that it tries again exists, and may be here again by then.
        """
        if not job.lost and not self.knows_policies:
            self._raised.add(job.handle)
        self._end(job, WORK_EXCEPTION, text)

    def declined(self, job: AssignedJob, verdict: bytes, text: bytes) -> None:
        """The job was not done, and is to be tried again or not: WORK_FAIL with the ``verdict`` of its function, which
        is ``retry``, ``retry=SECONDS`` or ``reject``, and the text for its clients if that was the end.

        To a job server without policies it has raised or failed.
        """
        if self.knows_policies:
            if self._held.get(job.handle) is job:
                self._outbox.append(pack_request(WORK_FAIL, b"\0".join((job.handle, verdict, text))))
            self._ended(job, WORK_FAIL)
            return
        if not self._has_told_of_verdicts and not job.lost:
            self._has_told_of_verdicts = True
            self._untold = PolicyRefusal("knows no policies: a job with a verdict, Retry or Reject, just fails there")
        if text:
            self.raised(job, text)
        else:
            self.fail(job)

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

    def _read(self, packet: Packet) -> Event | None:
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
            return self._proven()
        elif type == OPTION_RES and self._awaits_option and packet.arguments[0] == _POLICIES:
            self._tell_policies()
        elif type == OPTION_RES and packet.arguments[0].startswith(_TRACEPARENT):
            self._traceparent = packet.arguments[0][len(_TRACEPARENT) :]
        elif type == OPTION_RES and self._awaits_traces and packet.arguments[0] == _TRACES:
            self._awaits_traces = False
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
        if self._traceparent:
            job.traceparent = self._traceparent
            self._traceparent = b""
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

    def _proven(self) -> Event | None:
        """The job server has read the registration, and answered before if it had an answer to the option."""
        self._awaits_option = False
        was_registered = self.is_registered
        self.is_registered = True
        self._wake()
        if was_registered or self.knows_policies or not self._policies:
            return None
        names = ", ".join(function.decode("utf-8", "replace") for function in self._policies)
        return PolicyRefusal(f"knows no policies: those of {names} do not hold there")

    def _tell_policies(self) -> None:
        self._awaits_option = False
        self.knows_policies = True
        if self._traces:
            self._awaits_traces = True
            self._outbox.append(pack_request(OPTION_REQ, _TRACES))
        for function, words in self._policies.items():
            self._outbox.append(b"policy set %b %b\r\n" % (function, words))
            self._asked.append(function)

    def _has_policy(self, line: bytes) -> PolicyRefusal | None:
        """The answer to the oldest ``policy set`` that has none."""
        function = self._asked.popleft().decode("utf-8", "replace")
        if line == b"OK":
            return None
        if not line.startswith(b"ERR "):
            raise RemoteProtocolError(f"the job server answered the policy of {function} by {line[:80]!r}")
        why = line[4:].replace(b"+", b" ").decode("utf-8", "replace")
        return PolicyRefusal(f"refused the policy of {function}: {why}")

    def _refused(self, packet: Packet) -> ServerError | None:
        """An ERROR names no request. The first on a connection is about the option, with which it begins. The first
        with just its first grab in flight is about that grab, and means a server that knows only the oldest way to
        grab. Any other is about a job that is no more ours."""
        if self._awaits_option or self._awaits_traces:
            self._awaits_option = self._awaits_traces = False
            return None
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
        self._ended(job, type)

    def _ended(self, job: AssignedJob, type: int) -> None:
        if self._held.get(job.handle) is job:
            del self._held[job.handle]
            if type == WORK_EXCEPTION and not self.knows_policies:
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
    packets = [pack_request(OPTION_REQ, _POLICIES)]
    if id:
        packets.append(pack_request(SET_CLIENT_ID, id))
    # Job servers look through a connection's functions from the one registered last (section 3.3).
    for function, timeout in reversed(list(abilities.items())):
        if timeout is None:
            packets.append(pack_request(CAN_DO, function))
        else:
            packets.append(pack_request(CAN_DO_TIMEOUT, function, b"%d" % max(1, round(timeout * 1000))))
    packets.append(pack_request(ECHO_REQ, _PROBE))
    return b"".join(packets)
