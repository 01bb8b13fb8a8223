"""A lock on a file that belongs to the file itself, whatever names lead to it, and goes when this process does.

It is a lock of an open file description (Linux), on a byte far beyond what SQLite locks for its own purposes. Unlike
the older kind of lock, it does not go when the process closes some other descriptor of the file. Where there are none,
``flock`` does the same on a local disk.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Final

_BYTE: Final = (1 << 62) - 1
# Closing a descriptor of a file ends SQLite's own locks on it in this process, so a file that this process holds must
# not even be opened again.
_held: set[tuple[int, int]] = set()
_guard = threading.Lock()


class FileLock:
    """Holds the file at ``path``, which is made, for this user alone, if it is not there.

    Raises BlockingIOError, naming the holder as far as it can be told, if somebody has it, OSError if it can't be had.
    """

    def __init__(self, path: Path) -> None:
        with _guard:
            if identity(path) in _held:
                raise BlockingIOError(0, f"process {os.getpid()} on {socket.gethostname()}, which is this one")
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
            status = os.fstat(self.descriptor)
            self.identity = (status.st_dev, status.st_ino)
            self.mode = status.st_mode & 0o777
            self.names = status.st_nlink
            try:
                _lock(self.descriptor)
            except (BlockingIOError, PermissionError):  # POSIX allows either where another one has the lock
                os.close(self.descriptor)
                raise BlockingIOError(0, _holder(self.identity)) from None
            except OSError:  # such as a file system without locks
                os.close(self.descriptor)
                raise
            _held.add(self.identity)

    def read_start(self, count: int) -> bytes:
        """The first ``count`` bytes of the file that is held; it must not be opened again to be read."""
        return os.pread(self.descriptor, count, 0)

    def keep_from_being_locked(self, first: int, size: int) -> None:
        """From now on nobody may lock these bytes of the file for writing; nobody may have done so."""
        if hasattr(fcntl, "F_OFD_SETLK"):
            _lock(self.descriptor, fcntl.F_RDLCK, first, size)

    def release(self) -> None:
        """Give the file up; whatever else this process has open of it must be closed by then."""
        with _guard:
            _held.discard(self.identity)
            os.close(self.descriptor)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file a name means: device and inode; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _lock(descriptor: int, kind: int = fcntl.F_WRLCK, first: int = _BYTE, size: int = 1) -> None:
    if hasattr(fcntl, "F_OFD_SETLK"):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", kind, os.SEEK_SET, first, size, 0))
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(wanted: tuple[int, int]) -> str:
    """The processes that have the file open, as far as this user may see; the kernel does not tell whose lock it is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_open = any(identity(each) == wanted for each in (process / "fd").iterdir())
            if is_open and process.name != str(os.getpid()):
                found.append(process.name)
        except OSError:
            continue
    return f"process {', '.join(found)} on {socket.gethostname()}" if found else "a process of another user"
