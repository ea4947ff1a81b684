"""A run: one attempt at a pipeline, the directory that keeps it, and who watches it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fst_core.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Run"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """What a stage needs to know about the run that it is part of."""

    name: str
    directory: Path
    """`<run.root>/<name>/<n>`; a trainer keeps checkpoints/ and tensorboard/ here."""
    seed: int

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell observers the figures of an optimizer step."""
        self.tell("fst_metrics", step=step, metrics=metrics)

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call every observer of a hook; the error of one is logged, and the run goes on."""
        arguments["run"] = self
        for observer in getattr(registry().hooks.hook, hook).get_hookimpls():
            registry().trace(hook, observer.plugin_name, arguments)
            try:
                observer.function(*(arguments[name] for name in observer.argnames))
            except Exception:  # noqa: BLE001  # whatever a watching plugin does
                _log.exception(
                    "plugin '%s' failed in %s; the run goes on", observer.plugin_name, hook
                )
