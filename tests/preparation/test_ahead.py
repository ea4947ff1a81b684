"""Work in a thread of its own: in order, bounded, and ended with whoever uses it."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from fst_core.preparation.ahead import ahead, meanwhile


def test_what_is_made_comes_in_order_and_from_another_thread():
    threads = set()

    def make(number):
        threads.add(threading.current_thread())
        return [number, -number]

    expected = [made for number in range(100) for made in (number, -number)]
    assert list(ahead(make, range(100), 3)) == expected
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_items_are_taken_while_the_thread_is_at_work():
    taken = threading.Event()

    def items():
        yield 1
        taken.set()
        yield 2

    def make(number):
        assert taken.wait(60)
        return [number]

    assert list(ahead(make, items(), 1)) == [1, 2]


def test_it_is_never_further_ahead_than_it_may_be():
    taken = 0

    def items():
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield taken

    for number in ahead(lambda number: [number], items(), 2):
        assert taken <= number + 2


def test_what_is_made_lazily_is_made_where_it_is_used():
    def make(number):
        return (threading.current_thread() for _ in range(number))

    assert list(ahead(make, [2], 1)) == [threading.current_thread()] * 2


@pytest.mark.parametrize("broken", ["the reader", "the encoder"])
def test_an_error_is_raised_where_what_is_made_is_used(broken):
    def items():
        yield 1
        yield 2
        if broken == "the reader":
            raise ValueError("it is broken")
        yield 3

    def make(number):
        if number == 2 and broken == "the encoder":
            raise ValueError("it is broken")
        return [number]

    used = []
    with pytest.raises(ValueError, match="it is broken"):
        used.extend(ahead(make, items(), 1))
    assert used in ([1], [1, 2])


def test_closing_ends_the_thread():
    before = threading.active_count()
    work = ahead(lambda number: [number], range(1_000), 2)
    assert next(work) == 0
    assert threading.active_count() == before + 1
    work.close()
    assert threading.active_count() == before


def test_what_still_waits_for_the_thread_after_an_error_is_not_made():
    made, failed = [], threading.Event()

    def items():
        yield from range(5_000)
        failed.set()
        raise ValueError("the reader is broken")

    def make(number):
        made.append(number)
        assert failed.wait(60)
        return [number]

    with pytest.raises(ValueError, match="the reader is broken"):
        list(ahead(make, items(), 5_000))
    assert len(made) < 5_000


def test_the_thread_sees_the_context_of_whoever_uses_it():
    variable = ContextVar("variable", default=0)
    variable.set(1)
    assert list(ahead(lambda number: [number + variable.get()], [1], 1)) == [2]


def test_a_value_is_found_while_other_work_goes_on():
    going_on = threading.Event()

    def find():
        assert going_on.wait(60)
        return threading.current_thread()

    found = meanwhile(find)
    assert not found.done()
    going_on.set()
    assert found.result() is not threading.current_thread()


def test_an_error_is_raised_where_the_value_is_asked_for():
    def find():
        raise ValueError("nothing")

    found = meanwhile(find)
    with pytest.raises(ValueError, match="nothing"):
        found.result()
