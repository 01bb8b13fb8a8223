"""What a client asks of a job server: a request, its one answer, and who waits for it.

A request is plain state. A ``ClientSession`` sends it and ends it; ``Servers`` chooses where it goes and sends it
again where that is allowed; the blocking and the asyncio client wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from geartrain.errors import GeartrainError, LocalProtocolError
from geartrain.link import Address
from geartrain.wire.packets import (
    ECHO_REQ,
    ECHO_RES,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    OPTION_REQ,
    OPTION_RES,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    pack_request,
)

Answer = TypeVar("Answer")

MAX_HANDLE = 63  # bytes; gearmand does not answer a question about a longer one (section 1.5)
MAX_UNIQUE = 64  # bytes


class Follower(Protocol):
    """Somebody who wants to know when a request changes."""

    def touched(self, request: Request[Any]) -> None: ...


class Request(Generic[Answer]):
    """One thing asked of a job server: ``packet`` is what is sent, ``expects`` the type of the packet that answers.

    ``address`` binds it to one server. ``key`` asks for the server that the key belongs to. ``resends`` is how many
    times more it may be sent when a connection ends before the answer. ``traceparent`` is where it belongs in a trace.
    """

    __slots__ = ("_followers", "address", "answer", "done", "error", "key", "packet", "resends", "sent_to")

    expects: ClassVar[int]
    traceparent: bytes = b""

    def __init__(
        self, packet: bytes, *, address: Address | None = None, key: bytes | None = None, resends: int = 1
    ) -> None:
        self.packet = packet
        self.address = address
        self.key = key
        self.resends = resends
        self.sent_to: Address | None = None  # the server it was sent to last
        self.done = False
        self.answer: Answer | None = None
        self.error: GeartrainError | None = None
        self._followers: list[Follower] | None = None

    def answered(self, arguments: tuple[bytes, ...]) -> None:
        """Take the arguments of the packet that answers."""
        raise NotImplementedError

    def resolve(self, answer: Answer) -> None:
        """End with an answer, and let go of what was only needed to get it."""
        self.answer = answer
        self.done = True
        self.packet = b""

    def fail(self, error: GeartrainError) -> None:
        """End without an answer."""
        self.error = error
        self.done = True
        self.packet = b""

    def outcome(self) -> Answer:
        """The answer of a request that is done; raises its error."""
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer

    def follow(self, follower: Follower) -> None:
        """Have ``follower`` told of every change, the last of which is that the request is done."""
        if self._followers is None:
            self._followers = []
        self._followers.append(follower)

    def unfollow(self, follower: Follower) -> None:
        """Undo ``follow``."""
        if self._followers is not None and follower in self._followers:
            self._followers.remove(follower)

    def tell_followers(self) -> None:
        """Tell of a change."""
        followers = self._followers
        if followers:
            if self.done:
                self._followers = None
            for follower in followers:
                follower.touched(self)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a job server knows of a job (section 3.11).

    A finished job is not ``known``, even where its result is kept. ``clients`` is how many wait for the job; it is only
    told where the question was about a unique key.
    """

    known: bool
    running: bool
    numerator: int = 0
    denominator: int = 0
    clients: int | None = None

    @property
    def fraction(self) -> float | None:
        """How much is done, as the worker says it: 0.0 to 1.0, ``None`` where it said nothing."""
        return self.numerator / self.denominator if self.denominator else None


class HandleStatusRequest(Request[JobStatus]):
    """GET_STATUS: what is known of a job by its handle."""

    __slots__ = ()
    expects = STATUS_RES

    def __init__(self, handle: bytes, address: Address | None) -> None:
        if len(handle) > MAX_HANDLE:
            raise LocalProtocolError(f"{handle!r} is no job handle: it is longer than {MAX_HANDLE} bytes")
        super().__init__(pack_request(GET_STATUS, handle), address=address)

    def answered(self, arguments: tuple[bytes, ...]) -> None:
        _, known, running, numerator, denominator = arguments
        self.resolve(JobStatus(known != b"0", running != b"0", number(numerator), number(denominator)))


class UniqueStatusRequest(Request[JobStatus]):
    """GET_STATUS_UNIQUE: what is known of a job by its unique key."""

    __slots__ = ()
    expects = STATUS_RES_UNIQUE

    def __init__(self, unique: bytes) -> None:
        if len(unique) > MAX_UNIQUE:
            raise LocalProtocolError(f"the unique {unique!r} is longer than {MAX_UNIQUE} bytes")
        super().__init__(pack_request(GET_STATUS_UNIQUE, unique), key=unique)

    def answered(self, arguments: tuple[bytes, ...]) -> None:
        _, known, running, numerator, denominator, clients = arguments
        self.resolve(JobStatus(known != b"0", running != b"0", number(numerator), number(denominator), number(clients)))


class EchoRequest(Request[bytes]):
    """ECHO_REQ: the same bytes back."""

    __slots__ = ()
    expects = ECHO_RES

    def __init__(self, data: bytes, address: Address | None = None, *, resends: int = 1) -> None:
        super().__init__(pack_request(ECHO_REQ, data), address=address, resends=resends)

    def answered(self, arguments: tuple[bytes, ...]) -> None:
        self.resolve(arguments[0])


class OptionRequest(Request[bytes]):
    """OPTION_REQ: set an option of the connection."""

    __slots__ = ("option",)
    expects = OPTION_RES

    def __init__(self, option: bytes) -> None:
        super().__init__(pack_request(OPTION_REQ, option), resends=0)
        self.option = option

    def answered(self, arguments: tuple[bytes, ...]) -> None:
        self.resolve(arguments[0])


def number(text: bytes) -> int:
    """A number of a WORK_STATUS or STATUS_RES; workers may send any text there, and what is none counts as 0."""
    try:
        return int(text)
    except ValueError:
        return 0
