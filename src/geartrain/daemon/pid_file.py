"""The pid file: our process id for others to read, and our lock on it, which says that we run.

A number alone tells little: by now it may be another program's, and in a restarted container it is ours again. So a
file that nobody has locked was left behind, and is replaced. Only a gearmand, which locks nothing, is known by name.

The lock is one that only those may take who may write the file; nothing is ever written through a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from geartrain.errors import ConfigError

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def pid_file(path: Path | None) -> Iterator[None]:
    """Our process id in a file, as long as we run. Raises ConfigError if it can't be written, or is another's."""
    if path is None:
        yield
        return
    descriptor = _make(path)
    try:
        yield
    finally:
        try:
            if _is_at(path, descriptor):
                path.unlink()
        except OSError:  # the folder does not let the user whom we have become: at least nothing is named any more
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _make(path: Path) -> int:
    """Make the file and lock it; its descriptor, for as long as we run."""
    try:
        for _ in range(10):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)
            except FileExistsError:
                _remove_stale(path)
                continue
            if not _lock(descriptor, fcntl.LOCK_EX):
                break
            os.write(descriptor, b"%d\n" % os.getpid())
            os.fchmod(descriptor, 0o644)  # init scripts of others read it
            if not _is_at(path, descriptor):
                break
            return descriptor
    except OSError as error:
        raise ConfigError(
            f"--pid-file is '{path}', which can't be written ({error.strerror}): choose another file"
        ) from None
    raise ConfigError(f"--pid-file is '{path}', and another process makes it at the same time: try again")


def _remove_stale(path: Path) -> None:
    """Remove a pid file that nobody lives by."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_file():
            raise ConfigError(
                f"--pid-file is '{path}', which is there and no ordinary file: remove it, or choose another file"
            )
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _SAFE)
        try:
            text = os.read(descriptor, 20).strip()
            # The lock is kept while the file is removed, so that nobody begins to live by it.
            if not _lock(descriptor, fcntl.LOCK_SH) or _is_gearmand(text):
                raise ConfigError(
                    f"--pid-file is '{path}', which names process {text.decode(errors='replace')}, and that runs: stop"
                    " it first, or choose another file"
                )
            if _is_at(path, descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    """Whether the lock could be had; also where the file system has no locks."""
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_gearmand(text: bytes) -> bool:
    """Whether this is the number of a running gearmand, the one in C or the one in Perl."""
    if not text.isdigit():
        return False
    try:
        words = Path(f"/proc/{int(text)}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    program, script = (word.rpartition(b"/")[2] for word in [*words, b""][:2])
    return program == b"gearmand" or (program.startswith(b"perl") and script == b"gearmand")
