"""What the machine has to offer the daemon: memory, open files, a time zone."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import resource
import sys
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from geartrain.errors import ConfigError

log = logging.getLogger("geartrain.daemon")

# Where Linux says how much a container may take: control groups of version 2, and of version 1.
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_MACHINE_ZONE = "/etc/localtime"


def memory_bytes() -> int:
    """The memory that this process may take: the machine's, or its container's if that is less."""
    amounts = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            amounts.append(int(Path(path).read_text()))
    return min(amounts)


def node_name() -> str:
    """The machine's name, as ``uname -n`` says it."""
    return platform.node() or "localhost"


def time_zone(name: str = "") -> tzinfo:
    """The time zone called ``name`` (as in Europe/Berlin), or the machine's: $TZ, else /etc/localtime, else UTC.

    Raises ConfigError for a name that this machine's time zone data does not have.
    """
    if name:
        try:
            return _zone(name)
        except (OSError, ValueError, KeyError):  # zoneinfo's own error is a KeyError
            raise ConfigError(
                f"--time-zone is {name!r}, which is no time zone known here: use a name such as Europe/Berlin or UTC"
            ) from None
    for source in (os.environ.get("TZ", "").removeprefix(":"), _MACHINE_ZONE):
        try:
            return _zone(source)
        except (OSError, ValueError, KeyError):
            if source:
                log.warning("time_zone_unknown", extra={"fields": {"zone": source}})
    return UTC


def _zone(name: str) -> tzinfo:
    if not name.startswith("/"):
        return ZoneInfo(name)
    with open(name, "rb") as file:
        return ZoneInfo.from_file(file, key=os.path.realpath(name).partition("zoneinfo/")[2] or name)


def raise_open_files(wanted: int = 0) -> int:
    """Let this process open ``wanted`` files, or as many as it may (0); returns how many that is.

    Raises ConfigError if the machine does not grant them.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bounded = hard != resource.RLIM_INFINITY
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted or hard, max(wanted, hard) if bounded else hard))
    except (OSError, ValueError):
        if wanted:
            raise ConfigError(
                f"--file-descriptors is {wanted}, but this user may open {hard} files at most: use a smaller number, "
                f"or raise the limit (LimitNOFILE= in a systemd unit, or ulimit -n)"
            ) from None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize
