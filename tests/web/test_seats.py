"""Which functions have metrics of their own, and that no counter ever goes back but of a function that came anew."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from geartrain.jobserver import JobServer, snapshot
from geartrain.web.seats import Numbers, Seats, numbers

NAMES = [b"a", b"b", b"c", b"d", b"e", b"f"]
LIMIT = 2
Told = dict[bytes, tuple[int, Numbers]]


def normal(rows: list[Numbers | None]) -> Numbers:
    """The numbers of normal jobs, which each function has."""
    assert rows[1] is not None
    return rows[1]


class Scrapes:
    """A job server whose functions are told, again and again."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.server = JobServer()
        self.seats = Seats(limit)
        self.others = 0.0
        self.told: dict[bytes, tuple[int, float]] = {}  # at the last scrape: the place and the submitted jobs
        self.gone = 0.0  # what was told last of those that are told no more

    def submit(self, name: bytes, jobs: int) -> None:
        """Count jobs, as the rules do."""
        self.server.create_function(name).counters.submitted += jobs

    def forget(self, name: bytes) -> None:
        function = self.server.functions.get(name)
        if function is not None:
            self.server.forget_function(function)

    def scrape(self) -> None:
        """Tell all, and see that nothing is lost, doubled or taken back."""
        server, seats = self.server, self.seats
        seats.begin(server.functions, server.forgotten, int(server.function_roll.last_place))
        all_fit = len(server.functions) <= seats.limit
        if not all_fit:
            for view in snapshot.functions(server):
                seats.look(view)
            seats.choose()
        told: dict[bytes, tuple[int, float]] = {}
        for view in snapshot.functions(server):
            rows = seats.take(view, all_fit)
            if rows is not None:
                told[view.name] = (view.place, normal(rows)[0])
        others = (seats.others()[1] or [0.0])[0]
        assert len(told) == min(len(server.functions), seats.limit)
        for name, (place, count) in self.told.items():
            if name in told and told[name][0] == place:
                assert told[name][1] >= count
            else:
                self.gone += count
        assert others >= self.others
        everything = server.forgotten[1].submitted + sum(f.counters.submitted for f in server.functions.values())
        assert others + self.gone + sum(count for _, count in told.values()) == everything
        self.told, self.others = told, others


def test_those_with_the_most_traffic_have_seats() -> None:
    scrapes = Scrapes()
    for jobs, name in enumerate(NAMES):
        scrapes.submit(name, jobs)
    scrapes.scrape()
    assert set(scrapes.told) == {b"e", b"f"}
    assert scrapes.others == 0 + 1 + 2 + 3


def test_a_seat_is_kept_till_another_has_more_than_twice_the_traffic() -> None:
    scrapes = Scrapes()
    for name in NAMES:
        scrapes.submit(name, 100)
    scrapes.scrape()
    (first, second) = sorted(scrapes.told)
    rest = [name for name in NAMES if name not in (first, second)]
    scrapes.submit(first, 900)
    scrapes.submit(rest[0], 100)
    scrapes.scrape()
    assert sorted(scrapes.told) == [first, second]
    scrapes.submit(rest[0], 1)
    scrapes.scrape()
    assert sorted(scrapes.told) == sorted([first, rest[0]])
    assert scrapes.told[rest[0]][1] == 0  # what was before stays with the others
    scrapes.submit(rest[0], 7)
    scrapes.scrape()
    assert scrapes.told[rest[0]][1] == 7


def test_a_seat_that_is_free_goes_to_the_busiest_of_the_others() -> None:
    scrapes = Scrapes()
    for jobs, name in enumerate(NAMES):
        scrapes.submit(name, jobs)
    scrapes.scrape()
    scrapes.forget(b"f")
    scrapes.scrape()
    assert set(scrapes.told) == {b"d", b"e"}


def test_a_function_that_comes_again_begins_anew() -> None:
    scrapes = Scrapes()
    scrapes.submit(b"a", 5)
    scrapes.scrape()
    scrapes.submit(b"a", 5)  # that nobody has been told of
    scrapes.forget(b"a")
    scrapes.submit(b"a", 1)
    scrapes.scrape()
    assert scrapes.told[b"a"][1] == 1
    assert scrapes.others == 5


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(NAMES), st.integers(0, 20)),
        st.tuples(st.just("forget"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("scrape"), st.just(b""), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=300)
def test_nothing_is_lost_doubled_or_taken_back(steps: list[tuple[str, bytes, int]]) -> None:
    scrapes = Scrapes()
    for what, name, jobs in steps:
        if what == "submit":
            scrapes.submit(name, jobs)
        elif what == "forget":
            scrapes.forget(name)
        else:
            scrapes.scrape()
    scrapes.scrape()


def test_all_numbers_are_there() -> None:
    scrapes = Scrapes()
    counters = scrapes.server.create_function(b"f").counters
    counters.submitted, counters.bytes_out = 3, 7
    counters.total.add(2.0)
    row = numbers(counters)
    assert row[0] == 3
    assert 7 in row
    assert row[-1] == 2.0
