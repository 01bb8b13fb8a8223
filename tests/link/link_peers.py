"""Peers for links: a socket that listens, and TLS contexts of a certificate made for the test."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geartrain.link import Address
from servers import needs


@dataclass
class Listener:
    """A listening socket; ``accept`` gives the peer's end of the next connection."""

    socket: socket.socket
    address: Address

    def accept(self) -> socket.socket:
        self.socket.settimeout(10)
        peer = self.socket.accept()[0]
        peer.settimeout(10)
        return peer


@contextlib.contextmanager
def listening(family: int = socket.AF_INET, path: str = "", backlog: int = 16) -> Iterator[Listener]:
    with socket.socket(family) as sock:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        sock.bind(path or (host, 0))
        sock.listen(backlog)
        address = Address(path=path) if path else Address(host, sock.getsockname()[1])
        yield Listener(sock, address)


def received(peer: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes of what the peer gets, or all until the end."""
    data = b""
    while len(data) < size and (more := peer.recv(size - len(data))):
        data += more
    return data


def tls_contexts(folder: Path, name: str = "127.0.0.1") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context for a new certificate of ``name``."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [needs("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-addext", f"subjectAltName=IP:{name}"], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
