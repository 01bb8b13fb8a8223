"""Where background jobs are kept so that they survive the job server: one contract, many engines."""

from geartrain.redaction import shown_url
from geartrain.store.base import (
    Abilities,
    JobTooLargeError,
    Store,
    StoreDownError,
    StoreError,
    StoreFullError,
    StoreInUseError,
    Unreadable,
)
from geartrain.store.engines import engine

__all__ = [
    "Abilities",
    "JobTooLargeError",
    "Store",
    "StoreDownError",
    "StoreError",
    "StoreFullError",
    "StoreInUseError",
    "Unreadable",
    "engine",
    "shown_url",
]
