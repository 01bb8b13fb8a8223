"""From a configuration to a running process: limits, log, user, terminal, signals and the event loop.

SIGTERM, SIGINT   stop: no more connections, what is owed is sent, exit 0
SIGUSR1           drain: refuse submissions, let running jobs end, then stop
SIGHUP            open the log file again; make a store that was taken away again
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pwd
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from geartrain import systemd
from geartrain.daemon.daemon import Daemon, keep_freed_memory, spare_the_collector
from geartrain.daemon.extension import Extension
from geartrain.daemon.keeper import Keeper
from geartrain.daemon.log import Log
from geartrain.daemon.loop_lag import LoopLag
from geartrain.daemon.machine import raise_open_files
from geartrain.daemon.notifier import Notifier
from geartrain.daemon.pid_file import pid_file
from geartrain.daemon.schedules import Schedules
from geartrain.daemon.transport import choose, loop_factory
from geartrain.daemon.uncalled_webhooks import UncalledWebhooks
from geartrain.daemon.watchdog import Watchdog
from geartrain.errors import ConfigError
from geartrain.jobserver import JobServer
from geartrain.store.default import default_url, make_state_folder, state_folder
from geartrain.version import VERSION
from geartrain.wire.primitives import COMPILED

if TYPE_CHECKING:
    from geartrain.daemon.config import Config

log = logging.getLogger("geartrain.daemon")

_OWN_FILES = 32  # open files that are no connections: listeners, log, the event loop's own


Attach = Callable[["Config"], Sequence[Extension]]


def serve(
    config: Config, attach: Attach = lambda config: (), open_fleet: Callable[[Config, JobServer], Keeper] | None = None
) -> None:
    """Run a job server until a signal ends it. Raises ConfigError for an option that can't be carried out.

    ``attach`` makes the extensions of outer layers, while the process may still do what only root may; ``open_fleet``
    the keeper of a member of a fleet.
    """
    open_files = raise_open_files(config.file_descriptors)
    free = (
        open_files - _OWN_FILES - (config.http_max_connections if config.http or systemd.HTTP in systemd.names() else 0)
    )
    if free < config.max_connections:
        config.max_connections = max(free, 1)
    os.umask(0o077)  # whatever this process makes may hold payloads or passwords
    user = _find_user(config.user) if config.user else None
    ready = _detach() if config.daemon else _nothing
    log_output = Log(config.log_file, level=config.verbose, format=config.log_format, syslog=config.syslog)
    code = 1
    try:
        keep_freed_memory()
        with asyncio.Runner(loop_factory=loop_factory(choose(config.transport))) as runner:
            runner.run(_run(config, log_output, user, ready, attach, open_fleet))
        code = 0
    except ConfigError as error:
        if config.log_file != "stderr":  # there the caller says it
            log.critical("not_started", extra={"fields": {"reason": str(error)}})
        raise
    finally:
        if not log_output.close() and config.log_file == "stderr":
            os._exit(code)  # whoever says what is wrong would wait for ever


async def _run(
    config: Config,
    log_output: Log,
    user: pwd.struct_passwd | None,
    ready: Callable[[], None],
    attach: Attach,
    open_fleet: Callable[[Config, JobServer], Keeper] | None,
) -> None:
    loop = asyncio.get_running_loop()
    gate = log_output.gate
    gate.sum_up_later = lambda: loop.call_soon_threadsafe(lambda: loop.call_later(gate.seconds, gate.sum_up))
    loop.add_signal_handler(signal.SIGHUP, log_output.reopen)  # it may come while jobs are loaded
    log.info("starting", extra={"fields": _introduction(config)})
    for event, fields in config.remarks:
        log.warning(event, extra={"fields": fields})
    # Low ports and the pid file are root's to have, the store's files belong to whom we become.
    listeners = config.sockets(systemd.sockets())
    outer = attach(config)
    with pid_file(config.pid_file):
        server = JobServer(config.rules())
        keeper = (
            open_fleet(config, server) if open_fleet is not None and config.fleet else _keeper(config, server, user)
        )
        if user is not None:
            log_output.give_to(user.pw_uid, user.pw_gid)
            _become(user)
        notifier = Notifier(systemd.Systemd(), config.stop_timeout)
        spare_the_collector()  # also while it loads
        _load(config, keeper, notifier)
        gc.freeze()
        extensions: list[Extension] = []
        if keeper is not None:
            extensions.append(keeper)
        if notifier.systemd:
            extensions.append(notifier)
        extensions.append(Watchdog())
        extensions.append(LoopLag())
        extensions.append(Schedules(config.schedules, config.max_schedules))
        extensions += outer
        extensions.append(UncalledWebhooks())
        daemon = Daemon(config, server, extensions)
        _install_signals(loop, daemon, log_output)
        await daemon.start(listeners)
        ready()
        await daemon.run()


def _install_signals(loop: asyncio.AbstractEventLoop, daemon: Daemon, log_output: Log) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop, signal.Signals(number).name)
    loop.add_signal_handler(signal.SIGUSR1, daemon.drain, "SIGUSR1")
    loop.add_signal_handler(signal.SIGHUP, _hang_up, log_output, daemon)


def _hang_up(log_output: Log, daemon: Daemon) -> None:
    log_output.reopen()
    daemon.reload()


def _keeper(config: Config, server: JobServer, user: pwd.struct_passwd | None) -> Keeper | None:
    """The store's keeper, with all imported that the store needs; None for memory alone."""
    if not server.durable:
        return None
    from geartrain.store import StoreError, engine

    if config.store == default_url():
        _make_state_folder(user)
    try:
        return Keeper(server, engine(config.store), config.store_timeout)
    except StoreError as error:
        raise ConfigError(f"--store can't be used: {error}") from error


def _load(config: Config, keeper: Keeper | None, notifier: Notifier) -> None:
    """Open the store, and take over what it kept. Raises ConfigError if it can't be used."""
    if keeper is None:
        return
    from geartrain.store import StoreError, StoreInUseError

    keeper.server.tick(time.monotonic(), time.time())
    notifier.opening()
    try:
        keeper.load(notifier.loading)
    except StoreError as error:
        remedy = ""
        if isinstance(error, StoreInUseError) and config.store == default_url():
            remedy = f", such as --store sqlite:///{state_folder()}/second.sqlite, or --store memory: to keep nothing"
        raise ConfigError(f"--store can't be used: {error}{remedy}") from error


def _make_state_folder(user: pwd.struct_passwd | None) -> None:
    """The folder of the default store, for the user we become; jobs are nobody else's business."""
    folder = state_folder()
    try:
        if make_state_folder() and user is not None and os.geteuid() == 0:
            os.chown(folder, user.pw_uid, user.pw_gid)
    except OSError as error:
        raise ConfigError(
            f"jobs are kept in {folder} unless --store says otherwise, and it can't be made ({error.strerror}): make"
            " it, name another place such as --store sqlite:////path/to/file, or --store memory: to keep nothing"
        ) from None


def _introduction(config: Config) -> dict[str, object]:
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "core": "compiled" if COMPILED else "interpreted",
        "transport": choose(config.transport),
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "max_connections": config.max_connections,
        "max_memory": config.max_memory.human_readable() if config.max_memory else "unlimited",
    }


def _find_user(name: str) -> pwd.struct_passwd:
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user is {name!r}, and this machine has no such user") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise ConfigError(f"--user is {name!r}, but only root can become another user: start it as root, or as {name}")
    return user


def _become(user: pwd.struct_passwd) -> None:
    if os.geteuid() == 0:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


def _detach() -> Callable[[], None]:
    """Go on in a child without terminal; the parent exits 0 when the returned function is called, else 1."""
    reader, writer = os.pipe()
    parent = os.getpid()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 1) else 1)
    os.close(reader)
    os.setsid()
    systemd.hand_over(parent)

    def ready() -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        os.write(writer, b"!")
        os.close(writer)

    return ready


def _nothing() -> None:
    pass
