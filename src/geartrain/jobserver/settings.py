"""What an operator may decide about the rules, and what the rules must be told of the world outside.

Plain attributes with good defaults; sizes are bytes, times are seconds, 0 means "no limit" only where it says so.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import final

from geartrain.jobserver.policy import Policy
from geartrain.version import VERSION
from geartrain.wire.parser import DEFAULT_MAX_BODY, DEFAULT_MAX_LINE


@final
class Settings:
    """The options of a JobServer; change them before it is made."""

    def __init__(self) -> None:
        # The world outside.
        self.handle_prefix: bytes = b"H:localhost"  # handles read "<prefix>:<number>"
        self.version: bytes = VERSION.encode()
        self.process_id: int = 0
        self.verbosity: bytes = b"ERROR"  # what the text command `verbose` answers
        self.zone: tzinfo = UTC  # the time zone of SUBMIT_JOB_SCHED

        # Behaviour.
        self.job_retries: int = -1  # lost workers that fail a job, 0 as 1; -1: no limit (section 3.9)
        self.worker_wakeup: int = 1  # NOOPs for each runnable job; 0: to every sleeping worker (section 3.5)
        self.listed_order: bool = False  # gearmand 1.x: the first ability with a job wins, whatever its priority
        self.exact_timeouts: bool = False  # a time limit below a second is taken as it is (section 3.6)
        self.exceptions: bool = False  # every connection starts with the option `exceptions` (section 3.7)
        self.wake_timeout: float = 1.0  # a woken worker that has not grabbed by then is passed over

        self.policies: dict[bytes, Policy] = {}  # of the configuration file, by function or pattern

        # The store.
        self.durable: bool = False  # background jobs are acknowledged when the driver has stored them
        self.store_timeout: float = 5.0  # how long the driver waits for a store that is down
        self.spill_above: int = 64 * 1024  # a stored workload above this size does not stay in memory

        self.fleet: bool = False  # the store is shared with other job servers, which take over from each other

        # Bounds on what a peer may send and keep here.
        self.max_body: int = DEFAULT_MAX_BODY
        self.max_line: int = DEFAULT_MAX_LINE
        self.max_function: int = 512
        self.max_unique: int = 64
        self.max_functions: int = 100_000
        self.max_abilities: int = 20_000  # functions of one connection
        self.forget_after: float = 600.0  # a function without jobs, workers and limits is forgotten then
        self.max_memory: int = 4 * 1024**3  # jobs, functions and what workers can do, together; 0: no limit
        self.max_results: int = 256 * 1024**2  # results that are kept; 0: none
        self.max_unsent: int = 64 * 1024**2  # what a peer that does not read may be sent by others
        self.max_half_sent: int = 1024**3  # half-sent packets of all peers together; 0: no limit
        self.packet_timeout: float = 60.0  # for a half-sent packet, plus a second for each 64 KiB of it
