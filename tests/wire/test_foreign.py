"""What begins like another protocol is told apart from everything that Gearman's peers begin with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geartrain.wire.foreign import foreign_line, foreign_start

COMMANDS = (
    b"status", b"STATUS", b"prioritystatus", b"workers", b"version", b"getpid", b"verbose", b"show jobs",
    b"show unique jobs", b"create function GET", b"drop function HTTP", b"drop function HTTP/status",
    b"create function \xc3\xbc\xff", b"maxqueue get 3", b"cancel job H:x:1", b"shutdown", b"shutdown graceful", b"",
    b" ", b"postpone", b"\r", b"status\t\r", b"statsu\b\bus", b"\x1b[Dstatus", b"clients",
    b"maxqueue GET HTTP/1.1 5", b"maxqueue HTTP/1.1 5", b"maxqueue /x 5", b"drop function HTTP/1.2", b"proxying",
    b"drop function /x", b"create function http://x/", b"cancel job HTTP/1.2", b"show jobs HTTP/7",
    b"drop function PROXY", b"maxqueue \x01n\xff 1", b"drop function \x01\x7f", b"cancel job \0x",
)  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_text_commands_are_ours(line: bytes) -> None:
    assert not foreign_line(line)
    assert not line or not foreign_start(line[0])


@pytest.mark.parametrize(
    ("line", "protocol"),
    [(b"GET / HTTP/1.1", "HTTP"), (b"get / http/1.0", "HTTP"), (b"POST /x?y=z HTTP/1.1\r", "HTTP"),
     (b"PRI * HTTP/2.0", "HTTP"), (b"GET /", "HTTP"), (b"OPTIONS * HTTP/1.1", "HTTP"),
     (b"CONNECT host:443 HTTP/1.1", "HTTP"), (b"PROPFIND / HTTP/1.1", "HTTP"), (b"  GET / HTTP/1.1", "HTTP"),
     (b"STATUS / HTTP/1.1", "HTTP"), (b"drop function HTTP/1.1", "HTTP"), (b"CLIENT libcurl 7.88.1\r", "DICT"),
     (b"FOO /x HTTP/1.1", "HTTP"), (b"M-SEARCH * HTTP/1.1", "HTTP"), (b"foo http://host/x http/1.1", "HTTP"),
     (b"GET / HTTP/1.2", "HTTP"), (b"FOO /x HTTP/1.2\r", "HTTP"), (b"foo * http/4", "HTTP"),
     (b"STATUS http://host/ HTTP/1.10", "HTTP"), (b"FOO /a b HTTP/12.34", "HTTP"), (b"PLAY /x RTSP/1.1", "RTSP"),
     (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 4730\r", "PROXY"), (b"PROXY UNKNOWN\r", "PROXY"),
     (b"DESCRIBE rtsp://host/x RTSP/1.0\r", "RTSP"), (b"INVITE sip:a@b SIP/2.0\r", "SIP"),
     (b"0\x20\x02\x01\x01`\x07", "binary"), (b"\x10\x1a\0\x04MQTT", "binary"), (b"\x0b", "binary")],
)  # fmt: skip
def test_other_protocols_are_not(line: bytes, protocol: str) -> None:
    assert foreign_line(line) == protocol


@given(st.from_regex(rb"[A-Za-z-]{1,20} [!-~]{1,100} HTTP/(0\.9|1\.[01]|2|2\.0|3)", fullmatch=True))
def test_any_method_of_http_is_seen(line: bytes) -> None:
    assert foreign_line(line)


@given(
    st.from_regex(rb"[!#-\'*+.^-z|~A-Z-]{1,20} (/|\*|[a-z]{1,9}://)[!-~]{0,100} HTTP/[0-9](\.[0-9])?", fullmatch=True)
)
def test_any_version_of_http_is_seen(line: bytes) -> None:
    assert foreign_line(line)


@given(st.binary(max_size=50))
def test_hellos_of_tls_are_seen_at_their_first_byte(rest: bytes) -> None:
    for hello in (b"\x16\x03\x01" + rest, b"\x80\x2e\x01" + rest):
        assert foreign_start(hello[0]) == "TLS"
        assert foreign_line(hello) == "TLS"
    assert not foreign_start(0)


@given(st.binary(min_size=1, max_size=20))
def test_a_first_byte_is_refused_whether_its_line_has_come_or_not(line: bytes) -> None:
    if line[0] and foreign_start(line[0]):
        assert foreign_line(line)
