"""The conformance kit: a class of tests for each kind of component, to subclass in a plugin's own tests.

    from fst_core.testing import TokenizerContract

    class TestMyRussian(TokenizerContract):
        use = "myrussian"

Each contract's docstring says what it asserts. The kit needs pytest, and torch only for the kinds
that work with a module; contracts are imported on first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fst_core.testing.component import ComponentContract as ComponentContract
    from fst_core.testing.engine import EngineContract as EngineContract
    from fst_core.testing.evaluator import EvaluatorContract as EvaluatorContract
    from fst_core.testing.executor import ExecutorContract as ExecutorContract
    from fst_core.testing.frontend import FrontendContract as FrontendContract
    from fst_core.testing.model import ModelContract as ModelContract
    from fst_core.testing.reader import ReaderContract as ReaderContract
    from fst_core.testing.sampler import SamplerContract as SamplerContract
    from fst_core.testing.tokenizer import TokenizerContract as TokenizerContract
    from fst_core.testing.trainer import TrainerContract as TrainerContract

_MODULES = {
    "ComponentContract": "component",
    "EngineContract": "engine",
    "EvaluatorContract": "evaluator",
    "ExecutorContract": "executor",
    "FrontendContract": "frontend",
    "ModelContract": "model",
    "ReaderContract": "reader",
    "SamplerContract": "sampler",
    "TokenizerContract": "tokenizer",
    "TrainerContract": "trainer",
}

__all__ = [*_MODULES]  # noqa: PLE0604  # one list of names, not two

# So that a failing assertion of the kit shows its values, as one in a test module does.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES.values()))


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
