"""The store in MariaDB."""

from __future__ import annotations

import pytest
from sql import DatabasePlace, NewNamespace, SqlContract

from services import MariaDB


class TestMariaDB(SqlContract):
    @pytest.fixture
    def place(self, mariadb: MariaDB, new_namespace: NewNamespace) -> DatabasePlace:
        return DatabasePlace(mariadb, new_namespace)
