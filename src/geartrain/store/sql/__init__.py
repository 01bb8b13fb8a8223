"""The store in a relational database: SQLite, PostgreSQL, MySQL or MariaDB, through SQLAlchemy Core."""

from geartrain.store.sql.store import SqlStore

__all__ = ["SqlStore"]
