"""The executor `ray`: the tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from fst_core import Executor
from fst_core.errors import FstError, UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fst_core.interfaces.executor import Item, Result
    from fst_ray.settings import RaySettings

__all__ = ["RayExecutor"]

_AHEAD = 4
"""Items a core that are handed in before their turn."""


class RayExecutor(Executor):
    """Runs items as Ray's tasks; a cluster that was started here ends with the last result.

    A task that is lost with its machine is run again. Workers need the same packages and, at the
    same paths, the same files.

    Raises:
        UserError: the cluster cannot be reached.
    """

    def __init__(self, settings: RaySettings) -> None:
        self.settings = settings

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` of each item in order; its own error is raised in its place."""
        ray = _imported()
        begun = not ray.is_initialized()
        if begun:
            self._begin(ray)
        try:
            task = ray.remote(num_cpus=self.settings.cpus)(_called)
            most = max(1, int(ray.cluster_resources().get("CPU", 1))) * _AHEAD
            waiting: deque[Any] = deque()
            for item in items:
                waiting.append(task.remote(function, item))
                if len(waiting) >= most:
                    yield _result(ray, waiting.popleft())
            while waiting:
                yield _result(ray, waiting.popleft())
        finally:
            if begun:
                ray.shutdown()

    def _begin(self, ray: Any) -> None:
        address = self.settings.address
        try:
            ray.init(
                address=address or "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                num_cpus=None if address else self.settings.workers or None,
            )
        except Exception as error:  # noqa: BLE001  # Ray raises many kinds
            raise UserError(f"[dataset.executor] ray: {address}: {one_line(error)}") from None


def _imported() -> Any:
    """Import Ray, which opens a socket to see what this machine can."""
    # It reads this when it is imported; what is done here is nobody else's business.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    return ray


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise FstError(f"ray: {one_line(error)}") from None


def _called(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)
