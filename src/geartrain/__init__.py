"""geartrain: a Gearman for today. Job server, clients and workers that speak the Gearman protocol.

    from geartrain import Client, Worker

Client and worker need the standard library alone; each is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from geartrain.errors import (
    AddressError,
    ArgumentsError,
    ConfigError,
    ConnectError,
    ConnectionLostError,
    GeartrainError,
    JobError,
    JobFailedError,
    JobRaisedError,
    LocalProtocolError,
    PacketTooLargeError,
    ProtocolError,
    QueueFullError,
    Reject,
    RemoteProtocolError,
    Retry,
    ServerError,
    SoftTimeLimitError,
    TimedOutError,
    UnknownJobError,
    Verdict,
)
from geartrain.version import VERSION as __version__

if TYPE_CHECKING:
    from geartrain.client import AdminClient, AsyncClient, AsyncJob, Client, SubmittedJob
    from geartrain.worker import AssignedJob, AsyncWorker, Worker

_PACKAGES = {
    "geartrain.client": ("AdminClient", "AsyncClient", "AsyncJob", "Client", "SubmittedJob"),
    "geartrain.worker": ("AssignedJob", "AsyncWorker", "Worker"),
}

__all__ = [
    "AddressError",
    "AdminClient",
    "ArgumentsError",
    "AssignedJob",
    "AsyncClient",
    "AsyncJob",
    "AsyncWorker",
    "Client",
    "ConfigError",
    "ConnectError",
    "ConnectionLostError",
    "GeartrainError",
    "JobError",
    "JobFailedError",
    "JobRaisedError",
    "LocalProtocolError",
    "PacketTooLargeError",
    "ProtocolError",
    "QueueFullError",
    "Reject",
    "RemoteProtocolError",
    "Retry",
    "ServerError",
    "SoftTimeLimitError",
    "SubmittedJob",
    "TimedOutError",
    "UnknownJobError",
    "Verdict",
    "Worker",
    "__version__",
]


def __getattr__(name: str) -> object:
    for package, names in _PACKAGES.items():
        if name in names:
            return getattr(import_module(package), name)
    raise AttributeError(f"module 'geartrain' has no attribute {name!r}")
