"""The sockets of the job server: one wait, one read and one write for each in a turn."""

from typing import final

@final
class Poll:
    """The sockets of one daemon, beside what asyncio watches with the same epoll."""

    def __new__(cls, epoll: int) -> Poll: ...
    open: bool

    def attach(self, daemon: object, take_ready: object, always_settle: bool) -> None: ...
    def add(self, fd: int, is_tcp: bool) -> Socket: ...
    def interrupt(self) -> None: ...
    def select(self, timeout: float | None) -> list[tuple[int, int]]: ...

@final
class Socket:
    """One connection, as a transport of asyncio's kind; ``Poll.add`` makes it."""

    direct: bool

    def start(self, protocol: object, peer: object) -> None: ...
    def abort(self) -> None: ...
