"""The streams of events of jobs: what is lost is said, nothing comes twice, and all is bounded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")

from geartrain.jobserver import JobServer, Origin, Settings
from geartrain.web import events as module
from geartrain.web.events import EVENT_COST, GAP, KEPT, MAX_EVENTS, MAX_SIZE, STREAM_COST, Events, Told, TooManyError
from geartrain.wire import packets as p
from geartrain.wire.packets import pack_request


class Work:
    """A job server with a client and a worker, and the events of its jobs."""

    def __init__(self) -> None:
        settings = Settings()
        settings.handle_prefix = b"H"
        self.server = JobServer(settings)
        self.now = 1000.0
        self.pass_time(0)
        self.client, self.worker = (self.server.connect(Origin("127.0.0.1", place)) for place in (1, 2))
        self.server.receive(self.worker, pack_request(p.CAN_DO, b"f"))
        self.events = Events(self.server, lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.server.tick(self.now, 1_800_000_000 + self.now)

    def say(self, line: bytes) -> None:
        self.server.receive(self.server.connect(Origin("127.0.0.1", 3)), line)

    def submit(self) -> int:
        number = int(self.server.next_number)
        self.server.receive(self.client, pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"w"))
        return number

    def begin(self) -> None:
        self.server.receive(self.worker, pack_request(p.GRAB_JOB))

    def report(self, type: int, number: int, *arguments: bytes) -> None:
        self.server.receive(self.worker, pack_request(type, b"H:%d" % number, *arguments))
        for peer in (self.client, self.worker):
            peer.take()

    def read(self, number: int, last: str = "") -> list[Told]:
        """All that a reader is given now."""
        reader = self.events.open(number, last)
        assert reader is not None
        told = list(iter_told(reader))
        reader.close()
        return told


def iter_told(reader: module.Reader) -> Iterator[Told]:
    while (told := reader.take(list)) is not None:
        yield from told


def shown(told: list[Told]) -> list[tuple[bytes, bytes]]:
    return [(one.event, one.data) for one in told]


@pytest.fixture
def work() -> Work:
    return Work()


def test_who_connects_later_has_missed_nothing(work: Work) -> None:
    number = work.submit()
    assert work.events.follow(number)
    work.begin()
    work.report(p.WORK_DATA, number, b"token")
    work.report(p.WORK_COMPLETE, number, b"all")
    told = work.read(number)
    assert shown(told) == [(b"assigned", b"1"), (b"data", b"token"), (b"completed", b"all")]
    assert [one.id.partition("-")[2] for one in told] == ["1", "2", "3-end"]


def test_who_follows_a_running_job_is_told_where_it_stands(work: Work) -> None:
    number = work.submit()
    work.begin()
    assert shown(work.read(number)) == [(b"assigned", b"1")]
    other = work.submit()
    work.begin()
    work.report(p.WORK_STATUS, other, b"1", b"2")
    assert shown(work.read(other)) == [(b"assigned", b"1"), (b"status", b"1/2")]


def test_a_reader_comes_back_at_any_place_and_any_time(work: Work) -> None:
    number = work.submit()
    work.events.follow(number)
    work.begin()
    for n in range(500):
        work.report(p.WORK_DATA, number, b"%d" % n)
    work.report(p.WORK_COMPLETE, number, b"all")
    everything = work.read(number)
    assert len(everything) == 502
    for place in range(len(everything)):
        assert work.read(number, everything[place].id) == everything[place + 1 :]


def test_what_fell_out_is_told(work: Work) -> None:
    number = work.submit()
    work.events.follow(number)
    work.begin()
    for n in range(MAX_EVENTS + 99):
        work.report(p.WORK_DATA, number, b"%d" % n)
    gap, *rest = work.read(number)
    assert (gap.event, gap.size) == (GAP, 100)
    assert [one.data for one in rest] == [b"%d" % n for n in range(99, MAX_EVENTS + 99)]
    assert work.read(number, gap.id) == rest
    mark = gap.id.partition("-")[0]
    assert work.read(number, f"{mark}-40")[0].size == 60
    assert work.read(number, f"{mark}-100") == rest
    assert work.read(number, f"{mark}-101") == rest[1:]


def test_a_slow_reader_falls_out_by_itself(work: Work) -> None:
    number = work.submit()
    work.begin()
    slow, fast = work.events.open(number), work.events.open(number)
    assert slow is not None
    assert fast is not None
    seen: list[Told] = []
    for n in range(5000):
        work.report(p.WORK_DATA, number, b"x" * 500)
        if n % 100 == 0:
            seen += iter_told(fast)
    seen += iter_told(fast)
    assert [one.event for one in seen].count(b"data") == 5000
    assert not [one for one in seen if one.event == GAP]
    (gap, *rest) = iter_told(slow)
    assert gap.size + len(rest) == 5001
    assert work.events.size <= MAX_SIZE


def test_data_that_is_too_large_to_be_kept_is_left_out_and_its_size_is_told(work: Work) -> None:
    number = work.submit()
    work.events.follow(number)
    work.begin()
    largest = MAX_SIZE - EVENT_COST - STREAM_COST
    work.report(p.WORK_DATA, number, b"x" * largest)
    assert shown(work.read(number)[-1:]) == [(b"data", b"x" * largest)]
    work.report(p.WORK_COMPLETE, number, b"x" * (largest + 1))
    (told,) = work.read(number)[-1:]
    assert (told.event, told.data, told.size) == (b"completed", b"", largest + 1)


def test_a_job_that_has_ended_is_there_for_a_while(work: Work) -> None:
    number = work.submit()
    work.events.follow(number)
    work.begin()
    work.report(p.WORK_COMPLETE, number, b"r")
    last = work.read(number)[-1].id
    work.pass_time(KEPT - 1)
    work.events.tidy()
    assert len(work.read(number)) == 2
    reader = work.events.open(number, last)
    assert reader is not None
    assert reader.is_over
    reader.close()
    work.pass_time(1)
    work.events.tidy()
    assert work.events.open(number) is None
    assert work.events.open(number, last.removesuffix("-end")) is None
    reader = work.events.open(number, last)  # it has seen the end
    assert reader is not None
    assert reader.is_over
    reader.close()
    assert (work.events.size, work.events.readers, int(work.server.watches)) == (0, 0, 0)


def test_a_reader_keeps_what_it_reads(work: Work) -> None:
    number = work.submit()
    reader = work.events.open(number)
    assert reader is not None
    work.begin()
    work.report(p.WORK_COMPLETE, number, b"r")
    work.pass_time(KEPT)
    work.events.tidy()
    assert len(list(iter_told(reader))) == 2
    assert reader.is_over
    reader.close()
    reader.close()
    work.pass_time(KEPT)
    work.events.tidy()
    assert (work.events.size, work.events.readers) == (0, 0)


def test_a_result_that_is_kept_is_the_end_of_a_job_that_nobody_followed(work: Work) -> None:
    work.say(b"policy set f results=1h attempts=1\n")
    for type, text, event in ((p.WORK_COMPLETE, b"r", b"completed"), (p.WORK_EXCEPTION, b"oops", b"dead")):
        number = work.submit()
        work.begin()
        work.report(type, number, text)
        for _ in range(2):
            (told,) = work.read(number)
            assert (told.event, told.data) == (event, text)
            assert work.read(number, told.id) == []
        gap, again = work.read(number, "0badcafe-7")
        assert (gap.event, gap.size) == (GAP, -1)
        assert again.event == event
    assert (work.events.size, work.events.readers) == (0, 0)


def test_a_dead_letter_that_is_tried_again_has_another_stream(work: Work) -> None:
    work.say(b"policy set f attempts=1\n")
    number = work.submit()
    work.events.follow(number)
    work.begin()
    work.report(p.WORK_EXCEPTION, number, b"oops")
    first = work.read(number)
    assert shown(first) == [(b"assigned", b"1"), (b"dead", b"oops")]
    work.say(b"dead retry H:%d\n" % number)
    work.begin()
    assert shown(work.read(number, first[1].id)) == [(b"assigned", b"1")]
    work.report(p.WORK_COMPLETE, number, b"r")
    gap, *rest = work.read(number, first[0].id)  # it has not seen how the first life ended
    assert (gap.event, gap.size) == (GAP, -1)
    assert shown(rest) == [(b"assigned", b"1"), (b"completed", b"r")]


def test_an_id_of_another_server_is_a_gap(work: Work) -> None:
    number = work.submit()
    work.begin()
    for last in ("0badcafe-1", "0badcafe-99999999999999999999999", "nonsense", "1", "-", "٣-٣"):
        gap, *rest = work.read(number, last)
        assert (gap.event, gap.size) == (GAP, -1)
        assert shown(rest) == [(b"assigned", b"1")]
        assert work.read(number, gap.id) == rest


def test_streams_nobody_reads_make_room_the_longest_quiet_first(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOTAL", 500_000)
    numbers = [work.submit() for _ in range(20)]
    for number in numbers:
        work.events.follow(number)
        work.begin()
        work.report(p.WORK_DATA, number, b"x" * 90_000)
        assert work.events.size <= 500_000
    assert work.server.watches == 5
    assert [len(work.read(number)) for number in numbers[-5:]] == [2] * 5
    gap, begun = work.read(numbers[0], "0badcafe-2")  # its reader was away, and nobody else reads it
    assert (gap.event, gap.size, begun.event) == (GAP, -1, b"assigned")


def test_what_is_read_is_bounded_too(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOTAL", 500_000)
    numbers = [work.submit() for _ in range(20)]
    readers = {}
    for number in numbers:
        readers[number] = work.events.open(number)
        work.begin()
        for _ in range(9):
            work.report(p.WORK_DATA, number, b"x" * 10_000)
            assert work.events.size <= 500_000
    told = {number: list(iter_told(reader)) for number, reader in readers.items() if reader is not None}
    missed = [sum(one.size for one in told[number] if one.event == GAP) for number in numbers]
    kept = [sum(one.event != GAP for one in told[number]) for number in numbers]
    assert [one + other for one, other in zip(missed, kept, strict=True)] == [10] * 20
    assert kept == sorted(kept)
    assert sum(kept) >= 40


def test_streams_are_bounded_in_number(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 3)
    numbers = [work.submit() for _ in range(5)]
    assert all(work.events.follow(number) for number in numbers)
    assert list(work.server.watchers) == numbers[2:]


def test_readers_are_bounded(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READERS", 3)
    number = work.submit()
    readers = [work.events.open(number) for _ in range(3)]
    with pytest.raises(TooManyError):
        work.events.open(number)
    assert readers[0] is not None
    readers[0].close()
    assert work.events.open(number) is not None


def test_a_job_that_can_not_be_watched(work: Work) -> None:
    work.server.max_memory = 1
    number = int(work.server.next_number)
    assert work.events.open(number) is None
    work.server.max_memory = 0
    work.submit()
    work.server.max_memory = 1
    assert not work.events.follow(number)
    with pytest.raises(TooManyError):
        work.events.open(number)


def test_random_readers_miss_nothing_and_get_nothing_twice(work: Work) -> None:
    """Readers that break off anywhere; the gaps say exactly how much each has not got."""
    chance = random.Random(10)
    for _ in range(30):
        number = work.submit()
        work.events.follow(number)
        work.begin()
        lasts = [""] * 5
        counts = [0] * 5
        sent = 1
        while True:
            for _ in range(chance.choice((0, 1, 10, 400))):
                work.report(p.WORK_DATA, number, b"%d" % sent)
                sent += 1
            is_last = chance.random() < 0.1
            if is_last:
                work.report(p.WORK_COMPLETE, number, b"%d" % sent)
                sent += 1
            for who in range(5):
                if not is_last and chance.random() < 0.5:
                    continue
                told = work.read(number, lasts[who])
                if not is_last:
                    told = told[: chance.randrange(len(told) + 1)]
                for one in told:
                    if one.event == GAP:
                        counts[who] += one.size
                    elif one.event != b"assigned":
                        assert one.data == b"%d" % counts[who]
                        counts[who] += 1
                    else:
                        counts[who] += 1
                    lasts[who] = one.id
            if is_last:
                assert counts == [sent] * 5
                break


def test_whoever_waits_hears_of_news_at_once(work: Work) -> None:
    async def act() -> None:
        number = work.submit()
        reader, other = work.events.open(number), work.events.open(number)
        assert reader is not None
        assert other is not None
        assert not await reader.wait(0.01)
        waiting = [asyncio.create_task(one.wait(100)) for one in (reader, other)]
        gone = asyncio.create_task(other.wait(100))
        await asyncio.sleep(0)
        gone.cancel()  # its connection is gone; the others wait on
        await asyncio.sleep(0)
        work.begin()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await reader.wait(100)
        assert shown(list(iter_told(reader))) == [(b"assigned", b"1")]
        last = asyncio.create_task(reader.wait(100))
        await asyncio.sleep(0)
        work.events.start()
        work.events.stop()
        assert await last
        assert reader.is_over

    asyncio.run(act())


def test_readers_at_the_same_place_share_what_is_written(work: Work) -> None:
    number = work.submit()
    readers = [work.events.open(number) for _ in range(3)]
    for _ in range(3):
        work.begin()
        work.report(p.WORK_DATA, number, b"x")
        given = [reader.take(list) for reader in readers if reader is not None]
        assert given[0]
        assert given[0] is given[1] is given[2]
    again = work.events.open(number)
    assert again is not None
    everything = again.take(list)
    assert everything is not None
    assert [one.event for one in everything] == [b"assigned", b"data", b"data", b"data"]


def test_a_busy_job_wakes_its_readers_at_once_and_then_seldom(work: Work) -> None:
    async def act() -> None:
        number = work.submit()
        work.begin()
        reader = work.events.open(number)
        assert reader is not None
        assert reader.take(list)
        wakes = sent = 0
        loop = asyncio.get_running_loop()
        begin = loop.time()
        until = begin + 5 * module.PAUSE
        while loop.time() < until:
            waiting = asyncio.create_task(reader.wait(100))
            await asyncio.sleep(0)  # until it waits
            while not waiting.done():
                work.report(p.WORK_DATA, number, b"%d" % sent)
                sent += 1
                await asyncio.sleep(0)
            wakes += 1
            assert list(iter_told(reader))
        assert wakes <= (loop.time() - begin) / module.PAUSE + 2
        assert sent > wakes

    asyncio.run(act())
