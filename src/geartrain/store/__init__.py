"""Where background jobs are kept so that they survive the job server: one contract, many engines."""

from geartrain.store.base import (
    Abilities,
    JobTooLarge,
    Store,
    StoreDown,
    StoreError,
    StoreFull,
    StoreInUse,
    Unreadable,
    shown_url,
)
from geartrain.store.engines import engine

__all__ = [
    "Abilities",
    "JobTooLarge",
    "Store",
    "StoreDown",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "Unreadable",
    "engine",
    "shown_url",
]
