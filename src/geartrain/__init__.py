"""A Gearman for today: job server, clients and workers that speak the Gearman protocol.

    from geartrain import Client, Worker

What is named here is imported when it is first used, so that a worker does not load the client, nor the command
line either of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from geartrain.version import VERSION as __version__

if TYPE_CHECKING:
    from geartrain.client import AdminClient, Client, JobHandle, SubmittedJob
    from geartrain.worker import AssignedJob, AsyncWorker, Worker

_HOMES = {
    "AdminClient": "geartrain.client",
    "AssignedJob": "geartrain.worker",
    "AsyncWorker": "geartrain.worker",
    "Client": "geartrain.client",
    "JobHandle": "geartrain.client",
    "SubmittedJob": "geartrain.client",
    "Worker": "geartrain.worker",
}

__all__ = [
    "AdminClient",
    "AssignedJob",
    "AsyncWorker",
    "Client",
    "JobHandle",
    "SubmittedJob",
    "Worker",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
