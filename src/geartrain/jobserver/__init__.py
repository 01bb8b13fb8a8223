"""The core of the job server, which brings jobs to workers: no I/O, no clock, no logging, no threads.

See ``server`` for the one object that holds everything, and the modules for one noun each.
"""

from geartrain.jobserver.model import Peer
from geartrain.jobserver.origin import Origin
from geartrain.jobserver.server import JobServer
from geartrain.jobserver.settings import Settings

__all__ = ["JobServer", "Origin", "Peer", "Settings"]
