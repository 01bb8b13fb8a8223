"""Other protocols that come to a Gearman port: a browser's HTTP, a TLS hello.

Both can carry bytes of an attacker's choice (a request's body, a session ticket) to a port on the loopback that no
stranger can reach otherwise. So a connection that begins like one of them is none of ours, and no byte of it counts.
A Gearman connection begins with the NUL of a packet's magic, or with a text command (sections 1.2 and 4).
"""

from __future__ import annotations

from typing import Final

_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI")
)


def is_tls(data: bytes) -> bool:
    """Whether a connection whose first bytes are ``data`` begins with a TLS hello, or with an SSL hello of old."""
    return data[:1] == b"\x16" or (data[:1] >= b"\x80" and data[2:3] == b"\x01")


def is_http(line: bytes) -> bool:
    """Whether the first line of a connection is a request of HTTP, of any version."""
    words = line.upper().split()
    return bool(words) and (words[0] in _METHODS or words[-1].startswith(b"HTTP/"))
