"""The extension that serves HTTP in the daemon's loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

import uvicorn
from uvicorn.server import ServerState

from geartrain.daemon.daemon import show_address
from geartrain.daemon.extension import Extension
from geartrain.web.app import make_app
from geartrain.web.audit import Audit
from geartrain.web.face import Face
from geartrain.web.plain import KEEP_ALIVE, PlainFace
from geartrain.web.protocol import HEAD_SECONDS, Protocol

if TYPE_CHECKING:
    from geartrain.daemon.config import Config
    from geartrain.daemon.extension import Host
    from geartrain.daemon.transport import Listener
    from geartrain.jobserver import Peer
    from geartrain.web.audit_file import AuditFile

log: Final = logging.getLogger("geartrain.web")


class Web(Extension):
    """The HTTP face: its listeners and connections. ``sockets`` are bound."""

    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        tls: ssl.SSLContext | None = None,
        audit_file: AuditFile | None = None,
    ) -> None:
        self.config = config
        self._audit_file = audit_file
        self._audit = Audit(audit_file)
        self._sockets = sockets
        self._tls = tls
        self._state = ServerState()
        self._servers: list[Listener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None

    host: Host
    face: Face

    def start(self, host: Host) -> None:
        self.host = host
        self.face = Face(self.config, host, self._audit)
        if self._audit_file is not None:
            self._audit_file.start(host.loop.call_later)
        protocol = type("BoundProtocol", (Protocol,), {"face": self.face})
        settings = uvicorn.Config(
            make_app(self.face),
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(KEEP_ALIVE),
        )
        settings.load()
        self.face.events.start()
        self.face.webhooks.start()
        self.face.history.start()
        self.plain = PlainFace(
            self.face,
            lambda: protocol(config=settings, server_state=self._state, app_state={}, _loop=host.loop),
            lambda: len(self._state.connections),
        )
        self._opening = host.loop.create_task(self._open())
        self._each_second()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            if bound.family != socket.AF_UNIX:  # as asyncio does for sockets of its own alone; connections inherit it
                bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            backlog = self.config.backlog
            server: Listener
            if self._tls is None and hasattr(loop, "open_listener"):
                server = loop.open_listener(bound, backlog, self.plain.begin)
                await server.start_serving()
            else:
                server = await loop.create_server(self.plain.make, sock=bound, ssl=self._tls, backlog=backlog)
            self._servers.append(server)
            fields = {"address": show_address(bound.getsockname(), bound.family), "tls": self._tls is not None}
            log.info("http_listening", extra={"fields": fields})

    def _each_second(self) -> None:
        """The date of the next answers; more jobs that end are noted; connections without requests are closed."""
        self._timer = self.host.loop.call_later(1, self._each_second)
        self.host.server.want_ends()
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self.plain.each_second()
        late = self.host.loop.time() - HEAD_SECONDS
        for connection in list(self._state.connections):
            if isinstance(connection, Protocol) and 0 < connection.head_since < late:
                connection.break_off_late()

    def hear(self, event: str, peer: Peer | None, fields: Mapping[str, object]) -> None:
        self._audit.hear(event, peer, fields)

    def reload(self) -> None:
        if self._audit_file is not None:
            self._audit_file.reopen()

    def leave(self) -> None:
        for server in self._servers:
            server.close()
        self.face.submitting.stop()
        self.face.history.leave()
        self.plain.leave()
        for connection in list(self._state.connections):
            connection.shutdown()

    @property
    def is_drained(self) -> bool:
        return self.face.history.is_drained

    def stop(self, seconds: float) -> None:
        self.face.webhooks.stop()
        self.face.history.stop()
        if self._timer is not None:
            self._timer.cancel()
        self.face.events.stop()
        self.face.live.stop()
        for task in list(self._state.tasks):
            task.cancel()
        self.plain.stop()
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._audit_file is not None:
            self._audit_file.close(seconds)
