"""What the daemon can be told, from one TOML file, the environment and flags; the strongest last."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from dataclasses import dataclass, field
from pathlib import Path

from geartrain.jobserver import Settings


@dataclass
class Config:
    listen: list[str] = field(default_factory=lambda: ["127.0.0.1"])
    port: int = 4730
    backlog: int = 4096
    max_connections: int = 100_000
    max_unsent: int = 64 * 1024**2
    drain_timeout: float = 60.0
    stop_timeout: float = 3.0
    keepalive: bool = True
    keepalive_idle: int = 20
    keepalive_interval: int = 10
    keepalive_count: int = 3
    job_handle_prefix: str = ""
    job_retries: int = 0
    worker_wakeup: int = 1
    verbose: str = "INFO"
    log_file: str = "stderr"

    def rules(self) -> Settings:
        settings = Settings()
        settings.handle_prefix = (self.job_handle_prefix or f"H:{platform.node()}").encode()
        settings.process_id = os.getpid()
        settings.job_retries = self.job_retries
        settings.worker_wakeup = self.worker_wakeup
        return settings

    def sockets(self) -> list[socket.socket]:
        opened = []
        for host in self.listen:
            if host.startswith("unix:"):
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(host.removeprefix("unix:"))
                opened.append(listener)
                continue
            for family, kind, proto, _, address in socket.getaddrinfo(
                host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                listener = socket.socket(family, kind, proto)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
                opened.append(listener)
        return opened

    def remove_unix_sockets(self) -> None:
        for host in self.listen:
            if host.startswith("unix:"):
                with contextlib.suppress(OSError):
                    Path(host.removeprefix("unix:")).unlink()
