"""The blocking link against real sockets."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from link_peers import listening, received, silent_host

from certificates import tls_contexts
from geartrain.errors import ConnectError, ConnectionLostError, TimedOutError
from geartrain.link import Address, BlockingLink
from servers import free_port

BIG = os.urandom(8 * 1024 * 1024)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_bytes_go_both_ways(family: int, tmp_path: Path) -> None:
    path = str(tmp_path / "socket") if family == socket.AF_UNIX else ""
    with listening(family, path) as listener, BlockingLink.connect(listener.address) as link, listener.accept() as peer:
        link.send(b"hello")
        assert received(peer, 5) == b"hello"
        peer.sendall(b"you")
        assert link.receive(10) == b"you"
        peer.close()
        assert link.receive(10) == b""


def test_an_abstract_unix_socket_is_reached() -> None:
    name = f"geartrain-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("\0" + name)
        sock.listen()
        BlockingLink.connect(Address.parse(f"unix:@{name}")).close()


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first does not answer, the second refuses, the third is there."""
    with listening() as listener:
        port = listener.address.port
        with silent_host() as silent:
            wheres = [silent, ("127.0.0.2", port), ("127.0.0.1", port)]
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in wheres]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            with BlockingLink.connect(Address("threefold.example", port), timeout=1) as link, listener.accept() as peer:
                link.send(b"x")
                assert received(peer, 1) == b"x"


def test_a_refusal_names_the_address_and_the_reason() -> None:
    port = free_port()
    with pytest.raises(ConnectError, match=f"127.0.0.1:{port}: connection refused"):
        BlockingLink.connect(Address("127.0.0.1", port))
    with pytest.raises(ConnectError, match=r"no job server at a\.\.b:4730: "):
        BlockingLink.connect(Address("a..b"))
    with pytest.raises(ConnectError, match="unix:/nowhere/at/all: no such file"):
        BlockingLink.connect(Address(path="/nowhere/at/all"))


def test_a_host_that_does_not_answer_is_given_up_in_time() -> None:
    with silent_host() as (host, port):
        began = time.monotonic()
        with pytest.raises(ConnectError, match="no answer in time"):
            BlockingLink.connect(Address(host, port), timeout=0.3)
        assert time.monotonic() - began < 5


def test_the_socket_is_tuned() -> None:
    with listening() as listener, BlockingLink.connect(listener.address) as link:
        sock = socket.socket(fileno=os.dup(link.fileno()))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, pause, probes = (
            sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        )
        assert idle + pause * probes <= 60
        sock.close()


def test_silence_and_a_full_pipe_time_out() -> None:
    with listening() as listener, BlockingLink.connect(listener.address) as link, listener.accept():
        with pytest.raises(TimedOutError):
            link.receive(0.05)
        with pytest.raises(TimedOutError, match="took no more bytes"):
            link.send(BIG, timeout=0.1)


def test_one_thread_sends_while_another_receives() -> None:
    with listening() as listener, BlockingLink.connect(listener.address) as link, listener.accept() as peer:
        got = bytearray()

        def take() -> None:
            while len(got) < len(BIG):
                got.extend(link.receive(10))

        taker = threading.Thread(target=take)
        taker.start()
        sender = threading.Thread(target=link.send, args=(BIG,))
        sender.start()
        peer_sender = threading.Thread(target=peer.sendall, args=(BIG,))
        peer_sender.start()
        assert received(peer, len(BIG)) == BIG
        for thread in (taker, sender, peer_sender):
            thread.join(20)
        assert bytes(got) == BIG


def test_what_comes_soon_is_received_and_else_nothing() -> None:
    with listening() as listener, BlockingLink.connect(listener.address) as link, listener.accept() as peer:
        for _ in range(3):  # at first the thread spins, then it sleeps
            assert link.receive_soon() is None
        assert link.receive_soon(spin=False) is None
        peer.sendall(b"you")
        assert link.receive(10) == b"you"
        got: list[bytes] = []

        def take() -> None:
            while sum(map(len, got)) < len(BIG):
                got.append(link.receive_soon() or b"")

        taker = threading.Thread(target=take)
        taker.start()
        peer.sendall(BIG)
        taker.join(20)
        assert b"".join(got) == BIG
        peer.close()
        assert link.receive_soon() == b""


def test_a_link_that_is_closed_while_something_is_due_soon_ends() -> None:
    for _ in range(20):
        with listening() as listener:
            link = BlockingLink.connect(listener.address)
            got: list[bytes] = []

            def take(link: BlockingLink = link, got: list[bytes] = got) -> None:
                while (data := link.receive_soon()) is None:
                    pass
                got.append(data)

            taker = threading.Thread(target=take)
            taker.start()
            with listener.accept():
                link.close()
                taker.join(10)
                assert got == [b""]
                assert link.fileno() == -1


def test_closing_wakes_the_thread_that_waits() -> None:
    with listening() as listener:
        link = BlockingLink.connect(listener.address)
        got: list[bytes] = []
        waiter = threading.Thread(target=lambda: got.append(link.receive()))
        waiter.start()
        with listener.accept() as peer:
            link.close()
            link.close()
            waiter.join(10)
            assert got == [b""]
            assert link.fileno() == -1
            assert peer.recv(1) == b""
        with pytest.raises(ConnectionLostError, match="closed on this side"):
            link.send(b"x")


def test_a_reset_is_a_lost_connection() -> None:
    with listening() as listener, BlockingLink.connect(listener.address) as link:
        peer = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(ConnectionLostError, match="connection reset"):
            link.receive(10)


def test_an_abandoned_link_goes_on_for_its_twin() -> None:
    """What a forked child does with its parent's connection."""
    with listening() as listener:
        link = BlockingLink.connect(listener.address)
        twin = socket.socket(fileno=os.dup(link.fileno()))
        link.abandon()
        with listener.accept() as peer:
            twin.setblocking(True)
            twin.sendall(b"still here")
            assert received(peer, 10) == b"still here"
        twin.close()


def test_encrypted_bytes_go_both_ways(tmp_path: Path) -> None:
    server, client = tls_contexts(tmp_path)
    with listening() as listener:
        echoed = bytearray()

        def echo() -> None:
            with server.wrap_socket(listener.accept(), server_side=True) as peer:
                while data := peer.recv(65536):
                    peer.sendall(data)

        echoer = threading.Thread(target=echo)
        echoer.start()
        with BlockingLink.connect(listener.address, tls=client) as link:
            sender = threading.Thread(target=link.send, args=(BIG,))
            sender.start()
            while len(echoed) < len(BIG) // 2:
                echoed += link.receive(10)
            while len(echoed) < len(BIG):
                echoed += link.receive_soon() or b""
            sender.join(10)
            assert link.receive_soon() is None
            with pytest.raises(TimedOutError):
                link.receive(0.05)
        echoer.join(10)
        assert bytes(echoed) == BIG


def test_a_server_without_tls_and_a_stranger_are_refused(tmp_path: Path) -> None:
    server, client = tls_contexts(tmp_path)
    with listening() as listener:
        speaker = threading.Thread(target=lambda: listener.accept().sendall(b"no TLS here, sorry"))
        speaker.start()
        with pytest.raises(ConnectError, match="no encrypted connection"):
            BlockingLink.connect(listener.address, tls=client, timeout=5)
        speaker.join()

        def greet() -> None:
            with pytest.raises(ssl.SSLError):
                server.wrap_socket(listener.accept(), server_side=True)

        speaker = threading.Thread(target=greet)
        speaker.start()
        with pytest.raises(ConnectError, match="certificate verify failed"):
            BlockingLink.connect(listener.address, tls=ssl.create_default_context(), timeout=5)
        speaker.join()
