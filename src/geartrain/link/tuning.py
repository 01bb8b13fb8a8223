"""The socket options of every link.

Packets are small and wait for answers, so TCP_NODELAY. A job may run for hours in silence, so a host that died without
a word is looked for: by keepalive while nothing is owed, by TCP_USER_TIMEOUT while sent bytes wait for their receipt.
Either way a link to it ends within a minute.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios

IDLE_SECONDS = 20  # of silence before the first probe
PROBE_SECONDS = 10  # between probes
PROBES = 3  # unanswered ones that end the connection
UNACKNOWLEDGED_SECONDS = 50


def tune(sock: socket.socket) -> None:
    """Set the options on a connected socket; on a Unix socket there is nothing to set."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_SECONDS),
        ("TCP_KEEPALIVE", IDLE_SECONDS),  # what macOS calls it
        ("TCP_KEEPINTVL", PROBE_SECONDS),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_SECONDS * 1000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def unconfirmed(sock: socket.socket) -> int:
    """How many bytes given to ``sock`` the other side's machine has not confirmed; 0 where the system does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0
