"""The contract of executors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

import pytest

from fst_core.testing.component import ComponentContract

if TYPE_CHECKING:
    from fst_core import Executor

__all__ = ["ExecutorContract"]


class ExecutorContract(ComponentContract):
    """What every executor does. A subclass names it.

        class TestThreads(ExecutorContract):
            use = "threads"

    It asserts that results come in the order of the items, however long each takes; that every
    item is worked on once; that an error is raised in its item's place, after the results before
    it; and that an executor can be used again, after an error too.
    """

    kind: ClassVar[str] = "executor"

    @pytest.fixture
    def executor(self) -> Executor:
        """The executor."""
        executor: Executor = self.build()
        return executor

    def test_results_come_in_the_order_of_the_items(self, executor: Executor) -> None:
        """The first items take longest, and are first all the same."""
        items = [0.2, 0.1, 0.05, 0.0, 0.0, 0.1, 0.0]
        assert list(executor.map(_wait, items)) == items

    def test_every_item_of_an_iterator_is_worked_on_once(self, executor: Executor) -> None:
        """Many items, which come one by one and only once."""
        assert list(executor.map(_double, iter(range(300)))) == [2 * i for i in range(300)]

    def test_no_items_give_no_results(self, executor: Executor) -> None:
        """An empty work list is no error."""
        assert list(executor.map(_double, ())) == []

    def test_an_error_is_raised_in_its_place(self, executor: Executor) -> None:
        """What precedes the faulty item is given first; its own error, of its own kind, follows."""
        results = executor.map(_divide, [1, 2, 0, 4])
        assert [next(results), next(results)] == [12.0, 6.0]
        with pytest.raises(ZeroDivisionError):
            next(results)

    def test_it_can_be_used_again(self, executor: Executor) -> None:
        """Neither a use, nor an error, nor results that nobody took stand in the next one's way."""
        with pytest.raises(ZeroDivisionError):
            list(executor.map(_divide, [0]))
        next(executor.map(_double, [1, 2, 3]))
        assert list(executor.map(_divide, [1, 2])) == [12.0, 6.0]


# Of a module, so that an executor can send them to another process.


def _wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def _double(number: int) -> int:
    return 2 * number


def _divide(number: int) -> float:
    return 12 / number
