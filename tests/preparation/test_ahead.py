"""Work in a thread of its own: in order, bounded, and ended with whoever uses it."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

import pytest

from fst_core.preparation.ahead import ahead, meanwhile


def test_items_come_in_order_and_from_another_thread():
    threads = set()

    def items():
        for number in range(100):
            threads.add(threading.current_thread())
            yield number

    assert list(ahead(items(), 3)) == list(range(100))
    assert threading.current_thread() not in threads


def test_it_is_never_further_ahead_than_it_may_be():
    made = 0

    def items():
        nonlocal made
        for _ in range(50):
            made += 1
            yield made

    for number in ahead(items(), 2):
        time.sleep(0.001)
        assert made <= number + 2 + 2  # those in the queue, the one that waits, the next being made


def test_an_error_is_raised_where_the_items_are_used():
    def items():
        yield 1
        raise ValueError("the reader is broken")

    used = []
    with pytest.raises(ValueError, match="the reader is broken"):
        used.extend(ahead(ahead(items(), 1), 1))
    assert used == [1]


def test_closing_ends_the_threads_and_closes_the_iterators():
    before = threading.active_count()
    closed = []

    def items(name):
        try:
            while True:
                yield name
        finally:
            closed.append(name)

    def through(inner):
        try:
            yield from inner
        finally:
            closed.append("outer")

    work = ahead(through(ahead(items("inner"), 1)), 1)
    assert next(work) == "inner"
    assert threading.active_count() == before + 2
    work.close()
    assert sorted(closed) == ["inner", "outer"]
    assert threading.active_count() == before


def test_the_thread_sees_the_context_of_whoever_begins_it():
    variable = ContextVar("variable", default=0)
    variable.set(1)
    assert list(ahead((variable.get() for _ in range(1)), 1)) == [1]


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
