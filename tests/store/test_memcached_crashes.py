"""The store in memcached, killed at each of its steps, and with nodes that die and come back under load."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from memcached_place import cluster, cut_connections, die, hanging, url_of, wait_until_whole
from place import Fields, batch, bytes_like, fields, insist, job, kept, numbers, opened

from geartrain.jobserver.records import POSITION_BITS, Batch
from geartrain.store import Store, StoreDownError, engine
from geartrain.store.memcached import MemcachedStore, log, metadump, repair
from geartrain.store.memcached import store as store_module
from geartrain.store.memcached.node import Node, NodeDownError
from geartrain.store.memcached.segment import part_names
from services import Memcached

LARGE = 1_500_000  # bytes; more than an item


class Killed(BaseException):
    """As far as the store can tell, the process ended here."""


class Killer:
    """Ends this thread's work at the ``left``-th change of a node from now on, in the middle of it if it is of many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.thread = threading.current_thread()
        for name in ("put", "add", "replace", "forget"):
            monkeypatch.setattr(Node, name, self._killing(getattr(Node, name)))

    def _killing(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def killing(node: Node, first: Any, *others: Any) -> Any:
            if threading.current_thread() is not self.thread or self.left <= 0:
                return act(node, first, *others)
            self.left -= 1
            if self.left > 0:
                return act(node, first, *others)
            self.left = 0
            if isinstance(first, dict) and len(first) > 1:
                act(node, dict(list(first.items())[: len(first) // 2]), *others)
            raise Killed

        return killing


@pytest.fixture
def often_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have segments deleted and written again all the time."""
    monkeypatch.setattr(log, "SPARE_SEGMENTS", 6)
    monkeypatch.setattr(log, "SPARE_BYTES", 40_000)
    monkeypatch.setattr(log, "FULL_SEGMENT", 4096)
    monkeypatch.setattr(store_module, "DEAD_AT_ONCE", 2)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[list[Memcached]]:
    with cluster(2, "-m", "2048") as services:
        yield services


CHANGES = [
    batch(*[job(n, b"w" * 1000) for n in range(1, 8)], next_number=100),
    batch(job(101, bytes_like(LARGE)), job(102, bytes_like(20_000)), removed=(1, 2)),
    batch(*[job(n, b"x" * 8000) for n in range(201, 201 + LARGE // 8000)], moved=((3, 300 << POSITION_BITS, 1),)),
    batch(removed=(101, 3, 4, *range(201, 301))),
    batch(job(401, bytes_like(9000)), moved=((401, 1, 5),), removed=(102,), next_number=500),
    *[batch(job(n, b"y" * 500), removed=(n - 2,), next_number=n + 1) for n in range(501, 509)],
]


def after(model: dict[int, list[Any]], change: Batch) -> dict[int, list[Any]]:
    """What is kept after a change."""
    changed = {number: list(job) for number, job in model.items()}
    changed.update((job.number, list(fields(job))) for job in change.added)
    for each in change.changed:
        number, position, attempts = each.number, each.position, each.attempts
        if number in changed:
            changed[number][1], changed[number][9] = position, attempts
    for number in change.removed:
        changed.pop(number, None)
    return changed


def in_order(model: dict[int, list[Any]]) -> list[Fields]:
    return sorted((tuple(job) for job in model.values()), key=lambda job: job[1])


def rubbish(store: MemcachedStore, services: list[Memcached], namespace: str) -> set[str]:
    """What is on the nodes that is not needed."""
    manifest, names = store._cluster.manifest, store._names
    needed = {f"{names.prefix}{name}" for name in ("head", "owner", "lease", "node", "begun")}
    for segment in store._log.segments:
        key = names.segment(manifest, segment.n)
        needed.update((key, *part_names(key, segment.size)))
    for number, size in store._log.large.items():
        needed.update(names.workload_items(number, size))
    there = {key.decode() for service in services for key in metadump.keys("127.0.0.1", service.port)}
    return {key for key in there if key.startswith(f"{namespace}.")} - needed


@pytest.mark.usefixtures("often_cleaned")
def test_killed_at_any_step_it_keeps_each_batch_whole_or_not_at_all(
    two_nodes: list[Memcached], new_namespace: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = Killer(monkeypatch)
    steps = 0
    while True:
        steps += 1
        namespace = new_namespace()
        url = url_of(two_nodes, namespace)
        model: dict[int, list[Any]] = {}
        states = [model]
        store = MemcachedStore(url)
        store.open()
        killer.left = steps
        try:
            for change in CHANGES:
                states = [model, after(model, change)]
                store.commit(change)
                model = states[1]
                states = [model]
            killer.left = 0
            done = True
        except Killed:
            done = False
        die(store)
        killer.left = random.Random(steps).randrange(1, 12)  # and once more, while it starts
        store = MemcachedStore(url)
        try:
            store.open()
        except Killed:
            die(store)
        else:
            store.close()
        killer.left = 0
        with opened(url) as again:
            assert isinstance(again, MemcachedStore)
            found = kept(again)
            assert found in [in_order(state) for state in states], f"killed at step {steps}"
            assert again.count() == len(found)
            assert rubbish(again, two_nodes, namespace) == set(), f"killed at step {steps}"
            again.commit(batch(removed=tuple(numbers(again))))
        if done:
            break
    assert steps > 40


def test_what_was_begun_and_taken_back_leaves_nothing(
    two_nodes: list[Memcached], new_namespace: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = new_namespace()
    with opened(url_of(two_nodes, namespace)) as store:
        assert isinstance(store, MemcachedStore)
        put = Node.put

        def failing(node: Node, items: dict[str, bytes], seconds: int = 0) -> None:
            if any(".w." in key or key.endswith(".begun") for key in items):
                put(node, items, seconds)
            else:
                raise NodeDownError(node, "it is broken, for this test")

        with monkeypatch.context() as patch:
            patch.setattr(Node, "put", failing)
            with pytest.raises(StoreDownError):
                store.commit(batch(job(1, bytes_like(LARGE)), job(2, bytes_like(9000))))
        wait_until_whole(store)
        assert len(rubbish(store, two_nodes, namespace)) == 3
        insist(store, batch(job(3, bytes_like(9000)), removed=(1, 2)))
        assert kept(store) == [fields(job(3, bytes_like(9000)))]
        assert rubbish(store, two_nodes, namespace) == set()


class Load:
    """A thread that commits batches of every kind, and knows what must be kept."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.model: dict[int, list[Any]] = {}
        self.commits = 0
        self.under_way: Batch | None = None
        self.failure: BaseException | None = None
        self.lock = threading.Lock()
        self._chance = random.Random(seed)
        self._next = 1
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        self._thread.join()
        assert self.failure is None, self.failure

    def expected(self) -> list[Fields]:
        return in_order(self.model)

    def _run(self) -> None:
        try:
            while not self._enough.is_set():
                with self.lock:
                    self.under_way = self.under_way or self._batch()
                    try:
                        self.store.commit(self.under_way)
                    except StoreDownError:
                        if self._chance.random() < 0.1:  # as the writer does, that has waited enough
                            self.under_way = self._taken_back(self.under_way)
                    else:
                        self.model = after(self.model, self.under_way)
                        self.under_way = None
                        self.commits += 1
                self._enough.wait(0.002)
        except BaseException as failure:
            self.failure = failure

    def _batch(self) -> Batch:
        chance = self._chance
        count = chance.choice([1, 1, 3, 20])
        sizes = [chance.choice([0, 10, 100, 1000, 9000]) for _ in range(count)]
        if chance.random() < 0.03:
            sizes[0] = LARGE
        added = [job(self._next + n, chance.randbytes(size)) for n, size in enumerate(sizes)]
        self._next += count
        live = list(self.model)
        ended = chance.sample(live, min(len(live), chance.choice([0, count, 2 * count])))
        again = chance.sample(live, min(len(live), chance.choice([0, 0, 2])))
        moved = tuple((number, (self._next - 1 << POSITION_BITS) + n, n) for n, number in enumerate(again, 1))
        return batch(*added, moved=moved, removed=tuple(ended), next_number=self._next)

    @staticmethod
    def _taken_back(under_way: Batch) -> Batch:
        removed = (*under_way.removed, *(job.number for job in under_way.added))
        moved = tuple((each.number, each.position, each.attempts) for each in under_way.changed)
        return batch(moved=moved, removed=removed)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find out soon that a node hangs, and copy soon what a lost one had."""
    monkeypatch.setattr("geartrain.store.memcached.node.ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr(repair, "GRACE", 0.2)


@pytest.mark.usefixtures("often_cleaned", "impatient")
@pytest.mark.parametrize(("nodes", "seed"), [(2, 1), (3, 2)])
def test_nodes_that_die_and_come_back_under_load_lose_nothing(
    nodes: int, seed: int, new_namespace: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(seed)
    with cluster(nodes, "-m", "2048") as services, contextlib.ExitStack() as stack:
        url = url_of(services, new_namespace())
        store = engine(url)
        store.open()
        load = stack.enter_context(Load(store, seed))
        ways = ["killed", "killed empty at once", "hanging", "all hanging", "cut", "and our process"] * 2
        chance.shuffle(ways)
        for way in ways:
            time.sleep(chance.random() * 0.2)  # a random moment
            victim = chance.choice(services)
            if way in ("killed", "and our process"):
                victim.kill()
                time.sleep(chance.random() * 0.5)
                if way == "and our process":
                    store = begin_again(load, url)
                victim.start()
            elif way == "killed empty at once":
                victim.kill()
                victim.start()
            elif way == "cut":
                cut_connections(services)
            else:
                with hanging(services if way == "all hanging" else [victim]):
                    time.sleep(chance.random() * 0.6)
            wait_until_whole(store)
            with load.lock:
                assert load.failure is None
                assert what_is_kept(load) == load.expected(), way
        stack.close()
        commits = load.commits
        store.close()
        with opened(url) as again:
            assert kept(again) in (load.expected(), in_order(after(load.model, load.under_way or batch())))
    assert commits > 100


def begin_again(load: Load, url: str) -> Store:
    """The same load on a store that was opened after our process was killed."""
    with load.lock:
        assert isinstance(load.store, MemcachedStore)
        die(load.store)
        store = load.store = engine(url)
        store.open()
        assert what_is_kept(load) == load.expected()
        return store


def what_is_kept(load: Load) -> list[Fields]:
    """What the store gives back. A batch whose end is not known may be there, and then is taken for committed."""
    found = kept(load.store)
    if load.under_way is not None and found == in_order(changed := after(load.model, load.under_way)):
        load.model, load.under_way = changed, None
    return found
