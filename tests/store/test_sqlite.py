"""The store in SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import NewNamespace, SqlitePlace
from sql_contract import SqlContract


class TestSQLite(SqlContract):
    @pytest.fixture
    def place(self, tmp_path: Path, new_namespace: NewNamespace) -> SqlitePlace:
        return SqlitePlace(tmp_path / "jobs.sqlite", new_namespace)
