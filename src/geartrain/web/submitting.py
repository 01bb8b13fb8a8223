"""Submissions through peers within the process.

A peer has one job at a time, and the next request takes it over when that has ended; so a client that goes away takes
its own foreground job with it and nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from geartrain.daemon.in_process import InProcessPeer
from geartrain.jobserver.origin import Origin
from geartrain.jobserver.rules.tracing import TRACEPARENT, is_traceparent
from geartrain.web.problems import Problem
from geartrain.wire.packets import (
    ERROR,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_WARNING,
    pack_request,
)
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.daemon.extension import Host
    from geartrain.wire.parser import Packet

FOREGROUND: Final = {"high": SUBMIT_JOB_HIGH, "normal": SUBMIT_JOB, "low": SUBMIT_JOB_LOW}
BACKGROUND: Final = {"high": SUBMIT_JOB_HIGH_BG, "normal": SUBMIT_JOB_BG, "low": SUBMIT_JOB_LOW_BG}
_IDLE_PEERS: Final = 100  # that wait for the next request
_WARNED: Final = 64 * 1024  # bytes of warnings that are kept of a job
_ENDS: Final = (WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION)


class Outcome:
    """What has come of a foreground job: the packet that ended it, the data before and in that, warnings.

    ``most`` bounds the data, in bytes.
    """

    def __init__(self, handle: bytes, most: int) -> None:
        self.handle = handle
        self.most = most
        self.end = 0  # WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION; 0: it has not ended in time
        self.data: list[bytes] = []
        self.size = 0
        self.warnings: list[bytes] = []
        self.warned = 0  # bytes of them, also of those that are not kept
        self.exception = b""

    def note(self, packet: Packet) -> bool:
        """Take what has come of the job; whether that is its end. Raises Problem if it is too much."""
        type = packet.type
        if type == WORK_WARNING:
            warning = packet.arguments[1]
            self.warned += len(warning)
            if len(self.warnings) < 100 and self.warned <= _WARNED:
                self.warnings.append(warning)
        elif type == WORK_EXCEPTION:
            self.exception = packet.arguments[1]
        elif type in (WORK_DATA, WORK_COMPLETE) and packet.arguments[1]:
            self.size += len(packet.arguments[1])
            if self.size > self.most:
                detail = f"The job has sent more than {self.most} bytes (--max-packet)"
                raise Problem(502, "result-too-large", detail)
            self.data.append(packet.arguments[1])
        if type not in _ENDS:
            return False
        self.end = type
        return True


class RefusedError(Exception):
    """The job server has answered ERROR: ``code`` and ``text`` are as on the wire."""

    def __init__(self, code: bytes, text: bytes) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def problem(self) -> Problem:
        """It, as what is answered over HTTP."""
        slug = self.code.decode("ascii", "replace").replace("_", "-").lower()
        if self.code == b"QUEUE_ERROR":
            return Problem(503, slug, as_text(self.text), headers={"Retry-After": "1"})
        return Problem(400, slug, as_text(self.text))


class Submitting:
    """Takes submissions to the job server. ``most_data`` bounds what is collected of one job, in bytes.

    ``follow`` is told the number of each background job before anything can have happened to it.
    """

    def __init__(self, host: Host, most_data: int, follow: Callable[[int], object]) -> None:
        self._host = host
        self._most_data = most_data
        self._follow = follow
        self._idle: list[InProcessPeer] = []

    async def run(
        self,
        function: bytes,
        unique: bytes,
        workload: bytes,
        *,
        priority: str = "normal",
        timeout: float,  # noqa: ASYNC109 - what is done then is ours
        on_begin: Callable[[Callable[[], None]], None] = lambda leave: None,
        on_created: Callable[[bytes], None] = lambda handle: None,
        traceparent: str = "",
    ) -> Outcome:
        """Submit a foreground job and wait for its end, at most ``timeout`` seconds.

        ``on_begin`` is given what to call if the client goes away; ``on_created`` the handle. ``traceparent`` is the
        request's header, whatever stands there. Raises RefusedError, Problem, and ConnectionError if the client has
        gone.
        """
        peer = self._take()
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True
            peer.close()

        on_begin(leave)
        outcome: Outcome | None = None
        ended = False
        timer = None
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            peer.close()

        try:
            peer.send(_option(traceparent) + pack_request(FOREGROUND[priority], function, unique, workload))
            timer = self._host.loop.call_later(timeout, give_up)
            while True:
                packet = peer.take_packet() or await peer.receive()
                if packet.type == JOB_CREATED:
                    outcome = Outcome(packet.arguments[0], self._most_data)
                    on_created(outcome.handle)
                elif packet.type == ERROR:
                    ended = True
                    raise RefusedError(packet.arguments[0], packet.arguments[1])
                elif outcome is not None:
                    if outcome.note(packet):
                        ended = True
                        return outcome
                    peer.keep(outcome.size)
        except ConnectionError:
            if late and outcome is not None:
                return outcome
            if self._host.server.draining:
                raise stopping() from None
            if gone:
                raise
            detail = "Too much is being collected at the moment for all together: try again"
            raise Problem(503, "too-much", detail, headers={"Retry-After": "1"}) from None
        finally:
            on_begin(_nothing)
            if timer is not None:
                timer.cancel()
            if ended:
                self._put_back(peer)
            else:
                peer.close()

    async def submit(
        self,
        function: bytes,
        unique: bytes,
        workload: bytes,
        *,
        priority: str = "normal",
        due: float = 0.0,
        on_new: Callable[[int], object] = lambda number: None,
        traceparent: str = "",
    ) -> bytes:
        """Submit a background job, to be run at the Unix time ``due`` or at once; its handle, once it is stored.

        ``on_new`` is told the number of a new job before anything has happened to it. Raises RefusedError, Problem.
        """
        peer = self._take()
        ended = False
        next_number = int(self._host.server.next_number)
        try:
            if due > 0:
                submission = pack_request(SUBMIT_JOB_EPOCH, function, unique, b"%d" % due, workload)
            else:
                submission = pack_request(BACKGROUND[priority], function, unique, workload)
            peer.send(_option(traceparent) + submission)
            number = int(self._host.server.next_number) - 1
            if number != next_number - 1:
                self._follow(number)
                on_new(number)
            packet = await peer.receive()
            while packet.type == OPTION_RES:
                packet = await peer.receive()
            ended = True
        except ConnectionError:
            raise stopping() from None
        finally:
            if ended:
                self._put_back(peer)
            else:
                peer.close()
        if packet.type == ERROR:
            raise RefusedError(packet.arguments[0], packet.arguments[1])
        return packet.arguments[0]

    def _take(self) -> InProcessPeer:
        while self._idle:
            peer = self._idle.pop()
            if not peer.closed:
                return peer
        try:
            peer = InProcessPeer(self._host, Origin("http"))
            peer.send(pack_request(OPTION_REQ, b"exceptions"))  # its answer comes before that to the first submission
        except ConnectionError as error:
            raise Problem(503, "stopping", str(error), headers={"Retry-After": "5"}) from None
        return peer

    def _put_back(self, peer: InProcessPeer) -> None:
        peer.keep(0)
        if len(self._idle) < _IDLE_PEERS:
            self._idle.append(peer)
        else:
            peer.close()

    def stop(self) -> None:
        """No request goes on."""
        for peer in self._idle:
            peer.close()
        self._idle.clear()


def _option(traceparent: str) -> bytes:
    """What tells the job server where the next submission belongs in a trace; nothing, if it does not say so."""
    written = traceparent.encode("latin-1", "replace")
    return pack_request(OPTION_REQ, TRACEPARENT + written) if is_traceparent(written) else b""


def stopping() -> Problem:
    """What is told to whoever comes, or still waits, while the job server stops."""
    return Problem(503, "stopping", "The job server is about to stop: try again", headers={"Retry-After": "5"})


def _nothing() -> None:
    pass
