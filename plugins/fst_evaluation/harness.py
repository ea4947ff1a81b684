"""The evaluator `lm-eval`: tasks of EleutherAI's Language Model Evaluation Harness."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from typing import TYPE_CHECKING, Any, Final

from fst_core import Evaluator
from fst_core.errors import FstError, MissingDependency, UserError, one_line
from fst_evaluation.device import device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fst_core.artefacts import LoadedModel
    from fst_core.dataset import Dataset
    from fst_evaluation.settings import HarnessSettings

__all__ = ["HarnessEvaluator"]

_NO_FILTER: Final = "none"


class HarnessEvaluator(Evaluator):
    """Runs tasks over a model (Gao et al., A framework for few-shot language model evaluation).

    Prompts are encoded as the model's own tokenizer encodes prompts everywhere. The dataset is not
    looked at; tasks bring their own, which the harness fetches unless they are here.

    Raises:
        MissingDependency: the package `lm-eval` is not installed.
        UserError: the device that the settings name is not here.
    """

    def __init__(self, settings: HarnessSettings) -> None:
        self.settings = settings
        self._device = device(settings.device)
        try:
            import lm_eval  # noqa: F401  # before training; its parts are imported when they are used
        except ImportError:
            raise MissingDependency(
                '[[evaluate]] use = "lm-eval" needs lm-eval. '
                "Install it: pip install 'full-stack-transformer[lm-eval]'"
            ) from None

    def evaluate(self, model: LoadedModel, dataset: Dataset) -> dict[str, float | None]:  # noqa: ARG002  # tasks bring their own
        """Return `<task>/<metric>` for each task and metric, `<task>/<metric>,<filter>` where it is filtered.

        Raises:
            UserError: a task is unknown.
            FstError: a task failed, as where its data cannot be fetched.
        """
        with _quiet():
            from lm_eval import simple_evaluate

            from fst_evaluation.harness_model import HarnessModel

            manager = self._manager()
            try:
                found = simple_evaluate(
                    model=HarnessModel(model, self.settings.batch_size, self._device),
                    tasks=list(self.settings.tasks),
                    num_fewshot=self.settings.num_fewshot,
                    limit=self.settings.limit,
                    task_manager=manager,
                    bootstrap_iters=0,
                    log_samples=False,
                )
            except Exception as error:  # each task fails in its own way
                raise FstError(f"[[evaluate]] lm-eval: {one_line(error)}") from error
        return dict(_figures(found["results"]))

    def _manager(self) -> Any:
        """Return what knows all tasks; those of the harness are listed only where they are needed."""
        from lm_eval.tasks import TaskManager

        path = None if self.settings.include_path is None else str(self.settings.include_path)
        tasks = self.settings.tasks
        if path is not None:
            own = TaskManager(include_path=path, include_defaults=False)
            if all(own.match_tasks([task]) for task in tasks):
                return own
        manager = TaskManager(include_path=path)
        if unknown := [task for task in tasks if not manager.match_tasks([task])]:
            raise UserError(
                f"[[evaluate]] tasks: '{unknown[0]}' is unknown. `lm-eval ls tasks` lists those of "
                "the harness; include_path names a folder of yours."
            )
        return manager


def _figures(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float | None]]:
    for task, measured in results.items():
        for key, value in measured.items():
            name, _, filtered = key.partition(",")
            if name.endswith("_stderr") or not filtered or isinstance(value, str | bool):
                continue  # names and counts
            known = isinstance(value, int | float) and math.isfinite(value)
            shown = name if filtered == _NO_FILTER else key
            yield f"{task}/{shown}", float(value) if known else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness from writing advice and bars to the terminal; errors are raised as ever."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()):
                yield
    finally:
        logging.disable(disabled)
