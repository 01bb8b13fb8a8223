"""The options of gearmand 1.1 that ``geartrain serve`` takes beside its own, so that old start scripts go on working.

What has no meaning here is accepted and said so in the log. What promises something that is not given here in that
way, such as encryption or a certain database, is refused: to start without it would be worse than not to start.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from geartrain.errors import ConfigError

_NO_STORE = "where jobs are kept is said by --store, and geartrain store import takes over what gearmand has kept"
_NO_TLS = "connections are not encrypted here: put a TLS proxy such as stunnel before the job server, or leave it out"

WITHOUT_MEANING: Mapping[str, str] = {
    "threads": "one thread serves all connections",
    "round_robin": "functions whose jobs have equal priority always take turns",
    "hashtable_buckets": "the tables grow by themselves",
    "coredump": "the system's own limit decides (ulimit -c)",
    "http_port": "there is no HTTP on this job server",
    "libsqlite3_db": _NO_STORE,
    "libsqlite3_table": _NO_STORE,
    "store_queue_on_shutdown": _NO_STORE,
    "mysql_host": _NO_STORE,
    "mysql_port": _NO_STORE,
    "mysql_user": _NO_STORE,
    "mysql_password": _NO_STORE,
    "mysql_db": _NO_STORE,
    "mysql_table": _NO_STORE,
    "libpq_conninfo": _NO_STORE,
    "libpq_table": _NO_STORE,
    "libmemcached_servers": _NO_STORE,
    "libmemcached_prefix": _NO_STORE,
    "redis_server": _NO_STORE,
    "redis_port": _NO_STORE,
    "redis_password": _NO_STORE,
    "redis_prefix": _NO_STORE,
    "libtokyocabinet_file": _NO_STORE,
    "libtokyocabinet_optimize": _NO_STORE,
}
"""Options that are accepted and why they do nothing."""

REFUSED: Mapping[str, str] = {
    "queue_type": "write --store URL instead, such as --store sqlite:////var/lib/geartrain/queue.sqlite, and take over"
    " what gearmand has kept by `geartrain store import`; or builtin for memory alone",
    "protocol": "there is no HTTP on this job server: leave it out",
    "ssl": _NO_TLS,
    "ssl_ca_file": _NO_TLS,
    "ssl_certificate": _NO_TLS,
    "ssl_key": _NO_TLS,
}
"""Options that are refused and why."""

FLAGS = ("round_robin", "coredump", "store_queue_on_shutdown", "ssl")
"""Those of the options that take no value."""

SHORT: Mapping[str, str] = {"threads": "t", "round_robin": "R", "queue_type": "q", "protocol": "r"}


def refuse(given: Mapping[str, object]) -> None:
    """Raise ConfigError if an option was given that can't be honoured."""
    for name, reason in REFUSED.items():
        value = given.get(name)
        if value and not (name == "queue_type" and str(value).lower() == "builtin"):
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag}: {reason}" if name in FLAGS else f"{flag} is {value!r}: {reason}")


def words_of_file(path: str) -> list[str]:
    """The arguments in a file for gearmand's --config-file: words such as --port=4730, with blanks between them.

    A value with blanks stands in quotes, as in a shell; a line that begins with ``#`` is a comment.
    """
    try:
        lines = Path(path).read_text().splitlines()
        return [word for line in lines if not line.lstrip().startswith("#") for word in shlex.split(line)]
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(f"--config-file is {path!r}, which is no text ({error}): check the path") from None
        raise ConfigError(f"--config-file is {path!r}, where quotes are left open: close them") from None
    except OSError as error:
        raise ConfigError(
            f"--config-file is {path!r}, which can't be read ({error.strerror}): check the path"
        ) from None
