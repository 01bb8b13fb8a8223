"""Other protocols that come to a Gearman port: a browser's HTTP, a TLS hello, a proxy's header, a URL fetcher's words.

Most can carry bytes of an attacker's choice (a request's body, a session ticket, a word to look up) to a port on
the loopback that no stranger can reach otherwise. So a connection that begins like one of them is none of ours, and no
byte of it counts. A Gearman connection begins with the NUL of a packet's magic, or with a text command (sections 1.2
and 4), which is a line of text.
"""

from __future__ import annotations

from typing import Final

HTTP: Final = "HTTP"
PROXY: Final = "PROXY"
PROXY_2: Final = b"\0\r\nQUIT\n"
"""What version 2 of HAProxy's PROXY protocol begins with, behind two empty lines: the one that begins with NUL."""
LEAST: Final = 64
"""How many bytes of a line that does not end are enough to judge it by."""

_FIRST_WORDS: Final = {
    b"GET": HTTP, b"HEAD": HTTP, b"POST": HTTP, b"PUT": HTTP, b"DELETE": HTTP, b"CONNECT": HTTP, b"OPTIONS": HTTP,
    b"TRACE": HTTP, b"PATCH": HTTP, b"PRI": HTTP, b"CLIENT": "DICT", b"PROXY": PROXY,
}  # fmt: skip
_VERSIONS: Final = (
    "HTTP/0.9",
    "HTTP/1.0",
    "HTTP/1.1",
    "HTTP/2",
    "HTTP/2.0",
    "HTTP/3",
    "RTSP/1.0",
    "RTSP/2.0",
    "SIP/2.0",
)
_LAST_WORDS: Final = {word.encode(): word.partition("/")[0] for word in _VERSIONS}
_PROTOCOLS: Final = (b"HTTP", b"RTSP", b"SIP")
TEXT_COMMANDS: Final = frozenset(
    (b"CANCEL", b"CREATE", b"DEAD", b"DISCONNECT", b"DRAIN", b"DROP", b"GETPID", b"MAXQUEUE", b"PAUSE", b"POLICY",
     b"PRIORITY", b"PRIORITYSTATUS", b"RESULT", b"RESUME", b"RETRY", b"SCHEDULE", b"SHOW", b"SHUTDOWN", b"STATUS",
     b"VERBOSE", b"VERSION", b"WHY", b"WORKERS")
)  # fmt: skip
"""What Gearman's text commands begin with; behind it a name may have any bytes."""
_TERMINAL: Final = b"\b\t\r\n\x1b"  # control characters that a person at a terminal may send with a line


def foreign_start(first: int) -> str:
    """The protocol of a connection whose first byte this is, the line ends before it left out; empty: it may be ours.

    What is not known by name is "binary".
    """
    if first == 0x16 or first >= 0x80:  # a hello of TLS, or of SSL 2, whose first byte tells its length
        return "TLS"
    return "binary" if 0 < first < 32 and first not in _TERMINAL else ""


def foreign_line(line: bytes) -> str:
    """The protocol of a connection whose first line this is; empty: it is ours, or blank."""
    found = foreign_start(line[0]) if line else ""
    words = line.upper().split()
    if not found and words:
        found = _FIRST_WORDS.get(words[0], "") or _LAST_WORDS.get(words[-1], "") or _request(words)
    if found or (words and words[0] in TEXT_COMMANDS):
        return found
    for byte in line:
        if byte < 32 and byte not in _TERMINAL:
            return "binary"
    return ""


def _request(words: list[bytes]) -> str:
    """The protocol of a request line in any version. Its target tells it from a text command about HTTP/1.2."""
    name, _, version = words[-1].partition(b"/")
    if name not in _PROTOCOLS or not version.replace(b".", b"", 1).isdigit():
        return ""
    return name.decode() if words[1].startswith((b"/", b"*")) or b"://" in words[1] else ""
