"""The store in a cluster of memcached servers: the contract, and what else such a cluster is asked."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from contract import StoreContract
from memcached_place import MemcachedPlace, NewNamespace, cluster, die, hanging, url_of, wait_until_whole
from place import NO_LIMIT, batch, bytes_like, fields, is_refused, job, kept, numbers, opened, until_rebuilt
from pymemcache.client.base import Client  # type: ignore[import-untyped]

from geartrain.jobserver.records import POSITION_BITS, Change, Record
from geartrain.store import StoreDownError, StoreError, StoreFullError, StoreInUseError, Unreadable, engine
from geartrain.store.memcached import MemcachedStore, log, metadump, repair
from geartrain.store.memcached.manifest import Manifest
from geartrain.store.memcached.names import placed_segment
from geartrain.store.memcached.node import ITEM_SIZE
from geartrain.store.memcached.segment import PART, Segment, cut
from servers import wait_until
from services import Memcached, running


@pytest.fixture(scope="module")
def services() -> Iterator[list[Memcached]]:
    with cluster(3, "-m", "2048") as services:
        yield services


@pytest.fixture
def place(services: list[Memcached], new_namespace: NewNamespace) -> MemcachedPlace:
    return MemcachedPlace(services, new_namespace)


class TestMemcached(StoreContract):
    @pytest.fixture
    def place(self, services: list[Memcached], new_namespace: NewNamespace) -> MemcachedPlace:
        return MemcachedPlace(services, new_namespace)


@contextlib.contextmanager
def asked(service: Memcached) -> Iterator[Client]:
    """A connection to one node."""
    with contextlib.closing(Client(("127.0.0.1", service.port))) as client:
        yield client


def keys(service: Memcached, namespace: str) -> set[str]:
    """What a node keeps of a namespace, but for what is there in any case."""
    found = {key.decode() for key in metadump.keys("127.0.0.1", service.port)}
    always = {f"{namespace}.{name}" for name in ("head", "owner", "lease", "node", "begun")}
    return {key for key in found if key.startswith(f"{namespace}.")} - always


# Which servers it takes


def test_servers_that_may_throw_jobs_away_are_refused(new_namespace: NewNamespace) -> None:
    with running(Memcached) as evicting, running(Memcached, "-M") as other:
        url = url_of([other, evicting], new_namespace())
        with pytest.raises(StoreError, match=rf"{evicting.port} may throw jobs away .* start it with -M"):
            engine(url).open()
        with opened(url + "&accept_eviction=yes") as store:
            assert "may throw jobs away" in store.abilities.survives
            store.commit(batch(job(1)))


def test_servers_of_too_small_items_are_refused(new_namespace: NewNamespace) -> None:
    with cluster(2, "-I", "512k") as services, pytest.raises(StoreError, match="-I 1m"):
        engine(url_of(services, new_namespace())).open()


def test_one_server_is_refused_unless_one_copy_is_enough(
    services: list[Memcached], new_namespace: NewNamespace
) -> None:
    url = url_of(services[:1], new_namespace())
    with pytest.raises(StoreError, match=r"copies=1.* the restart of a memcached loses its jobs"):
        engine(url)
    with opened(url + "&copies=1") as store:
        assert "restart of a memcached loses" in store.abilities.survives
        store.commit(batch(job(1, b"one")))
        assert numbers(store) == [1]


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("memcached://a,b:port", "memcached://host:11211,host:11211"),
        ("memcached://", "memcached://host:11211,host:11211"),
        ("memcached://user:secret@a,b", "memcached://host:11211,host:11211"),
        ("memcached://a,b?copies=3", "each job is to be on 3"),
        ("memcached://a,a", "names 1 memcached"),
        ("memcached://a,b?copies=0", "copies"),
        ("memcached://a,b?namespace=with space", "namespace"),
        ("memcached://a,b?nobody_knows=1", "nobody_knows"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_with_the_remedy(url: str, named: str) -> None:
    with pytest.raises(StoreError, match=named) as refusal:
        engine(url)
    assert "secret" not in str(refusal.value)


def test_one_server_under_two_names_is_found_out(services: list[Memcached], new_namespace: NewNamespace) -> None:
    port = services[0].port
    with pytest.raises(StoreError, match="are the same memcached"):
        engine(f"memcached://127.0.0.1:{port},127.1:{port}?namespace={new_namespace()}").open()


def test_localhost_is_where_somebody_listens(services: list[Memcached], new_namespace: NewNamespace) -> None:
    with opened(url_of(services, new_namespace()).replace("127.0.0.1", "localhost")) as store:
        assert numbers(store) == []


def test_addresses_of_every_kind_are_understood() -> None:
    store = engine("memcached://a,b:1234,[::1],[::1]:5/")
    assert isinstance(store, MemcachedStore)
    assert [node.name for node in store._cluster.nodes] == ["a:11211", "b:1234", "[::1]:11211", "[::1]:5"]
    store.close()


def test_what_the_first_version_has_kept_is_read(place: MemcachedPlace) -> None:
    """Its segments had no records, and changes of position and attempts alone."""
    one = job(1, b"one", priority=2, due=1.9e9)
    with opened(place.url) as store:
        assert isinstance(store, MemcachedStore)
        store.commit(batch(one, job(2, b"two")))
        store.commit(batch(changed=(Change(1, 77, 1.9e9, 2, 5),), next_number=9))
        names, cluster = store._names, store._cluster
        for each, segment in store._contents.segments(list(store._log.segments)):
            changed = [(number, part[:12]) for number, part in segment.changed]
            old = Segment(segment.next_number, segment.numbers, segment.records, changed, segment.removed, version=1)
            cluster.keep([(placed_segment(each.n), cut(names.segment(cluster.manifest, each.n), old.dump()))])
        cluster.establish(version=1)
    one.position, one.attempts = 77, 5
    for _ in range(2):
        with opened(place.url) as store:
            assert kept(store) == [fields(one), fields(job(2, b"two"))]
            assert store.next_number() == 9
            store.commit(batch(records=(Record("a", b"k", b"v"),)))
            assert isinstance(store, MemcachedStore)
            assert store._cluster.manifest.version == 2


def test_what_others_keep_there_is_left_alone(place: MemcachedPlace, services: list[Memcached]) -> None:
    with asked(services[0]) as client:
        client.set(f"{place.namespace}.head", b"somebody's own")
        with pytest.raises(StoreError, match="another namespace"):
            engine(place.url).open()
        newer = Manifest(1, 1, "", (), (("", 0),), version=3)
        client.set(f"{place.namespace}.head", newer.dump())
        with pytest.raises(StoreError, match="newer geartrain"):
            engine(place.url).open()


# Copies


def test_every_job_is_on_two_nodes(place: MemcachedPlace, services: list[Memcached]) -> None:
    with opened(place.url) as store:
        for n in range(1, 21):
            store.commit(batch(job(n, bytes_like(20_000))))
        there = [keys(service, place.namespace) for service in services]
        assert all(sum(key in each for each in there) == 2 for key in set().union(*there))
        assert sum(map(len, there)) == 2 * 20 * 2
        assert min(map(len, there)) > 10  # evenly enough
        store.commit(batch(removed=tuple(range(1, 21))))
        assert not any(".w." in key for service in services for key in keys(service, place.namespace))


def test_without_one_of_two_nodes_it_goes_on_and_without_both_it_waits(new_namespace: NewNamespace) -> None:
    with cluster(2) as services, opened(url_of(services, new_namespace())) as store:
        store.commit(batch(job(1, b"one")))
        services[0].kill()
        store.commit(batch(job(2, b"two")))
        assert store.read(1) == b"one"
        services[1].kill()
        with pytest.raises(StoreDownError, match=f"{services[1].port}"):
            store.commit(batch(job(3)))
        with pytest.raises(StoreDownError):
            store.read(1)
        for service in services:
            service.start()
        wait_until_whole(store)
        # Both were emptied, which is more than it survives.
        assert is_refused(store, batch(job(3, b"three")), "has lost 2 jobs")
        assert until_rebuilt(store, [job(1, b"one"), job(2, b"two")], 3) == 2
        store.commit(batch(job(3, b"three"), removed=(1,)))
        assert numbers(store) == [2, 3]


def test_a_node_that_comes_back_is_filled_and_then_the_other_may_go(
    new_namespace: NewNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(2, "-m", "500") as services:
        url = url_of(services, new_namespace())
        some = [
            job(n, bytes_like(size)) for n, size in enumerate([0, 10, 9000, PART - 12, PART, ITEM_SIZE, 3_000_000], 1)
        ]
        expected = [fields(each) for each in some]
        with opened(url) as store:
            store.commit(batch(*some, next_number=77))
            for victim in (0, 1, 0):
                services[victim].kill()
                services[victim].start()
                wait_until_whole(store)
            assert kept(store) == expected
            services[1].kill()
            assert kept(store) == expected
        with opened(url) as store:
            assert kept(store) == expected
            assert store.next_number() == 77


def test_what_a_lost_node_had_is_copied_to_a_third(
    place: MemcachedPlace, new_namespace: NewNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "GRACE", 0.1)
    with cluster(3) as services, opened(url_of(services, place.namespace)) as store:
        for n in range(1, 31):
            store.commit(batch(job(n, bytes_like(9000))))
        services[0].kill()
        store.commit(batch(job(31)))

        def copied() -> bool:
            there = [keys(service, place.namespace) for service in services[1:]]
            return len(there[0]) == 61 and there[0] == there[1]

        wait_until(copied, "everything is on both nodes")
        assert numbers(store) == list(range(1, 32))


def test_a_node_that_hung_does_not_bring_back_what_has_ended(
    new_namespace: NewNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geartrain.store.memcached.node.ANSWER_TIMEOUT", 0.3)
    with cluster(2) as services:
        namespace = new_namespace()
        url = url_of(services, namespace)
        with opened(url) as store:
            store.commit(batch(*[job(n, bytes_like(9000)) for n in range(1, 11)]))
            with hanging(services[:1]):
                before = time.monotonic()
                store.commit(batch(job(11), removed=tuple(range(1, 9))))
                assert time.monotonic() - before < 2  # it waits for it once ...
                before = time.monotonic()
                store.commit(batch(job(12), moved=((9, 99 << POSITION_BITS, 3),)))
                assert time.monotonic() - before < 0.2  # ... and never again
            wait_until_whole(store)
            services[1].kill()
            assert numbers(store) == [10, 11, 12, 9]
            assert len([key for key in keys(services[0], namespace) if ".w." in key]) == 2
        with opened(url) as store:
            assert numbers(store) == [10, 11, 12, 9]


def test_a_node_may_be_exchanged(services: list[Memcached], new_namespace: NewNamespace) -> None:
    namespace = new_namespace()
    with opened(url_of(services[:2], namespace)) as store:
        store.commit(batch(*[job(n, bytes_like(9000)) for n in range(1, 11)]))
    with opened(url_of(services[1:], namespace)) as store:
        wait_until_whole(store)
        assert numbers(store) == list(range(1, 11))
    with opened(url_of([services[2], services[0]], namespace)) as store:
        wait_until_whole(store)
        assert numbers(store) == list(range(1, 11))
    with pytest.raises(StoreError, match=f"jobs are on .*{services[2].port}"):
        engine(url_of([services[1]], namespace) + "&copies=1").open()


def test_a_new_place_is_not_made_while_a_node_is_away(services: list[Memcached], new_namespace: NewNamespace) -> None:
    with cluster(1) as [gone]:
        url = url_of([*services[:2], gone], new_namespace())
        gone.kill()
        with pytest.raises(StoreDownError, match=f"{gone.port} may have jobs"):
            engine(url).open()


def test_jobs_that_no_node_has_are_reported_and_stop_nothing(new_namespace: NewNamespace) -> None:
    with cluster(3) as services:
        url = url_of(services, new_namespace())
        with opened(url) as store:
            for n in range(1, 21):
                store.commit(batch(job(n)))
        for service in services[:2]:
            service.kill()
            service.start()
        with opened(url) as store:
            found = list(store.load(NO_LIMIT))
            lost = [each for each in found if isinstance(each, Unreadable)]
            assert 0 < len(lost) < 20
            assert "more nodes were lost" in lost[0].reason
            assert len(found) == 20
            assert store.count() == 20 - len(lost)
            wait_until_whole(store)
        with opened(url) as store:
            assert not any(isinstance(each, Unreadable) for each in store.load(NO_LIMIT))


def test_what_is_lost_meanwhile_is_known_before_the_next_job(new_namespace: NewNamespace) -> None:
    with cluster(3) as services, opened(url_of(services, new_namespace())) as store:
        known = [job(n, b"w" * (n * 1000)) for n in range(1, 21)]  # some are in segments, some are items of their own
        for each in known:
            store.commit(batch(each))
        for service in services[:2]:
            service.kill()
        for service in services[:2]:
            service.start()
        wait_until(lambda: is_refused(store, batch(job(21)), "has lost"), "the loss is known", 30)
        assert until_rebuilt(store, known, 21) == 20
        store.commit(batch(job(21)))
        assert [each[:5] for each in kept(store)] == [fields(each)[:5] for each in [*known, job(21)]]


# Who uses it


def foreign_lease(beat: int) -> bytes:
    return b"elsewhere 42 2026-01-01T00:00:00 another-machine/1 0123456789abcdef %d" % beat


def test_a_user_on_another_machine_that_lives_is_named(place: MemcachedPlace, services: list[Memcached]) -> None:
    errors: list[BaseException] = []
    beats = itertools.count()

    def refused() -> bool:
        client.set(f"{place.namespace}.lease", foreign_lease(next(beats)), expire=60)
        return bool(errors)

    with asked(services[1]) as client:
        refused()
        opening = threading.Thread(target=_expect, args=(engine(place.url).open, errors))
        opening.start()
        wait_until(refused, "the second is refused")
        opening.join(5)
    assert isinstance(errors[0], StoreInUseError)
    assert "process 42 on elsewhere" in str(errors[0])


def test_a_user_on_another_machine_that_died_is_waited_for(place: MemcachedPlace, services: list[Memcached]) -> None:
    with asked(services[1]) as client:
        client.set(f"{place.namespace}.lease", foreign_lease(1), expire=1)
    with opened(place.url) as store:
        store.commit(batch(job(1)))


def test_who_lost_the_place_writes_nothing_more(place: MemcachedPlace, services: list[Memcached]) -> None:
    with opened(place.url) as first:
        first.commit(batch(job(1), job(2), next_number=3))
        for service in services:
            with asked(service) as client:
                client.delete(f"{place.namespace}.lease")  # as if it had been away for longer than its lease
        with opened(place.url) as second:
            for change in (batch(job(3)), batch(removed=(1,)), batch(moved=((1, 9, 9),)), batch()):
                with pytest.raises(StoreInUseError):
                    first.commit(change)
            with pytest.raises(StoreInUseError):
                first.quarantine(1, "no business of yours")
            second.commit(batch(job(4)))
            first.close()
            assert numbers(second) == [1, 2, 4]
            with pytest.raises(StoreInUseError):
                engine(place.url).open()
        with opened(place.url) as third:
            assert numbers(third) == [1, 2, 4]


# Room


def test_a_full_cluster_forgets(new_namespace: NewNamespace) -> None:
    with cluster(2, "-m", "10") as services, opened(url_of(services, new_namespace())) as store:
        n = 0

        def fill() -> None:
            nonlocal n
            while True:
                n += 1
                store.commit(batch(*[job(n * 100 + k, bytes_like(60_000)) for k in range(5)]))

        with pytest.raises(StoreFullError, match="-m"):
            fill()
        for k in range(1, n):
            with contextlib.suppress(StoreFullError):
                store.commit(batch(removed=tuple(range(k * 100, k * 100 + 5))))
        assert numbers(store) == []
        store.commit(batch(*[job(n * 100 + k, bytes_like(60_000)) for k in range(5)]))
        assert len(numbers(store)) == 5


def test_one_old_job_does_not_keep_all_segments(
    place: MemcachedPlace, services: list[Memcached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "SPARE_SEGMENTS", 20)
    with opened(place.url) as store:
        old = [job(1, b"old"), job(2, bytes_like(9000)), job(3, b"moved"), job(4, b"odd")]
        store.commit(batch(*old, moved=((3, 1, 7),)))
        store.quarantine(4, "looked odd")
        for n in range(100, 600):
            store.commit(batch(job(n), removed=(n - 1,), next_number=n + 1))
        assert sum(len(keys(service, place.namespace)) for service in services) < 2 * 80
    with opened(place.url) as store:
        assert [(each[0], each[4], each[9]) for each in kept(store)] == [
            (3, b"moved", 7), (1, b"old", 0), (2, bytes_like(9000), 0), (599, b"", 0),
        ]  # fmt: skip
        assert list(store.quarantined()) == [Unreadable(4, "looked odd")]
        assert store.next_number() == 600


def test_many_small_segments_are_joined(place: MemcachedPlace, services: list[Memcached]) -> None:
    with opened(place.url) as store:
        for n in range(1, 1201):
            store.commit(batch(job(n, b"w" * 100)))
        assert sum(len(keys(service, place.namespace)) for service in services) < 2 * 400
        assert numbers(store) == list(range(1, 1201))
        assert store.read(1) == b"w" * 100


def test_many_starts_leave_no_long_list(place: MemcachedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geartrain.store.memcached.store.MOST_SESSIONS", 10)
    for n in range(1, 31):
        store = engine(place.url)
        assert isinstance(store, MemcachedStore)
        store.open()
        store.commit(batch(job(n)))
        sessions = len(store._cluster.manifest.sessions)
        die(store)
    assert sessions <= 11
    with opened(place.url) as store:
        assert numbers(store) == list(range(1, 31))


def _expect(act: Callable[[], None], errors: list[BaseException]) -> None:
    try:
        act()
    except BaseException as error:
        errors.append(error)
