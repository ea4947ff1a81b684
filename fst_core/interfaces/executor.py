"""Executors run work in parallel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Executor"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(ABC):
    """Runs a function over items in parallel.

    An author writes a component (see `Tokenizer` for the two modules) whose class is, in short:

        class ThreadExecutor(Executor):
            def map(self, function, items):
                with ThreadPoolExecutor() as pool:
                    yield from pool.map(function, items)
    """

    @abstractmethod
    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` of each item, in the order of the items; an error is raised in its place."""
