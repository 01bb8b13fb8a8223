"""From the options to the HTTP face: whether it may stand where it is to, its certificate, its sockets."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

from geartrain.errors import ConfigError
from geartrain.web.audit_file import AuditFile
from geartrain.web.extension import Web

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geartrain.daemon.config import Config


def open_web(config: Config, passed: Sequence[socket.socket] = ()) -> Web:
    """The HTTP face with its sockets bound, beside those that were ``passed``.

    Raises ConfigError, with a remedy, for what can't be or may not.
    """
    tls = _tls(config)
    sockets = config.http_sockets(passed)
    outer = [bound.getsockname() for bound in sockets if not _is_inner(bound)]
    if outer and not config.http_open and (not config.tokens or tls is None):
        for bound in sockets:
            bound.close()
        lacks = " and ".join(
            ([] if config.tokens else ["a token ([tokens.NAME] in the file of --config; `geartrain token` makes one)"])
            + ([] if tls else ["a certificate (--http-certificate)"])
        )
        raise ConfigError(
            f"--http {outer[0][0]} can be reached from other machines, and lacks {lacks}: give it, listen on loopback "
            "behind a proxy, or allow it with --http-open"
        )
    return Web(config, sockets, tls, _audit_file(config))


def _is_inner(bound: Any) -> bool:
    """Whether only this machine reaches the socket."""
    return bound.family == socket.AF_UNIX or bound.getsockname()[0] in ("::1",) or _host(bound).startswith("127.")


def _host(bound: Any) -> str:
    return str(bound.getsockname()[0])


def _audit_file(config: Config) -> AuditFile | None:
    if config.http_audit is None:
        return None
    try:
        return AuditFile(config.http_audit, config.user)
    except OSError as error:
        raise ConfigError(
            f"--http-audit is {str(config.http_audit)!r}, which can't be opened ({error.strerror}): choose another file"
        ) from None


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.http_certificate is None:
        if config.http_key is not None:
            raise ConfigError("--http-key is of no use without --http-certificate")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.http_certificate, config.http_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--http-certificate {config.http_certificate} can't be used: {error}") from None
    return context
