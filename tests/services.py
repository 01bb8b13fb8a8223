"""Real databases and caches as child processes for tests, as ``servers`` has job servers.

Each has a port that was free a moment ago and its data in a temporary folder, and listens on the loopback address
alone. Started by root, it runs as the user its package made, since most of them refuse to be root. It may be killed as
by a power cut (``kill``) and started again with what it had kept (``start``). Passwords hold signs that have to be
quoted in a URL, so that tests can look for them in error messages.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from servers import free_port, missing, needs, wait_until

USER = "geartrain"
PASSWORD = "s3cr:t/w@rd%"  # nothing here is secret: the server lives as long as the tests
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), "w@rd")
SECONDS_TO_START = 30

AnyService = TypeVar("AnyService", bound="Service")


class Service(ABC):
    """A server that stores may use."""

    runs_as: ClassVar[str]  # the user Debian's package makes

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    @abstractmethod
    def prepare(self) -> None:
        """Make what must be there before the first start."""

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it in the foreground."""

    @abstractmethod
    def greets(self) -> bool:
        """Whether it is ready to work; OSError while it is not there."""

    @abstractmethod
    def url(self, namespace: str = "geartrain") -> str:
        """The place of one job server in it, as ``--store`` takes it."""

    def start(self) -> None:
        """Start it, or start it again, on the same port with the same data; return when it is ready."""
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=self.folder,
                start_new_session=True,
                **self._as_user(),
            )
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            with contextlib.suppress(OSError):
                if self.greets():
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.command()} did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it and all its processes at once, with no chance to tidy up."""
        assert self.process is not None
        group = self.process.pid
        os.killpg(group, signal.SIGKILL)
        self.process.wait()
        # Its children die a moment later, and hold the data's lock until then.
        wait_until(lambda: not _lives(group), "its processes are gone")

    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.process is None or self.process.poll() is not None

    def run(self, *command: str) -> None:
        """A program of the service's package, as the service's user."""
        done = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=60, **self._as_user(), check=False)
        assert done.returncode == 0, f"{command}: {done.stdout.decode()}{done.stderr.decode()}"

    def give(self, path: Path) -> None:
        """Let the service own ``path``."""
        if os.geteuid() == 0:
            shutil.chown(path, self.runs_as, pwd.getpwnam(self.runs_as).pw_gid)

    def _as_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        user = pwd.getpwnam(self.runs_as)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class SqlService(Service):
    """A relational database."""

    @abstractmethod
    def connect(self, database: str = "geartrain") -> Any:
        """A connection of the database's library, as its administrator, that commits by itself."""

    def sql(self, *statements: str, database: str = "geartrain") -> list[Any]:
        """Execute as the administrator; the rows of the last one."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    @abstractmethod
    def drop_connections(self) -> None:
        """End every session but the administrator's."""

    small_megabytes: ClassVar[int]
    """The disk on which an empty database just fits."""

    @abstractmethod
    def make_database(self, name: str, folder: Path) -> None:
        """A database whose tables live in ``folder``."""

    @abstractmethod
    def drop_database(self, name: str) -> None:
        """Take it out of its folder."""


class PostgreSQL(SqlService):
    runs_as = "postgres"
    small_megabytes = 16

    def prepare(self) -> None:
        self.run(self._program("initdb"), "-D", "data", "-U", "postgres", "--auth-local=trust",
                 "--auth-host=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C")  # fmt: skip

    def command(self) -> list[str]:
        return [self._program("postgres"), "-D", "data", "-p", str(self.port), "-k", str(self.folder),
                "-c", "listen_addresses=127.0.0.1", *self.options]  # fmt: skip

    def greets(self) -> bool:
        import psycopg

        try:
            if not self.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{USER}'", database="postgres"):
                self.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'", database="postgres")
                self.sql(f"CREATE DATABASE geartrain OWNER {USER}", database="postgres")
        except psycopg.OperationalError:
            return False
        return True

    def url(self, namespace: str = "geartrain", database: str = "geartrain") -> str:
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}?namespace={namespace}"

    def connect(self, database: str = "geartrain") -> Any:
        import psycopg

        return psycopg.connect(host=str(self.folder), port=self.port, user="postgres", dbname=database, autocommit=True)

    def set_fsync(self, on: bool) -> None:
        """Whether a commit waits until the disk has it; new connections know it on return."""
        value = "on" if on else "off"
        self.sql(f"ALTER SYSTEM SET fsync = {value}")
        self.sql("SELECT pg_reload_conf()")
        wait_until(lambda: self.sql("SHOW fsync") == [(value,)], "fsync is set")

    def drop_connections(self) -> None:
        self.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def make_database(self, name: str, folder: Path) -> None:
        self.give(folder)
        self.sql(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
        self.sql(f"CREATE DATABASE {name} OWNER {USER} TABLESPACE {name}")

    def drop_database(self, name: str) -> None:
        self.sql(f"DROP DATABASE {name} WITH (FORCE)", f"DROP TABLESPACE {name}", database="postgres")

    @staticmethod
    def _program(name: str) -> str:
        # Debian keeps several versions side by side, none of them in the PATH.
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
        return str(versions[-1].with_name(name)) if versions else needs(name, "postgresql")


class MariaDB(SqlService):
    runs_as = "mysql"
    small_megabytes = 8

    def prepare(self) -> None:
        needs("mariadbd", "mariadb-server")
        self.run(needs("mariadb-install-db", "mariadb-server"), "--no-defaults", f"--datadir={self.folder}/data",
                 "--skip-test-db", "--auth-root-authentication-method=normal", "--skip-name-resolve",
                 *self.options)  # fmt: skip

    def command(self) -> list[str]:
        return [needs("mariadbd", "mariadb-server"), "--no-defaults", f"--datadir={self.folder}/data",
                f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.folder}/socket",
                f"--pid-file={self.folder}/pid", "--skip-name-resolve", "--max-allowed-packet=4M",
                *self.options]  # fmt: skip

    def greets(self) -> bool:
        import pymysql  # type: ignore[import-untyped]

        try:
            self.sql(
                "CREATE DATABASE IF NOT EXISTS geartrain",
                f"CREATE USER IF NOT EXISTS {USER} IDENTIFIED BY '{PASSWORD}'",
                f"GRANT ALL ON geartrain.* TO {USER}",
                database="mysql",
            )
        except pymysql.err.OperationalError:
            return False
        return True

    def url(self, namespace: str = "geartrain", database: str = "geartrain") -> str:
        return f"mariadb://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}?namespace={namespace}"

    def connect(self, database: str = "geartrain") -> Any:
        import pymysql

        return pymysql.connect(
            unix_socket=f"{self.folder}/socket", user="root", database=database, autocommit=True,
            sql_mode="ANSI_QUOTES",
        )  # fmt: skip

    def connect_as_user(self) -> Any:
        import pymysql

        return pymysql.connect(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD)

    def drop_connections(self) -> None:
        own = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '" + USER + "'"
        for (session,) in self.sql(own):
            with contextlib.suppress(Exception):  # it may have left by itself
                self.sql(f"KILL {session}")

    def make_database(self, name: str, folder: Path) -> None:
        self.give(folder)
        self.folder.joinpath("data", name).symlink_to(folder)
        self.sql(f"GRANT ALL ON {name}.* TO {USER}")

    def drop_database(self, name: str) -> None:
        tables = [f"{name}.{table}" for (table,) in self.sql(f"SHOW TABLES FROM {name}")]
        if tables:
            self.sql(f"DROP TABLE {', '.join(tables)}")
        self.folder.joinpath("data", name).unlink()


class Redis(Service):
    runs_as = "redis"
    program, package, scheme = "redis-server", "redis-server", "redis"

    def prepare(self) -> None:
        needs(self.program, self.package)

    def command(self) -> list[str]:
        return [needs(self.program, self.package), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "always",
                "--requirepass", PASSWORD, *self.options]  # fmt: skip

    def greets(self) -> bool:
        return b"PONG" in _ask(self.port, f"AUTH {PASSWORD}\r\nPING\r\nQUIT\r\n".encode(), until=b"PONG\r\n")

    def url(self, namespace: str = "geartrain") -> str:
        return f"{self.scheme}://:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/0?namespace={namespace}"


class Valkey(Redis):
    program, package, scheme = "valkey-server", "valkey-server", "valkey"
    runs_as = "valkey"


class Memcached(Service):
    """One node; it keeps nothing when it is killed."""

    runs_as = "memcache"

    def prepare(self) -> None:
        needs("memcached", "memcached")

    def command(self) -> list[str]:
        user = ["-u", self.runs_as] if os.geteuid() == 0 else []
        return [needs("memcached", "memcached"), "-l", "127.0.0.1", "-p", str(self.port), *user, *self.options]

    def greets(self) -> bool:
        return _ask(self.port, b"version\r\n", until=b"\r\n").startswith(b"VERSION")

    def url(self, namespace: str = "geartrain") -> str:
        return f"memcached://127.0.0.1:{self.port}/?namespace={namespace}"


@contextlib.contextmanager
def running(kind: type[AnyService], *options: str) -> Iterator[AnyService]:
    """A service of this kind with ``options`` on its command line; skips the test where it is not installed."""
    folder = Path(tempfile.mkdtemp(prefix="geartrain-"))
    service = kind(folder, *options)
    try:
        if os.geteuid() == 0:
            try:
                service.give(folder)
            except (KeyError, LookupError):
                missing(f"needs the user {service.runs_as}: install the package of {kind.__name__}")
        service.prepare()
        service.start()
        yield service
    finally:
        if not service.has_ended():
            service.kill()  # its data goes too, so there is nothing to tidy up
        shutil.rmtree(folder, ignore_errors=True)


def _lives(group: int) -> bool:
    """Whether a process of this group does more than wait for its end to be noticed."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, its_group = status.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _ask(port: int, question: bytes, until: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(question)
        answer = b""
        while until not in answer and (more := connection.recv(4096)):
            answer += more
        return answer
