"""The store in a cluster of memcached servers, through pymemcache."""

from geartrain.store.memcached.store import MemcachedStore

__all__ = ["MemcachedStore"]
