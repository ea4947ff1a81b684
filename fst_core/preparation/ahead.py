"""Work that goes on in a thread of its own."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, Queue
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["ahead", "meanwhile"]

_Item = TypeVar("_Item")
_END: Final = object()


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


def ahead(items: Iterator[_Item], depth: int) -> Generator[_Item]:
    """Yield items that a thread takes from an iterator, at most `depth` of them ahead.

    What the iterator raises is raised here. When this generator is closed, so is the iterator, and
    the thread has ended.
    """
    queue: Queue[object] = Queue(depth)
    stopping = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            for item in items:
                queue.put(item)
                if stopping.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  # it is raised where the items are used
            raised.append(error)
        finally:
            _close(items)
            queue.put(_END)

    thread = threading.Thread(target=copy_context().run, args=(run,), daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not _END:
            yield item  # type: ignore[misc]  # the queue holds items and their end
        if raised:
            raise raised[0]
    finally:
        stopping.set()
        while thread.is_alive():
            with suppress(Empty):
                queue.get_nowait()  # a full queue would keep the thread from ending
            thread.join(0.01)


def _close(items: Iterator[object]) -> None:
    close = getattr(items, "close", None)  # generators have it, other iterators need none
    if close is not None:
        close()
