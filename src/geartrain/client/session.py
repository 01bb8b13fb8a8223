"""The client's side of one connection, without I/O: requests and bytes go in, bytes and finished requests come out.

Answers carry no number: JOB_CREATED, ERROR, STATUS_RES, OPTION_RES and ECHO_RES belong to the requests in the order in
which those were sent. WORK_* packets name their job by its handle. Sections 1.7, 3.2 and 3.7 of the protocol.

Four verbs: ``receive`` what came, ``take`` what is to be sent, ``tick`` with the time, ``lost`` when the connection has
ended. When ``receive`` or ``tick`` raises, the connection is of no more use: close it and call ``lost``.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from geartrain.client.request import EchoRequest, OptionRequest, Request, number
from geartrain.client.submission import DataEvent, StatusEvent, Submission, WarningEvent
from geartrain.errors import (
    ConnectionLostError,
    JobFailedError,
    JobRaisedError,
    PacketTooLargeError,
    QueueFullError,
    RemoteProtocolError,
    ServerError,
)
from geartrain.wire.packets import (
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    OPTION_RES,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    packet_name,
)
from geartrain.wire.parser import DEFAULT_MAX_RECEIVED, Packet, Parser

ANSWER_SECONDS = 30.0

_ANSWERS = frozenset((JOB_CREATED, ERROR, STATUS_RES, STATUS_RES_UNIQUE, OPTION_RES, ECHO_RES))
_TRACEPARENT = b"traceparent="  # the option that says it of the next submission
_ENDS = frozenset((WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION))
_PARTS = frozenset((WORK_DATA, WORK_STATUS, WORK_WARNING))


class ClientSession:
    """The requests of one connection and what has come of them.

    A job server that owes an answer and is silent for ``answer_seconds`` counts as lost. One that owes none but has
    jobs of ours is asked for an echo after the same silence, so a frozen server is noticed too.

    With ``exceptions`` the job server is asked to pass on the text of WORK_EXCEPTION; without, such a job just fails.
    """

    def __init__(
        self,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        exceptions: bool = True,
        max_body: int = DEFAULT_MAX_RECEIVED,
    ) -> None:
        self.answer_seconds = answer_seconds
        self.has_heard = False  # anything at all from this server
        self._parser = Parser(max_body)
        self._unsent: list[bytes] = []
        self._owed: deque[Request[Any]] = deque()
        self._jobs: dict[bytes, list[Submission]] = {}  # by handle; more than one where submissions coalesced
        self._turns: dict[bytes, int] = {}  # of coalesced submissions: whose copy of a packet comes next
        self._is_fresh = False  # whether something moved since the last tick
        self._quiet_since = 0.0
        self._knows_traces = True  # until the job server has said that it does not
        if exceptions:
            self.send(OptionRequest(b"exceptions"))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is owed to us."""
        return not self._owed and not self._jobs

    def send(self, request: Request[Any]) -> None:
        """Send a request; ``receive`` says when something has come of it."""
        if request.traceparent and self._knows_traces:
            option = OptionRequest(_TRACEPARENT + request.traceparent)
            self._unsent.append(option.packet)
            self._owed.append(option)
        self._unsent.append(request.packet)
        self._owed.append(request)
        self._is_fresh = True
        if not request.resends:
            request.packet = b""

    def take(self) -> bytes:
        """The bytes that are to be sent."""
        if not self._unsent:
            return b""
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        return data

    def moved(self) -> None:
        """Some of the taken bytes have gone out: the other side is alive, if slow."""
        self._is_fresh = True

    def receive(self, data: bytes) -> list[Request[Any]]:
        """Take bytes from the job server; returns the requests that have changed.

        Raises RemoteProtocolError if the stream can't be followed.
        """
        self._is_fresh = self.has_heard = True
        self._parser.feed(data)
        touched: list[Request[Any]] = []
        while True:
            try:
                packet = self._parser.next_packet()
            except PacketTooLargeError as error:
                self._lose_part(error, touched)
                continue
            if packet is None:
                break
            if packet.type in _ANSWERS:
                touched.append(self._answer(packet))
            elif packet.type in _ENDS:
                self._end_job(packet, touched)
            elif packet.type in _PARTS:
                self._add_event(packet, touched)
            else:
                raise RemoteProtocolError(f"the job server sent {packet_name(packet.type)}, which is not for clients")
        return touched

    def tick(self, now: float) -> float | None:
        """Say what time it is, in seconds of any steady clock; returns when to call again, ``None`` for never.

        Raises ConnectionLostError if the job server has been silent for too long.
        """
        if self._is_fresh:
            self._is_fresh = False
            self._quiet_since = now
        if not self._owed and not self._jobs:
            return None
        deadline = self._quiet_since + self.answer_seconds
        if now < deadline:
            return deadline
        if self._owed:
            raise ConnectionLostError(f"the job server owes an answer and was silent for {self.answer_seconds:g} s")
        self.send(EchoRequest(b"", resends=0))
        self._is_fresh = False
        self._quiet_since = now
        return now + self.answer_seconds

    def lost(self) -> list[Request[Any]]:
        """The connection has ended; returns the requests that are not done, in the order of sending."""
        jobs = [job for jobs in self._jobs.values() for job in jobs]
        open_requests = [request for request in (*jobs, *self._owed) if not request.done]
        self._owed.clear()
        self._jobs.clear()
        self._turns.clear()
        self._unsent.clear()
        return open_requests

    def _answer(self, packet: Packet) -> Request[Any]:
        if not self._owed:
            raise RemoteProtocolError(f"the job server sent {packet!r}, but nothing was asked")
        request = self._owed[0]
        if packet.type not in (ERROR, request.expects):
            raise RemoteProtocolError(  # the request stays owed, so that ``lost`` gives it back
                f"the job server sent {packet_name(packet.type)} where {packet_name(request.expects)} was due"
            )
        self._owed.popleft()
        if packet.type == ERROR:
            if isinstance(request, OptionRequest) and request.option.startswith(_TRACEPARENT):
                self._knows_traces = False
            if not request.done:
                code, text = (argument.decode("utf-8", "replace") for argument in packet.arguments)
                request.fail((QueueFullError if code == "QUEUE_ERROR" else ServerError)(code, text))
        else:
            if isinstance(request, Submission) and not request.is_background:
                # One that was given up is followed too: its copy of each packet comes all the same.
                jobs = self._jobs.setdefault(packet.arguments[0], [])
                jobs.append(request)
                if len(jobs) == 2:
                    self._turns[packet.arguments[0]] = 0
            if not request.done:
                request.answered(packet.arguments)
        return request

    def _end_job(self, packet: Packet, touched: list[Request[Any]]) -> None:
        """The first of the packets that end a job ends all its submissions; further ones find nobody."""
        handle = packet.arguments[0]
        if packet.type == WORK_FAIL:
            handle = handle.partition(b"\0")[0]  # gearmand adds a NUL where it hides an exception
        jobs = self._jobs.pop(handle, ())
        self._turns.pop(handle, None)
        for job in jobs:
            if job.done:
                continue
            if packet.type == WORK_COMPLETE:
                job.resolve(packet.arguments[1])
            elif packet.type == WORK_FAIL:
                job.fail(JobFailedError())
            else:
                job.fail(JobRaisedError(packet.arguments[1]))
            touched.append(job)

    def _lose_part(self, error: PacketTooLargeError, touched: list[Request[Any]]) -> None:
        """A result, or a part of one, is above our limit: its submissions fail, and what follows finds nobody."""
        if error.type not in _ENDS | _PARTS:
            raise error
        for job in self._jobs.get(error.arguments[0], ()):
            if not job.done:
                job.fail(error)
                touched.append(job)
        if error.type in _ENDS:
            self._jobs.pop(error.arguments[0], None)
            self._turns.pop(error.arguments[0], None)

    def _add_event(self, packet: Packet, touched: list[Request[Any]]) -> None:
        """Job servers send each packet once for each submission, so coalesced submissions take them in turn."""
        handle = packet.arguments[0]
        jobs = self._jobs.get(handle)
        if not jobs:
            return
        turn = 0
        if len(jobs) > 1:
            turn = self._turns[handle]
            self._turns[handle] = (turn + 1) % len(jobs)
        job = jobs[turn]
        if job.done:
            return
        if packet.type == WORK_DATA:
            job.add_event(DataEvent(packet.arguments[1]))
        elif packet.type == WORK_WARNING:
            job.add_event(WarningEvent(packet.arguments[1]))
        else:
            job.add_event(StatusEvent(number(packet.arguments[1]), number(packet.arguments[2])))
        touched.append(job)

    def __repr__(self) -> str:
        return f"<ClientSession: {len(self._owed)} answers owed, {len(self._jobs)} jobs>"
