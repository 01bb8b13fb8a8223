"""The store in Redis or Valkey, through redis-py."""

from geartrain.store.redis.store import RedisStore

__all__ = ["RedisStore"]
