"""The sockets that the daemon listens on: from what an operator writes to bound sockets.

A listener is written ``host``, ``host:port``, ``[::1]:port`` or ``unix:/path``. A host may be a name with several
addresses, ``loopback`` (127.0.0.1 and ::1), or ``*`` for every address of the machine. Where no port is written the
daemon's port holds. Port 0 picks a free one, the same for every address where that can be. What the service manager has
opened already is not opened again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence

from geartrain.errors import ConfigError

LOOPBACK = "loopback"
FORMS = "write host, host:port, [::1]:4730, loopback, '*' for every address, or unix:/path"
_UNIX = "unix:"
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # such as ::1 on a machine without IPv6
_Place = tuple[int, str, int]  # family, host, port


def open_listeners(
    written: Sequence[str], port: int, socket_mode: int = 0o600, passed: Sequence[socket.socket] = ()
) -> list[socket.socket]:
    """Bind a socket to every address that ``written`` means, and have it listen.

    Where one of ``passed`` listens already, none is opened. The files of Unix sockets get the mode ``socket_mode``:
    those that may write it may connect.

    Of several addresses that one text means, those that the machine lacks are left out. Raises ConfigError, naming
    the address and a remedy, for what can't be had; then nothing is left open.
    """
    opened: list[socket.socket] = []
    done: set[_Place] = set()
    try:
        for text in written:
            if text.startswith(_UNIX):
                if not any(_is_at(one, text.removeprefix(_UNIX)) for one in passed):
                    opened.append(_open_unix(text, socket_mode))
                continue
            places = [place for place in _places(text, port) if place not in done]
            places = [place for place in places if not any(_covers(one, place) for one in passed)]
            absent = [place for place in places if not _open_tcp(place, opened)]
            if absent and len(absent) == len(places):
                raise ConfigError(
                    f"--listen is {text!r}, and this machine has no such address: use one of its own, or '*' for all"
                )
            done.update(places)
    except ConfigError:
        remove_unix_sockets([item.getsockname() for item in opened if item.family == socket.AF_UNIX])
        for listener in opened:
            listener.close()
        raise
    return opened


def split_address(text: str, port: int) -> tuple[str, int]:
    """The host and the port of a written TCP listener. Raises ConfigError for what is none."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        colon, its_port = rest[:1], rest[1:]
    elif text.count(":") > 1:  # an IPv6 address without brackets, and so without a port
        host, colon, its_port = text, "", ""
    else:
        host, colon, its_port = text.partition(":")
    if not host or any(letter.isspace() or letter in "/,@[]" for letter in host) or colon not in ("", ":"):
        raise ConfigError(f"--listen is {text!r}: {FORMS}")
    if not colon:
        return host, port
    if not (its_port.isascii() and its_port.isdigit() and int(its_port) <= 65535):
        raise ConfigError(f"--listen is {text!r}: its port must be a number from 0 to 65535")
    return host, int(its_port)


def remove_unix_sockets(paths: Sequence[str]) -> None:
    """Remove the files of Unix sockets."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _is_at(passed: socket.socket, path: str) -> bool:
    """Whether a socket that was passed is a Unix socket with this path."""
    if passed.family != socket.AF_UNIX:
        return False
    name = os.fsdecode(passed.getsockname())
    return name.startswith("/") and os.path.realpath(name) == os.path.realpath(path)


def _covers(passed: socket.socket, place: _Place) -> bool:
    """Whether a socket that was passed gets the connections to this place."""
    if passed.family == socket.AF_UNIX:
        return False
    family, host, port = place
    its_host, its_port = passed.getsockname()[:2]
    if its_port != port:
        return False
    if its_host == "::" and not passed.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return True  # as systemd opens a port without an address: IPv4 comes there as well
    return passed.family == family and its_host in (host, "0.0.0.0", "::")


def _places(text: str, port: int) -> list[_Place]:
    host, port = split_address(text, port)
    if host == LOOPBACK:
        return [(socket.AF_INET, "127.0.0.1", port), (socket.AF_INET6, "::1", port)]
    try:
        found = socket.getaddrinfo(
            None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--listen is {text!r}, and that name means no address ({error}): check it") from None
    return [(family, str(address[0]), port) for family, _, _, _, address in found]


def _open_tcp(place: _Place, opened: list[socket.socket]) -> bool:
    """Open one address; False if the machine does not have it."""
    family, host, port = place
    others = [other.getsockname()[1] for other in opened if other.family != socket.AF_UNIX]
    if port == 0 and others:
        with contextlib.suppress(OSError):
            opened.append(_bind_tcp(family, host, others[-1]))
            return True
    try:
        opened.append(_bind_tcp(family, host, port))
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        raise _trouble(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", error) from None
    return True


def _bind_tcp(family: int, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _open_unix(text: str, mode: int) -> socket.socket:
    """Open a Unix socket; the file that a job server left behind is replaced, one that is in use is not."""
    path = text.removeprefix(_UNIX)
    if not path.startswith(("/", ".")):
        raise ConfigError(f"--listen is {text!r}: {FORMS}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o777)  # until it has its mode nobody may connect
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            listener.bind(path)
        finally:
            os.umask(before)
        os.chmod(path, mode)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _trouble(text, error) from None
    return listener


def _is_stale(path: str) -> bool:
    """Whether ``path`` is a socket that nobody listens on."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _trouble(address: str, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        remedy = "it is already in use, perhaps by another job server: stop that one, or choose another --port or path"
    elif error.errno == errno.EACCES:
        remedy = "this user may not: ports below 1024 need root, and a Unix socket a folder one may write to"
    else:
        remedy = f"{error.strerror or error}: choose another address with --listen and --port"
    return ConfigError(f"can't listen on {address}: {remedy}")
