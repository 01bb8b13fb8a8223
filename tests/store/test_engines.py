"""Which store a URL means, and how a URL is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geartrain.store import StoreError, engine, shown_url
from geartrain.store.sql import SqlStore


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////var/lib/jobs.sqlite", "sqlite:////var/lib/jobs.sqlite"),
        ("sqlite:///jobs.sqlite?synchronous=normal", "sqlite:///jobs.sqlite"),
        ("sqlite:////srv/a@b/jobs.sqlite", "sqlite:////srv/a@b/jobs.sqlite"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:se/cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se?cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se:cret@host/db?password=secret", "postgresql://me:***@host/db"),
        ("postgresql://host/db?password=secret&mail=a@b", "postgresql://host/db@b"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("memcached://a,b:11212,c", "memcached://a,b:11212,c"),
        ("postgresql:me:secret@host/db", "postgresql"),
        ("memory", "memory"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert "cret" not in shown


def test_a_scheme_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(StoreError, match=r"oracle://me.*mariadb, memcached, memory, mysql, postgresql, redis"):
        engine("oracle://me:secret@host/db")


@pytest.mark.parametrize(
    ("url", "library", "package"),
    [
        ("sqlite:///x", "sqlalchemy", "geartrain[server]"),
        ("postgresql://host/db", "psycopg", "geartrain[postgresql]"),
        ("mysql://host/db", "pymysql", "geartrain[mysql]"),
        ("redis://host", "redis", "geartrain[redis]"),
        ("memcached://host", "pymemcache", "geartrain[memcached]"),
    ],
)
def test_a_library_that_is_not_installed_is_named(url: str, library: str, package: str) -> None:
    program = f"import sys; sys.modules[{library!r}] = None\nfrom geartrain.store import engine\nengine({url!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("geartrain.store.base.StoreError")
    assert f"needs {library}" in last
    assert package in last


def test_a_third_party_adds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_store.py").write_text(
        "from geartrain.store.sql import SqlStore\n"
        "class TheirStore(SqlStore):\n"
        "    def __init__(self, url):\n"
        "        super().__init__(url.replace('theirs:', 'sqlite:'))\n"
    )
    described = tmp_path / "theirs-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[geartrain.stores]\ntheirs = their_store:TheirStore\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    store = engine(f"theirs:///{tmp_path}/jobs.sqlite")
    assert isinstance(store, SqlStore)
    assert type(store).__name__ == "TheirStore"
    store.open()
    assert store.count() == 0
    store.close()
