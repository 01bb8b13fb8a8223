"""No byte of a connection that speaks another protocol is executed, in whatever pieces it comes."""

from __future__ import annotations

import pytest
from world import request

from geartrain.jobserver import JobServer, Origin
from geartrain.jobserver.rules.admin import COMMANDS
from geartrain.wire.foreign import TEXT_COMMANDS

ORDERS = b"\ncreate function made\ndrop function victim\n" + request("SUBMIT_JOB_BG", b"made", b"", b"x")
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("start", "protocol"),
    [(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"), (b"\r\nGET / HTTP/1.0\r\n\r\n", "HTTP"), (HELLO, "TLS"),
     (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"), (b"\r\n\n" + HELLO, "TLS"), (b"\x80\x2e\x01\x03\x01", "TLS"),
     (b"CLIENT libcurl 7.88.1\r\n", "DICT"), (b"OPTIONS * RTSP/1.0\r\n", "HTTP"), (b"PLAY * RTSP/1.0\r\n", "RTSP"),
     (b"\x10\x1a\0\x04MQTT", "binary"), (b"0\x20\x02\x01\x01`\x07", "binary"),
     (b"FOO http://host/ HTTP/1.2\r\n", "HTTP"), (b"\r\n\r\n\r\nFOO * HTTP/1.1\r\n", "HTTP"),
     (b"GET /" + 9000 * b"x" + b" HTTP/1.1\r\n", "HTTP"), (b"GET /" + 9000 * b"x" + b" ", "HTTP"),
     (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 4730\r\n", "PROXY"),
     (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12), "PROXY"),
     (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "PROXY")],
)  # fmt: skip
def test_it_is_closed_and_nothing_is_executed(start: bytes, protocol: str, piece: int) -> None:
    server = JobServer()
    server.tick(1000.0, 1_800_000_000.0)
    server.create_function(b"victim")
    peer = server.connect(Origin("127.0.0.1", 1))
    data = start + ORDERS
    for at in range(0, len(data), piece):
        server.receive(peer, data[at : at + piece])
    assert peer.closing
    assert list(server.functions) == [b"victim"]
    assert server.foreign == 1
    assert [(name, fields) for name, _, fields in server.take_events()] == [
        ("foreign_protocol", {"protocol": protocol, "so_far": 1})
    ]
    assert b"".join(peer.take()).endswith(b"It does not speak HTTP.\n" if protocol == "HTTP" else b"")


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
@pytest.mark.parametrize("start", [b"\0\x03\0\x08\x21\x12\xa4\x42", b"\0\0\0\x85\xffSMBr"], ids=["STUN", "SMB"])
def test_neither_is_what_begins_with_nul_and_is_no_packet(start: bytes, piece: int) -> None:
    server = JobServer()
    server.create_function(b"victim")
    peer = server.connect(Origin("127.0.0.1", 1))
    data = start + bytes(12) + ORDERS
    for at in range(0, len(data), piece):
        server.receive(peer, data[at : at + piece])
    assert peer.closing
    assert list(server.functions) == [b"victim"]
    assert [name for name, _, _ in server.take_events()] == ["stream_broken"]


@pytest.mark.parametrize("piece", [1, 3, 1000])
@pytest.mark.parametrize("start", [b"version\n", b"\r\n" + request("ECHO_REQ", b"x"), b"\x1b[A\n"])
def test_who_has_begun_with_gearman_is_not_asked_again(start: bytes, piece: int) -> None:
    server = JobServer()
    peer = server.connect(Origin("127.0.0.1", 1))
    data = start + b"GET / HTTP/1.1\n\x16\x03\n" + request("ECHO_REQ", b"still here")
    for at in range(0, len(data), piece):
        server.receive(peer, data[at : at + piece])
    assert not peer.closing
    assert b"".join(peer.take()).endswith(b"still here")


def test_the_words_of_http_are_ordinary_ones_later_on() -> None:
    server = JobServer()
    peer = server.connect(Origin("127.0.0.1", 1))
    server.receive(peer, b"version\nGET / HTTP/1.1\n" + request("ECHO_REQ", b"\x16\x03"))
    assert not peer.closing
    assert b"ERR UNKNOWN_COMMAND" in b"".join(peer.take())


def test_a_text_command_may_come_first_and_name_any_bytes() -> None:
    assert {word.upper() for word in COMMANDS} <= TEXT_COMMANDS
    server = JobServer()
    peer = server.connect(Origin("127.0.0.1", 1))
    server.receive(peer, b"maxqueue \x01n\xff 1\n")
    assert peer.take() == [b"OK\r\n"]
    assert not peer.closing
