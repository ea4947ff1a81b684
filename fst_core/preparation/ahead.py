"""Work that goes on in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["ahead", "meanwhile"]

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def ahead(
    make: Callable[[_Item], Iterable[_Made]], items: Iterable[_Item], depth: int
) -> Generator[_Made]:
    """Yield what a thread makes of items, in their order, while the next items are taken.

    At most `depth` items are ahead of what is yielded. What the thread raises is raised here. When
    this generator is closed, the thread has ended.
    """
    thread = ThreadPoolExecutor(1)
    waiting: deque[Future[Iterable[_Made]]] = deque()
    try:
        for item in items:
            waiting.append(thread.submit(copy_context().run, make, item))
            while len(waiting) > depth or (waiting and waiting[0].done()):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def meanwhile(find: Callable[[], _Item]) -> Future[_Item]:
    """Let a thread find a value while other work goes on; when the process ends, so does the thread."""
    found: Future[_Item] = Future()

    def run() -> None:
        try:
            found.set_result(find())
        except BaseException as error:  # noqa: BLE001  # it is raised where the value is asked for
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return found
