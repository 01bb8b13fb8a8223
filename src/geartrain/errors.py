"""Every error that geartrain raises to its users, as one tree; each can be imported from ``geartrain``.

    GeartrainError
    ├── AddressError           that is not a job server's address       (also a ValueError)
    ├── ConfigError            an option of the daemon can't be used    (also a ValueError)
    ├── ConnectError           no job server could be reached
    ├── ConnectionLostError    a connection ended before the answer came
    ├── TimedOutError          the answer did not come in time           (also a TimeoutError)
    ├── ArgumentsError         a function does not take such arguments  (also a TypeError)
    ├── SoftTimeLimitError     a job runs longer than its soft limit    (also a TimeoutError)
    ├── Verdict                a function says what is to become of its job
    │   ├── Retry              ... to be tried again, perhaps at a certain time
    │   └── Reject             ... never to be tried again
    ├── JobError               a job did not end well
    │   ├── JobFailedError     the worker sent WORK_FAIL
    │   └── JobRaisedError     the worker sent WORK_EXCEPTION, with its text
    ├── ServerError            the job server answered with an ERROR packet
    │   ├── QueueFullError     ... whose code was QUEUE_ERROR
    │   └── UnknownJobError    a text command's answer: the job is not known, or its result not kept
    └── ProtocolError          bytes that are not the Gearman protocol
        ├── LocalProtocolError   we were asked to send something that has no place in it
        └── RemoteProtocolError  the peer sent something that has no place in it
            └── PacketTooLargeError  ... or a packet about a job that is above the limit

Each class says in its docstring what it means and what to do about it; that text is the message of an error raised
without one. A verdict is no error, and is not called one. What a store raises is for the job server alone, and is told
with the stores (``geartrain.store.base``).
"""

from __future__ import annotations

import datetime

from geartrain.units import seconds_of


class GeartrainError(Exception):
    """Something in geartrain went wrong."""

    def __str__(self) -> str:
        return super().__str__() or (type(self).__doc__ or "").strip()


class AddressError(GeartrainError, ValueError):
    """That is not a job server's address: write host, host:port, [::1]:4730 or unix:/path."""


class ConfigError(GeartrainError, ValueError):
    """An option of the daemon can't be used: its text names the option, its value and a remedy."""


class ConnectError(GeartrainError):
    """No job server could be reached: check the addresses, and that one is running (`geartrain serve`)."""


class ConnectionLostError(GeartrainError):
    """The connection to the job server ended before the answer came; the job may or may not have run."""


class TimedOutError(GeartrainError, TimeoutError):
    """The answer did not come in time; the job itself goes on at the job server."""


class ArgumentsError(GeartrainError, TypeError):
    """A function was to be called with arguments that it does not take."""


class SoftTimeLimitError(GeartrainError, TimeoutError):
    """The job ran longer than its function's soft_limit; it may catch this, tidy up and leave."""


class Verdict(GeartrainError):
    """A function does not do its job, and says what is to become of it.

    ``reason`` is for logs and for who looks the job up, and is what its clients get as its exception if this was the
    end. Without one they are told which exception the verdict was raised from, if any.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(*([reason] if reason else []))
        self.reason = reason

    @property
    def text(self) -> str:
        """The reason, or the exception that led to it; empty if there is neither."""
        origin = self.__cause__ or (None if self.__suppress_context__ else self.__context__)
        return self.reason or ("" if origin is None else f"{type(origin).__name__}: {origin}")

    def __str__(self) -> str:
        return self.text or (type(self).__doc__ or "").partition("\n")[0]


class Retry(Verdict):
    """The job is to be tried again.

    ``after`` says in how long: in seconds, as a timedelta, or as a text such as "30s". Without it the pause is that of
    the function's policy. Raises ValueError for what is no time to wait.
    """

    def __init__(self, after: float | str | datetime.timedelta | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.after = None if after is None else seconds_of(after)


class Reject(Verdict):
    """The job is never to be tried again, whatever its function's policy says."""


class JobError(GeartrainError):
    """A job did not end well.

    ``handle`` is the job server's name for the job, ``None`` if it never got one.
    """

    def __init__(self, message: str = "", *, handle: bytes | None = None) -> None:
        super().__init__(*([message] if message else []))
        self.handle = handle


class JobFailedError(JobError):
    """The worker reported that the job failed (WORK_FAIL); the protocol carries no reason."""


class JobRaisedError(JobError):
    """The worker reported an exception (WORK_EXCEPTION).

    ``data`` is what the worker sent, unchanged; the message shows it as text.
    """

    def __init__(self, data: bytes, *, handle: bytes | None = None) -> None:
        super().__init__(data.decode("utf-8", "replace") or "the worker sent no text", handle=handle)
        self.data = data


class ServerError(GeartrainError):
    """The job server refused a request (an ERROR packet, section 1.7 of the protocol).

    ``code`` is the word it gave, such as ``UNKNOWN_OPTION``.
    """

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code
        self.text = text


class QueueFullError(ServerError):
    """The job server took no more jobs for this function (QUEUE_ERROR): try again later, or raise its limit."""


class UnknownJobError(ServerError):
    """No job server knows the job, or keeps its result; `geartrain policy set FUNCTION results=1h` has results kept."""


class ProtocolError(GeartrainError):
    """Bytes that are not the Gearman protocol."""


class LocalProtocolError(ProtocolError, ValueError):
    """We were asked to send something that has no place in the protocol, such as a NUL in a function's name."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that has no place in the protocol; the connection can't be followed any more."""


class PacketTooLargeError(RemoteProtocolError):
    """The job server sent a packet about a job that is longer than ``limit``; the connection goes on behind it.

    ``arguments`` are those of the packet but for the last, the first of them the job's handle; ``size`` is the length
    of its body in bytes.
    """

    def __init__(self, name: str, type: int, arguments: tuple[bytes, ...], size: int, limit: int) -> None:
        handle = arguments[0].decode("utf-8", "backslashreplace")
        super().__init__(f"{name} of {size} bytes for {handle} is above the limit of {limit} (max_packet)")
        self.type = type
        self.arguments = arguments
        self.size = size
        self.limit = limit
