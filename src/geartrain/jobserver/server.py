"""The job server: the rules that bring jobs to workers, as one plain object.

Bytes, connections and the time go in; replies, notices and the next deadline come out:

    peer = server.connect(host, fd)
    server.tick(now, wall)            the time, at the start of each turn
    server.receive(peer, data)        what the network delivered; also to go on with a stalled peer (data=b"")
    for peer in server.touched: ...   the peers that have something to write, or are to be closed
        peer.take(), peer.closing, peer.stalled
    server.next_deadline()            when to tick again at the latest
    server.lost(peer)                 the connection is gone

It never opens a socket, reads a clock, logs or waits, and never raises for anything that a peer sends.
"""

from __future__ import annotations

from typing import Final, final

from geartrain.jobserver.admin import answer
from geartrain.jobserver.assignment import can_do, can_do_timeout, cant_do, grab, reset_abilities
from geartrain.jobserver.deadlines import Deadlines
from geartrain.jobserver.function import Function
from geartrain.jobserver.job import DELAYED, RUNNING, Job
from geartrain.jobserver.journal import Journal, Read
from geartrain.jobserver.outcome import lose, report, report_too_large, stop_listening, time_out
from geartrain.jobserver.peer import Peer
from geartrain.jobserver.settings import Settings
from geartrain.jobserver.status import send_status, send_status_of_unique
from geartrain.jobserver.submission import release_due, submit
from geartrain.jobserver.table import JobTable
from geartrain.jobserver.waking import fall_asleep, get_up, pass_over_late, settle_woken, wake
from geartrain.native import i64
from geartrain.wire.packets import (
    ALL_YOURS,
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ECHO_REQ,
    ECHO_RES,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    LAYOUTS,
    OPTION_REQ,
    OPTION_RES,
    PRE_SLEEP,
    REQUEST_MAGIC,
    RESET_ABILITIES,
    SET_CLIENT_ID,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_REDUCE_JOB_BACKGROUND,
    TO_SERVER,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    response_head,
)
from geartrain.wire.parser import LARGE, LARGEST_BODY, LINE, MORE, TOO_LARGE, Parser

STALL_AT: Final = 1024 * 1024  # a peer's requests wait while so many bytes are to be written to it
MAX_EFFORT: Final = 10_000  # steps of dear requests in one call; what follows them waits for the peer's next turn
DUE_AT_ONCE: Final = 1000  # jobs that come due in one call of tick(), so that a full minute holds up nobody
MAX_CLIENT_ID: Final = 127
MAX_NOTICES: Final = 1000  # kept for one turn
_BYTES_A_SECOND: Final = 64 * 1024  # a half-sent packet that grows at this rate is in time

_INVALID_COMMAND: Final = b"INVALID_COMMAND"
_THREE_DIGITS: Final[list[bytes]] = [b"%03d" % n for n in range(1000)]


@final
class JobServer:
    """All functions, jobs and peers of one job server, and the rules of the protocol (sections 2 to 4)."""

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.settings: Settings = settings
        # Options that the rules read at every packet.
        self.worker_wakeup: i64 = settings.worker_wakeup
        self.wake_patience: float = settings.wake_patience
        self.listed_order: bool = settings.listed_order
        self.job_retries: i64 = settings.job_retries
        self.max_unique: i64 = settings.max_unique
        self.max_function: i64 = settings.max_function
        self.max_memory: i64 = settings.max_memory
        self.max_half_sent: i64 = settings.max_half_sent

        self.durable: bool = settings.durable
        self.journal: Journal = Journal()
        self.store_trouble: str = ""  # why the store takes nothing at the moment; empty: it does
        self.reads: list[Read] = []  # workloads to be fetched from the store

        self.now: float = 0.0  # monotonic, seconds
        self.wall: float = 0.0  # Unix time
        self.functions: dict[bytes, Function] = {}
        self.limits: dict[bytes, tuple[int, int, int]] = {}  # maxqueue of functions not seen yet
        self.jobs: JobTable = JobTable()
        self.next_number: i64 = 1
        self.memory: i64 = 0  # bytes that jobs take
        self.draining: bool = False  # refuse submissions; set by drain()
        self.effort: i64 = 0  # steps that this call of receive() has made for requests whose cost grows

        self.handle_start: bytes = settings.handle_prefix + b":"
        self.handle_thousand: i64 = -1  # handles share all but their last three digits with the previous one
        self.handle_stem: bytes = b""

        self.peers: dict[Peer, None] = {}
        self.abilities_registered: i64 = 0
        self.losses: i64 = 0  # workers that were lost with a job
        self.touched: list[Peer] = []
        self.first_woken: Peer | None = None
        self.last_woken: Peer | None = None
        self.delayed: Deadlines = Deadlines(self._is_delayed)  # in Unix time
        self.timeouts: Deadlines = Deadlines(self._is_timed)  # in monotonic time
        self.partials: dict[Peer, None] = {}  # peers with a half-sent packet
        self.partials_checked_at: float = 0.0
        self.partials_size: i64 = 0  # bytes of half-sent packets, all peers together

        self.notices: list[tuple[str, Peer | None, dict[str, object]]] = []  # what an operator may want to know

    # ── the four verbs ──────────────────────────────────────────────────────────────────────────────────────────

    def connect(self, host: str, fd: int) -> Peer:
        """A new connection from ``host``; ``fd`` is shown by the text command `workers`."""
        settings = self.settings
        parser = Parser(min(settings.max_body, LARGEST_BODY), settings.max_line)
        peer = Peer(self.touched, host, fd, parser, settings.exceptions)
        self.peers[peer] = None
        return peer

    def receive(self, peer: Peer, data: bytes) -> None:
        """Apply what a peer sent, as far as its output and fairness to others allow.

        The rest follows when called again with no data, once the output has been taken (``peer.stalled``).
        """
        if peer.closing or peer.gone:
            return
        parser = peer.parser
        if data:
            parser.feed(data)
        peer.stalled = False
        self.effort = 0
        whole = False  # whether a message came whole
        while True:
            if peer.unsent >= STALL_AT or self.effort >= MAX_EFFORT:
                peer.stalled = True
                peer.touch()
                break
            if peer.listing is not None:
                self._go_on_listing(peer)
                continue
            type: i64 = parser.advance()
            if type < 0:
                if type == MORE:
                    break
                if type == LINE:
                    answer(self, peer, parser.data[parser.body : parser.end])
                elif type != TOO_LARGE or not report_too_large(self, peer):
                    self._break_off(peer)
                if peer.closing:
                    return
            elif parser.magic != REQUEST_MAGIC:
                peer.send_error(b"INVALID_MAGIC", b"Request magic expected")
            elif type == WORK_COMPLETE:
                report(self, peer, type)
            elif type in (GRAB_JOB_UNIQ, GRAB_JOB_ALL, GRAB_JOB):
                grab(self, peer, type)
            elif type in (SUBMIT_JOB, SUBMIT_JOB_BG):
                submit(self, peer, type)
            elif type == PRE_SLEEP:
                fall_asleep(self, peer)
            else:
                self._rarer(peer, type)
            whole = True
        if parser.waiting or peer.partial_since > 0:
            self._watch_partial(peer, whole)

    def tick(self, now: float, wall: float) -> None:
        """Tell the time (monotonic seconds, Unix time) and do what is due.

        Of very many jobs that are due at once some are left for the next call, for which ``next_deadline`` asks soon.
        """
        self.now = now
        self.wall = wall
        woken = self.first_woken
        if woken is not None and woken.woken_until <= now:
            pass_over_late(self)
        if self.timeouts.heap:
            left: i64 = DUE_AT_ONCE
            number = self.timeouts.pop_due(now)
            while number >= 0:
                job = self.jobs.get(number)
                assert job is not None
                time_out(self, job)
                left -= 1
                number = self.timeouts.pop_due(now) if left > 0 else -1
        if self.delayed.heap:
            release_due(self, DUE_AT_ONCE)
        if self.partials and now >= self.partials_checked_at + 1.0:
            self._cut_slow_partials()

    def next_deadline(self) -> float:
        """When tick() has something to do at the latest, in monotonic seconds; 0 if nothing is planned."""
        soonest = 0.0
        woken = self.first_woken
        if woken is not None:
            soonest = woken.woken_until
        at = self.timeouts.next_at()
        if at > 0 and (soonest == 0 or at < soonest):
            soonest = at
        at = self.delayed.next_at()
        if at > 0:
            at = self.now + max(at - self.wall, 0.0)
            if soonest == 0 or at < soonest:
                soonest = at
        if self.partials:
            at = self.partials_checked_at + 1.0
            if soonest == 0 or at < soonest:
                soonest = at
        return soonest

    def lost(self, peer: Peer) -> None:
        """A connection is gone: its jobs go back to their lines, jobs that only it waited for are dropped."""
        if peer.gone:
            return
        peer.gone = True
        if not peer.closing:
            self._retire(peer)
        peer.pieces = []
        peer.unsent = 0

    # ── what the shell may ask ──────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """Refuse submissions from now on; what runs may finish."""
        self.draining = True

    @property
    def running(self) -> int:
        """How many jobs are assigned to workers."""
        return sum(function.running for function in self.functions.values())

    def take_notices(self) -> list[tuple[str, Peer | None, dict[str, object]]]:
        """What happened that an operator may want to know: (event, peer, fields), oldest first."""
        notices = self.notices
        if notices:
            self.notices = []
        return notices

    # ── for the rules ───────────────────────────────────────────────────────────────────────────────────────────

    def handle(self, number: i64) -> bytes:
        """The handle of a job (section 3.1)."""
        thousand: i64 = number // 1000
        if thousand == 0:
            return self.handle_start + b"%d" % number
        if thousand != self.handle_thousand:
            self.handle_thousand = thousand
            self.handle_stem = self.handle_start + b"%d" % thousand
        return self.handle_stem + _THREE_DIGITS[number % 1000]

    def shown_handle(self, job: Job) -> str:
        """The handle as text, for notices."""
        return self.handle(job.number).decode("utf-8", "replace")

    def function_for(self, peer: Peer, name: bytes) -> Function | None:
        """The function with this name, made if need be; None if a limit forbids it, and ``peer`` got the ERROR."""
        function = self.functions.get(name)
        if function is not None:
            return function
        if len(name) > self.max_function:
            peer.send_error(b"ARGUMENT_TOO_LARGE", b"Function name above the limit of %d bytes" % self.max_function)
            return None
        if len(self.functions) >= self.settings.max_functions:
            peer.send_error(b"QUEUE_ERROR", b"The job server has %d functions and takes no more" % len(self.functions))
            return None
        return self.create_function(name)

    def create_function(self, name: bytes) -> Function:
        """The function with this name, made if need be."""
        function = self.functions.get(name)
        if function is None:
            function = Function(name)
            self.functions[name] = function
            limits = self.limits.pop(name, None)
            if limits is not None:
                function.max_high, function.max_normal, function.max_low = limits
        return function

    def drop_function(self, function: Function) -> None:
        """Forget a function that has neither workers nor jobs."""
        self.effort += len(self.peers)
        del self.functions[function.name]
        for peer in self.peers:
            if peer.last_function is function:
                peer.last_function = None

    def hang_up(self, peer: Peer) -> None:
        """Close a connection from our side: what it was told is still written, but it has no part in anything more."""
        if not peer.closing:
            peer.close()
            self._retire(peer)

    def set_limits(self, name: bytes, high: int, normal: int, low: int) -> None:
        """Set maxqueue; for a function not seen yet it is kept until that comes."""
        function = self.functions.get(name)
        if function is not None:
            function.max_high, function.max_normal, function.max_low = high, normal, low
        elif name in self.limits or len(self.limits) < self.settings.max_functions:
            self.limits[name] = (high, normal, low)

    def notice(self, event: str, peer: Peer | None, fields: dict[str, object]) -> None:
        """Leave a word for the operator."""
        if len(self.notices) < MAX_NOTICES:
            self.notices.append((event, peer, fields))

    def too_few_arguments(self, peer: Peer, type: i64) -> None:
        """The answer to a packet whose body lacks arguments; its length is known, so the stream goes on."""
        name, _, arguments = LAYOUTS[type]
        text = f"{name} carries {len(arguments)} arguments ({', '.join(arguments)}), each but the last ended by a NUL"
        peer.send_error(b"INVALID_PACKET", text.encode())
        self.notice("malformed_packet", peer, {"type": name})

    # ── the rest of the packets ─────────────────────────────────────────────────────────────────────────────────

    def _rarer(self, peer: Peer, type: i64) -> None:
        if type in (WORK_STATUS, WORK_DATA, WORK_FAIL, WORK_EXCEPTION, WORK_WARNING):
            report(self, peer, type)
        elif type == SUBMIT_JOB_HIGH or SUBMIT_JOB_HIGH_BG <= type <= SUBMIT_REDUCE_JOB_BACKGROUND:
            submit(self, peer, type)  # 32 to 38 are ways to submit, all of them
        else:
            self._rarest(peer, type)

    def _rarest(self, peer: Peer, type: i64) -> None:
        layout = LAYOUTS.get(type)
        if layout is None and type != 5:
            peer.send_error(_INVALID_COMMAND, b"Invalid command expected")
            self.notice("unknown_packet", peer, {"type": int(type)})
            return
        if layout is None or layout[1] & TO_SERVER == 0:
            peer.send_error(_INVALID_COMMAND, b"Command not expected")
            return
        body = peer.parser.last_argument(peer.parser.body)
        if type == ECHO_REQ:
            peer.send(response_head(ECHO_RES, len(body)))
            if body:
                peer.send(body)
        elif type == GET_STATUS:
            send_status(self, peer, body)
        elif type == GET_STATUS_UNIQUE:
            send_status_of_unique(self, peer, body)
        elif type == CAN_DO:
            can_do(self, peer, body, 0.0)
        elif type == CANT_DO:
            cant_do(self, peer, body)
        elif type == CAN_DO_TIMEOUT:
            name, nul, milliseconds = body.partition(b"\0")
            if nul:
                can_do_timeout(self, peer, name, milliseconds)
            else:
                self.too_few_arguments(peer, type)
        elif type == RESET_ABILITIES:
            reset_abilities(self, peer)
        elif type == SET_CLIENT_ID:
            peer.client_id = body[:MAX_CLIENT_ID]
        elif type == OPTION_REQ:
            if body.lower() == b"exceptions":
                peer.exceptions = True
                peer.send(response_head(OPTION_RES, len(body)) + body)
            else:
                peer.send_error(b"UNKNOWN_OPTION", b"Server does not recognize given option")
        else:
            assert type == ALL_YOURS  # taken, and without effect

    def _go_on_listing(self, peer: Peer) -> None:
        listing = peer.listing
        assert listing is not None
        chunk = next(listing, None)
        if chunk is None:
            peer.listing = None
        else:
            peer.send(chunk)
            self.effort += chunk.count(b"\n")

    def _retire(self, peer: Peer) -> None:
        """Take a peer out of everything: as client first, lest anybody is woken for jobs that nobody wants."""
        stop_listening(self, peer)
        if peer.sleeping:
            get_up(peer)
        function = peer.woken_for
        if function is not None:
            settle_woken(self, peer)
            wake(self, function)
        ability = peer.first_ability
        while ability is not None:
            ability.function.workers -= 1
            ability = ability.next
        peer.first_ability = None
        peer.last_ability = None
        peer.abilities = None
        job = peer.running
        while job is not None:
            following = job.next
            lose(self, job)
            job = following
        self.peers.pop(peer, None)
        self._forget_partial(peer)
        peer.listing = None

    # ── input that can't be followed ────────────────────────────────────────────────────────────────────────────

    def _break_off(self, peer: Peer) -> None:
        """The stream is broken: say why, and close."""
        parser = peer.parser
        if parser.trouble_code == "LINE_TOO_LONG":
            peer.send(b"ERR LINE_TOO_LONG %b\r\n" % parser.trouble.replace(" ", "+").encode())
        else:
            peer.send_error(parser.trouble_code.encode(), parser.trouble.encode())
        self.notice("stream_broken", peer, {"trouble": parser.trouble})
        self.hang_up(peer)

    def _watch_partial(self, peer: Peer, whole: bool) -> None:
        """Note when a half-sent packet begins, and when it has come ``whole``: then what waits is another one."""
        if peer.parser.waiting and not peer.stalled:
            if whole or peer.partial_since == 0:
                peer.partial_since = self.now if self.now > 0 else 1e-9
                if not self.partials:
                    self.partials_checked_at = self.now
                self.partials[peer] = None
            came = 0 if peer.parser.skipping else _came(peer)
            self.partials_size += came - peer.partial_size
            peer.partial_size = came
            if came > LARGE and self.partials_size > self.max_half_sent > 0:
                peer.send_error(b"QUEUE_ERROR", b"The job server's memory for half-sent packets is full")
                fields: dict[str, object] = {"half_sent": int(self.partials_size), "limit": int(self.max_half_sent)}
                self.notice("memory_full", peer, fields)
                self.hang_up(peer)
        elif peer.partial_since > 0:
            self._forget_partial(peer)

    def _forget_partial(self, peer: Peer) -> None:
        peer.partial_since = 0.0
        self.partials_size -= peer.partial_size
        peer.partial_size = 0
        self.partials.pop(peer, None)

    def _cut_slow_partials(self) -> None:
        """Close the connections that send a packet too slowly; looked at once a second while there are any."""
        self.partials_checked_at = self.now
        for peer in list(self.partials):
            came = _came(peer)
            allowed = self.settings.packet_timeout + came / _BYTES_A_SECOND
            waited = self.now - peer.partial_since
            if waited > allowed:
                peer.send_error(b"TIMEOUT", b"The packet did not come whole within %d seconds" % int(allowed))
                self.notice("packet_too_slow", peer, {"received": int(came), "seconds": int(waited)})
                self.hang_up(peer)

    def _is_delayed(self, number: int, _: int) -> bool:
        job = self.jobs.get(number)
        return job is not None and job.state == DELAYED

    def _is_timed(self, number: int, assignment: int) -> bool:
        job = self.jobs.get(number)
        return job is not None and job.state == RUNNING and job.assignments == assignment


def _came(peer: Peer) -> i64:
    """How many bytes of the peer's half-sent packet are here."""
    parser = peer.parser
    if parser.pieces is None:
        return parser.size - parser.at
    return parser.end - parser.at - parser.missing
