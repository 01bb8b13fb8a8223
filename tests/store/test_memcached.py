"""The store in a cluster of memcached servers: the contract, and what else such a cluster is asked."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from contract import StoreContract
from place import Place
from pymemcache.client.base import Client

from geartrain.store.memcached import MemcachedStore
from geartrain.store.memcached.names import placed_segment
from geartrain.store.memcached.segment import cut
from servers import free_port, wait_until
from services import Memcached, running

NewNamespace = Callable[[], str]
NODES = 3


@contextlib.contextmanager
def cluster(nodes: int, *options: str) -> Iterator[list[Memcached]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running(Memcached, "-M", *options)) for _ in range(nodes)]


def url_of(services: list[Memcached], namespace: str) -> str:
    return f"memcached://{','.join(f'127.0.0.1:{service.port}' for service in services)}?namespace={namespace}"


class MemcachedPlace(Place):
    def __init__(self, services: list[Memcached], new_namespace: NewNamespace) -> None:
        self.services = services
        self.new_namespace = new_namespace
        self.namespace = new_namespace()
        self.crashed = 0
        super().__init__(url_of(services, self.namespace), url_of(services, new_namespace()))

    def cut(self) -> None:
        ports = {service.port for service in self.services}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.getpeername()[1] in ports:
                    connection.shutdown(socket.SHUT_RDWR)

    def crash(self) -> None:
        self.crashed += 1
        self.services[self.crashed % len(self.services)].kill()

    def revive(self) -> None:
        """Start the node again, and wait until it is filled: before that, no other one may die."""
        service = self.services[self.crashed % len(self.services)]
        service.start()
        with contextlib.closing(Client(("127.0.0.1", service.port))) as client:
            wait_until(lambda: client.get(f"{self.namespace}.head") is not None, "it is filled")

    def spoil(self, number: int) -> None:
        with contextlib.closing(MemcachedStore(self.url)) as store:
            store.open()
            home = store._log.home[number]
            key = store._names.segment(store._cluster.head, home.n)
            [(_, segment)] = store._contents.segments([home])
            at = segment.numbers.index(number)
            segment.records = list(segment.records)
            segment.records[at] = b"\xff" * len(segment.records[at])
            store._cluster.keep([(placed_segment(home.n), cut(key, segment.dump()))])

    def nowhere(self) -> str:
        return f"memcached://127.0.0.1:{free_port()},127.0.0.1:{free_port()}?namespace={self.namespace}"

    @contextlib.contextmanager
    def cramped(self) -> Iterator[tuple[str, Callable[[], None]]]:
        with cluster(2, "-m", "12") as services:

            def make_room() -> None:
                for service in services:
                    Client(("127.0.0.1", service.port)).cache_memlimit(200)

            yield url_of(services, self.namespace), make_room


@pytest.fixture(scope="module")
def services() -> Iterator[list[Memcached]]:
    with cluster(NODES, "-m", "2048") as services:
        yield services


@pytest.fixture
def place(services: list[Memcached], new_namespace: NewNamespace) -> MemcachedPlace:
    return MemcachedPlace(services, new_namespace)


class TestMemcached(StoreContract):
    @pytest.fixture
    def place(self, services: list[Memcached], new_namespace: NewNamespace) -> MemcachedPlace:
        return MemcachedPlace(services, new_namespace)
