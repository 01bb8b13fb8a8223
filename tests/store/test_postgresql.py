"""The store in PostgreSQL."""

from __future__ import annotations

import pytest
from databases import NewNamespace, PostgreSQLPlace
from sql_contract import DatabaseContract

from services import PostgreSQL


class TestPostgreSQL(DatabaseContract):
    @pytest.fixture
    def place(self, postgresql: PostgreSQL, new_namespace: NewNamespace) -> PostgreSQLPlace:
        return PostgreSQLPlace(postgresql, new_namespace)
