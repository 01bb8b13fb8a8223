"""The store in a cluster of memcached servers, through pymemcache; docs/memcached-log.md draws it."""

from geartrain.store.memcached.store import MemcachedStore

__all__ = ["MemcachedStore"]
