"""The HTTP face of a job server: Gearman over HTTP, a JSON API with live events, statistics.

It is an extension of the daemon and runs in its loop. It reads snapshots, asks text commands and submits jobs through
peers within the process, with the same packets and lines as everyone, so that nothing here has rules of its own.
"""

from geartrain.web.extension import Web
from geartrain.web.opening import open_web

__all__ = ["Web", "open_web"]
