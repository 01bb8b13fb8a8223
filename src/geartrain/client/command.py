"""A text command: the line that asks, and its answer as it comes (section 4 of the protocol).

Data lines end in a bare newline, refusals in CR LF. Each command is asked on a connection of its own, so it never
comes between packets.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from typing import Final, Literal

from geartrain.errors import (
    ConnectError,
    ConnectionLostError,
    GeartrainError,
    LocalProtocolError,
    RemoteProtocolError,
    ServerError,
    TimedOutError,
    UnknownJobError,
)
from geartrain.link import Address, AsyncLink, BlockingLink
from geartrain.wire.packets import SET_CLIENT_ID, pack_request
from geartrain.wire.text import as_text

Name = str | bytes
Form = Literal["line", "listing", "data"]
_OURS: Final = re.compile(
    rb"(policy|pause|resume|why|show job|show function|result|retry|priority|dead|schedule) ", re.ASCII
)
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|([tnr\\]))")
_LETTERS: Final = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"\\": b"\\"}
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~:/,+=@")


class Command:
    """A command of some ``words``; the ``form`` of its answer is a line, a listing with a dot below, or bytes after
    the line that ends in their count, of which there must not be more than ``limit``. A job server is told before who
    asks, where that is given.
    """

    def __init__(self, *words: bytes, form: Form = "line", who: bytes = b"", limit: int | None = None) -> None:
        self.text = b" ".join(words)
        self.sent = (pack_request(SET_CLIENT_ID, who) if who else b"") + self.text + b"\r\n"
        self._form = form
        self._limit = limit
        self._answer = bytearray()

    def receive(self, data: bytes) -> bool:
        """Take what has come; whether the answer is whole. Raises ServerError for a refusal, RemoteProtocolError."""
        answer = self._answer
        answer += data
        if answer.startswith(b"ERR ") and answer.endswith(b"\r\n") and b"\t" not in answer:
            error = refusal(bytes(answer[4:]))
            if error.code in ("UNKNOWN_COMMAND", "UNKNOWN_SHOW_ARGUMENTS"):
                raise ServerError(error.code, error.text + self.doubt)
            raise error
        if self._form == "listing":
            return answer == b".\n" or answer.endswith(b"\n.\n")
        if self._form == "line":
            return answer.endswith(b"\n")
        end = answer.find(b"\n", 0, 100)
        if end < 0 and len(answer) < 100:
            return False
        size = answer[:end].rpartition(b" ")[2]
        if not answer.startswith(b"OK ") or not size.isdigit():
            raise RemoteProtocolError(f"an answer can't be read: {bytes(answer[:200])!r}")
        if self._limit is not None and int(size) > self._limit:
            raise RemoteProtocolError(
                f"an answer of {int(size)} bytes is above the limit of {self._limit} (max_packet)"
            )
        return len(answer) > end + int(size)

    @property
    def doubt(self) -> str:
        """What is to be added where a job server seems not to know the command."""
        if self.text.startswith(b"fleet "):
            return "; the job server has to be a geartrain with --fleet"
        if _OURS.match(self.text + b" "):
            return "; the job server has to be a geartrain that has policies and schedules"
        return ""

    def answer(self) -> bytes:
        """The answer as far as it has come."""
        return bytes(self._answer)

    def lines(self) -> list[bytes]:
        """The lines of a listing, without the dot."""
        return self.answer().split(b"\n")[:-2]

    def data(self) -> tuple[list[bytes], bytes]:
        """The words before the count of bytes, ``OK`` left out, and the bytes."""
        end = self._answer.index(b"\n")
        return bytes(self._answer[:end]).split(b" ")[1:-1], bytes(self._answer[end + 1 :])

    def __repr__(self) -> str:
        return f"<Command {as_text(self.text)}>"


def ask(
    command: Command,
    address: Address,
    *,
    connect_timeout: float,
    timeout: float | None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Ask a job server, and wait until the answer is whole, at most ``timeout`` seconds.

    Raises ConnectError, ConnectionLostError, TimedOutError, ServerError, RemoteProtocolError.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with BlockingLink.connect(address, timeout=connect_timeout, tls=tls) as link:
        link.send(command.sent, timeout)
        while True:
            try:
                data = link.receive(None if deadline is None else max(deadline - time.monotonic(), 0))
            except TimedOutError:
                raise _late(command, address, timeout) from None
            if not data:
                raise _closed(command, address)
            if command.receive(data):
                return


async def ask_async(
    command: Command,
    address: Address,
    *,
    connect_timeout: float,
    timeout: float | None,  # noqa: ASYNC109 - the same words as the blocking form
    tls: ssl.SSLContext | None = None,
) -> None:
    """The same on asyncio."""
    whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_data(data: bytes) -> None:
        if whole.done():
            return
        try:
            if command.receive(data):
                whole.set_result(None)
        except (ServerError, RemoteProtocolError) as error:
            whole.set_exception(error)

    def on_lost(error: Exception | None) -> None:
        if not whole.done():
            whole.set_exception(_closed(command, address))

    link = await AsyncLink.connect(address, on_data, on_lost, timeout=connect_timeout, tls=tls)
    try:
        link.send(command.sent)
        async with asyncio.timeout(timeout):
            await whole
    except TimeoutError:
        raise _late(command, address, timeout) from None
    finally:
        link.close()


def word(name: Name) -> bytes:
    """A name as it may stand in a line of text."""
    encoded = name.encode() if isinstance(name, str) else bytes(name)
    if not encoded or any(byte <= 32 for byte in encoded):
        raise LocalProtocolError(f"{name!r} can't be told to a job server in text: it is empty or holds white space")
    return encoded


def quoted(name: Name) -> bytes:
    """A name of any bytes as one word: those that can't stand there are written as %XX."""
    encoded = name.encode() if isinstance(name, str) else bytes(name)
    return b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in encoded)


def read_back(value: bytes) -> bytes:
    """A value of ``show job``, ``show function`` or ``dead list`` as it is, without its escapes; raises ValueError."""
    return _ESCAPE.sub(_unescaped, value)


def _unescaped(found: re.Match[bytes]) -> bytes:
    byte, character, letter = found.groups()
    if byte is not None:
        return bytes([int(byte, 16)])
    return _LETTERS[letter] if character is None else chr(int(character, 16)).encode()


def refusal(text: bytes) -> ServerError:
    """``ERR CODE Some+words`` or ``ERR some words``; the Perl server writes its codes small."""
    code, _, words = as_text(text.strip()).partition(" ")
    if code == "UNKNOWN_JOB":
        return UnknownJobError(code, words.replace("+", " "))
    if code.isupper() or "_" in code:
        return ServerError(code, words.replace("+", " "))
    return ServerError("ERR", f"{code} {words}".strip())


def worse(first: GeartrainError | None, second: GeartrainError) -> GeartrainError:
    """Of two reasons why a job was not found the one to tell: a job server that was not reached may know it."""
    return second if first is None or isinstance(second, ConnectError) else first


def unreadable(address: Address, line: bytes) -> RemoteProtocolError:
    """The error for an answer that makes no sense."""
    return RemoteProtocolError(f"{address} answered what can't be read: {line[:200]!r}")


def _late(command: Command, address: Address, timeout: float | None) -> TimedOutError:
    return TimedOutError(f"{address} did not answer {as_text(command.text)!r} within {timeout or 0:g} s")


def _closed(command: Command, address: Address) -> ConnectionLostError:
    return ConnectionLostError(f"{address} closed the connection instead of an answer{command.doubt}")
