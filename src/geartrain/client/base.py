"""What the blocking and the asyncio client have in common: their options, and the making of requests."""

from __future__ import annotations

import ssl

from geartrain.client.command import quoted, word
from geartrain.client.request import HandleStatusRequest, UniqueStatusRequest
from geartrain.client.result import ResultQuestion
from geartrain.client.servers import PATIENCE_SECONDS, Servers
from geartrain.client.session import ANSWER_SECONDS, ClientSession
from geartrain.client.submission import JobHandle, Priority, Submission, When
from geartrain.client.tracing import Tracing
from geartrain.link import parse_addresses
from geartrain.link.address import ServerList
from geartrain.link.blocking import CONNECT_SECONDS
from geartrain.wire.parser import DEFAULT_MAX_RECEIVED

Text = str | bytes  # of a function's name or a unique key; str is sent as UTF-8


class BaseClient:
    """A client's options, and the making of what it sends."""

    def __init__(
        self,
        servers: ServerList = None,
        *,
        namespace: Text = "",
        prefix: Text = "",
        resend: int = 1,
        patience: float = PATIENCE_SECONDS,
        connect_timeout: float = CONNECT_SECONDS,
        answer_timeout: float = ANSWER_SECONDS,
        exceptions: bool = True,
        tls: ssl.SSLContext | None = None,
        max_packet: int = DEFAULT_MAX_RECEIVED,
        tracing: Tracing | None = None,
    ) -> None:
        """All times are in seconds.

        ``servers``
            One job server or several: ``"host"``, ``"host:port"``, ``"[::1]:4730"``, ``"unix:/path"``, joined by
            commas or as a list. Default: the environment variable GEARMAN_SERVERS, else localhost:4730.
        ``namespace``, ``prefix``
            What is put in front of every function's name: ``namespace`` as libgearman does it, without a separator, or
            ``prefix`` as the Perl library does it, with a TAB behind it.
        ``resend``
            How many times more a job is sent when the connection to its server ends before the answer. The lost
            server or its worker may have run the job, or may still be running it: **with a resend a job can run
            twice**. Jobs that must not should be written so that a second run does no harm, or be sent with
            ``resend=0``; then ConnectionLostError says that the job may or may not have run. A background job is safe
            once it has its handle, and is never sent again after that.
        ``patience``
            How long a request waits for a job server when all are down but one was up before. When none was ever up
            it fails with ConnectError as soon as each has been tried.
        ``connect_timeout``
            How long a connection may take to be made.
        ``answer_timeout``
            How long a job server may owe an answer (such as JOB_CREATED) in silence before its connection counts as
            lost. How long a *job* may take is said where the job is submitted.
        ``exceptions``
            Whether to ask for the text of workers' exceptions. Without, such a job fails with JobFailedError.
        ``tls``
            An ``ssl.SSLContext`` for encrypted connections.
        ``max_packet``
            The longest packet that is accepted, in bytes. A job with a larger result fails with PacketTooLargeError.
        ``tracing``
            A ``geartrain.client.tracing.Tracing``, which makes spans of OpenTelemetry for the jobs that are submitted.
        """
        if namespace and prefix:
            raise ValueError("a client has a namespace (libgearman's) or a prefix (Perl's), not both")
        self.addresses = parse_addresses(servers)
        self._function_prefix = _encoded(namespace) or (_encoded(prefix) + b"\t" if prefix else b"")
        self._resend = resend
        self._patience = patience
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._exceptions = exceptions
        self._tls = tls
        self._max_packet = max_packet
        self._tracing = tracing
        self._start()

    def _start(self) -> None:
        """Make ready what waits, with the options as they now are."""
        raise NotImplementedError

    def _make_servers(self) -> Servers:
        return Servers(self.addresses, self._make_session, patience=self._patience)

    def _make_session(self) -> ClientSession:
        return ClientSession(
            answer_seconds=self._answer_timeout, exceptions=self._exceptions, max_body=self._max_packet
        )

    def _submission(
        self,
        function: Text,
        workload: bytes,
        unique: Text | None,
        priority: Priority,
        *,
        background: bool = False,
        when: When | None = None,
    ) -> Submission:
        submission = Submission(
            self._function_prefix + _encoded(function) if function else b"",
            workload,
            unique=_encoded(unique or b""),
            priority=priority,
            background=background,
            when=when,
            resends=self._resend,
        )
        if self._tracing is not None:
            self._tracing.begin(submission)
        return submission

    def _status_request(
        self, handle: JobHandle | Text | None, unique: Text | None
    ) -> HandleStatusRequest | UniqueStatusRequest:
        if (handle is None) == (unique is None):
            raise TypeError("status() needs either a job's handle or its unique key")
        if unique is not None:
            return UniqueStatusRequest(_encoded(unique))
        handle = JobHandle.of(handle or b"")
        address = handle.address
        if address is None and len(self.addresses) > 1:
            raise ValueError(f"the handle {handle!r} does not say which of {len(self.addresses)} job servers it is of")
        return HandleStatusRequest(bytes(handle), address)

    def _result_question(
        self, handle: JobHandle | Text | None, function: Text | None, unique: Text | None, timeout: float | None
    ) -> ResultQuestion:
        addresses = self.addresses
        if handle is not None and function is None and unique is None:
            handle = JobHandle.of(handle)
            words = [word(bytes(handle))]
            if handle.address is not None:
                addresses = (handle.address,)
        elif handle is None and function and unique:
            words = [b"unique", quoted(self._function_prefix + _encoded(function)), quoted(_encoded(unique))]
        else:
            raise TypeError("result() needs either a job's handle, or its function and unique key")
        return ResultQuestion(words, addresses, timeout, self._answer_timeout, self._max_packet)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(map(str, self.addresses))}>"


def _encoded(text: Text) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)
