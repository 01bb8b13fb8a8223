"""TLS for tests: certificates made on the spot."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from servers import needs


def tls_contexts(folder: Path, name: str = "127.0.0.1") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context for a new certificate of ``name``."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [needs("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-addext", f"subjectAltName=IP:{name}"], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
