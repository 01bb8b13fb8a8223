"""The store in PostgreSQL."""

from __future__ import annotations

import pytest
from sql import DatabasePlace, NewNamespace, SqlContract

from services import PostgreSQL


class TestPostgreSQL(SqlContract):
    @pytest.fixture
    def place(self, postgresql: PostgreSQL, new_namespace: NewNamespace) -> DatabasePlace:
        return DatabasePlace(postgresql, new_namespace)
