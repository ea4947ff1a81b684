"""The executor `local`: processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from fst_core import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fst_core.interfaces.executor import Item, Result
    from fst_executors.settings import LocalSettings

__all__ = ["LocalExecutor"]


class LocalExecutor(Executor):
    """Begins processes for the items, and ends them with the last result or the first error."""

    def __init__(self, settings: LocalSettings) -> None:
        self._workers = settings.workers or os.cpu_count() or 1

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` of each item in order; what cannot be pickled cannot be sent."""
        # Forked, a process would inherit locks that threads of this one hold.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._workers, mp_context=context)
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)
