"""What begins like another protocol is told apart from everything that Gearman's peers begin with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geartrain.wire.foreign import is_http, is_tls

COMMANDS = (
    b"status", b"STATUS", b"prioritystatus", b"workers", b"version", b"getpid", b"verbose", b"show jobs",
    b"show unique jobs", b"create function GET", b"drop function HTTP", b"maxqueue get 3", b"cancel job H:x:1",
    b"shutdown", b"shutdown graceful", b"", b" ", b"postpone", b"\r",
)  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_text_commands_are_ours(line: bytes) -> None:
    assert not is_http(line)
    assert not is_tls(line)


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/1.1", b"get / http/1.0", b"POST /x?y=z HTTP/1.1\r", b"PRI * HTTP/2.0", b"GET /",
     b"OPTIONS * HTTP/1.1", b"CONNECT host:443 HTTP/1.1", b"PROPFIND / HTTP/1.1",
     b"  GET / HTTP/1.1", b"STATUS / HTTP/1.1"],
)  # fmt: skip
def test_requests_of_http_are_not(line: bytes) -> None:
    assert is_http(line)


@given(st.from_regex(rb"[A-Za-z-]{1,20} [!-~]{1,100} HTTP/[0-9](\.[0-9])?", fullmatch=True))
def test_any_method_of_http_is_seen(line: bytes) -> None:
    assert is_http(line)


@given(st.binary(max_size=50))
def test_hellos_are_not_packets(rest: bytes) -> None:
    assert is_tls(b"\x16\x03\x01" + rest)
    assert is_tls(b"\x80\x2e\x01" + rest)
    assert not is_tls(b"\0REQ" + rest)
