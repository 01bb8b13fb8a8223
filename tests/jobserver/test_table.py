"""All jobs by number, on shelves that come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geartrain.jobserver.model import NORMAL, Function, Job
from geartrain.jobserver.table import SHELF, JobTable

FUNCTION = Function(b"f")


def job(number: int) -> Job:
    return Job(number, FUNCTION, b"", b"", NORMAL, True, 0.0)


@given(st.lists(st.integers(0, 5 * SHELF), unique=True), st.data())
def test_it_is_a_dict_of_jobs_by_number(numbers: list[int], data: st.DataObject) -> None:
    table = JobTable()
    expected: dict[int, Job] = {}
    for number in numbers:
        expected[number] = job(number)
        table.add(expected[number])
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(expected)))
            del expected[gone]
            table.remove(gone)
        for asked in (number, number - 1, number + 1, number + SHELF, -1):
            assert table.get(asked) is expected.get(asked)
    assert len(table) == len(expected)
    assert sorted(job.number for job in table) == sorted(expected)
    for number in list(expected):
        table.remove(number)
    assert len(table) == 0
    assert not table.shelves, "shelves go with their last job"


def test_jobs_come_in_the_order_of_their_numbers_even_while_they_go() -> None:
    table = JobTable()
    for number in range(1, 4 * SHELF):
        table.add(job(number))
    seen = []
    for each in table:
        seen.append(each.number)
        if each.number % 2:
            table.remove(each.number)
        if each.number == SHELF:
            for number in range(2 * SHELF, 3 * SHELF):
                table.remove(number)  # a shelf that has not been reached yet
    assert seen == [*range(1, 2 * SHELF), *range(3 * SHELF, 4 * SHELF)]


def test_numbers_may_be_very_large() -> None:
    table = JobTable()
    table.add(job(10**18))
    assert table.get(10**18) is not None
    assert table.get(10**18 + 1) is None


@given(
    st.lists(st.integers(0, 5 * SHELF), unique=True),
    st.lists(st.integers(0, 1000)),
    st.integers(-1, 5 * SHELF),
    st.integers(1, 3 * SHELF),
)
def test_pages_are_all_jobs_behind_a_number_in_order(
    numbers: list[int], gone: list[int], behind: int, count: int
) -> None:
    table = JobTable()
    for number in numbers:
        table.add(job(number))
    for at in gone:
        if numbers:
            table.remove(numbers.pop(at % len(numbers)))
    found: list[int] = []
    until = behind
    pages = 0
    while until >= 0 or pages == 0:
        page, after = table.page(until, count)
        assert len(page) <= count
        assert after == -1 or after > until, "it goes on"
        found += [each.number for each in page]
        until = after
        pages += 1
        assert pages <= 6 * SHELF
    assert found == sorted(number for number in numbers if number > behind)


@given(
    st.lists(st.integers(0, 5 * SHELF), unique=True),
    st.lists(st.integers(0, 1000)),
    st.integers(0, 6 * SHELF),
    st.integers(1, 3 * SHELF),
)
def test_pages_back_are_all_jobs_before_a_number_the_last_first(
    numbers: list[int], gone: list[int], before: int, count: int
) -> None:
    table = JobTable()
    for number in numbers:
        table.add(job(number))
    for at in gone:
        if numbers:
            table.remove(numbers.pop(at % len(numbers)))
    found: list[int] = []
    until = before
    pages = 0
    while until >= 0 or pages == 0:
        page, after = table.page_back(until, count)
        assert len(page) <= count
        assert after < until, "it goes on"
        found += [each.number for each in page]
        until = after
        pages += 1
        assert pages <= 7 * SHELF
    assert found == sorted((number for number in numbers if number < before), reverse=True)


def test_a_page_looks_at_no_more_places_than_it_is_told() -> None:
    table = JobTable()
    for number in range(1, 1000):
        table.add(job(number * SHELF))  # each on a shelf of its own
    for number in range(1, 400):
        table.remove(number * SHELF)
    page, until = table.page(0, 10)
    assert (page, until) == ([], 11 * SHELF - 1), "ten shelves that are gone"
    page, until = table.page(500 * SHELF - 1, 10)
    assert ([each.number for each in page], until) == ([500 * SHELF], 500 * SHELF + 9)


def test_keys_of_shelves_are_not_hoarded() -> None:
    table = JobTable()
    for number in range(1, 1000 * SHELF, SHELF // 2):
        table.add(job(number))
        table.remove(number)
    assert len(table.keys) < 250
