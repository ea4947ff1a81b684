"""FST, the full stack transformer: from documents to a served language model, by plugins.

The public names are imported on first use (PEP 562), so that `import fst_core` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fst_core.components import Component as Component
    from fst_core.documents import Document as Document
    from fst_core.documents import Message as Message
    from fst_core.documents import Split as Split
    from fst_core.generation import Chunk as Chunk
    from fst_core.generation import Generation as Generation
    from fst_core.generation import Request as Request
    from fst_core.hookspecs import hookimpl as hookimpl
    from fst_core.interfaces import Engine as Engine
    from fst_core.interfaces import Evaluator as Evaluator
    from fst_core.interfaces import Executor as Executor
    from fst_core.interfaces import Frontend as Frontend
    from fst_core.interfaces import Model as Model
    from fst_core.interfaces import Reader as Reader
    from fst_core.interfaces import Rows as Rows
    from fst_core.interfaces import Sampler as Sampler
    from fst_core.interfaces import Tokenizer as Tokenizer
    from fst_core.interfaces import Trainer as Trainer
    from fst_core.pipeline.target import open_engine as open_engine
    from fst_core.settings import Settings as Settings

_MODULES = {
    "Chunk": "generation",
    "Component": "components",
    "Document": "documents",
    "Engine": "interfaces.engine",
    "Evaluator": "interfaces.evaluator",
    "Executor": "interfaces.executor",
    "Frontend": "interfaces.frontend",
    "Generation": "generation",
    "Message": "documents",
    "Model": "interfaces.model",
    "Reader": "interfaces.reader",
    "Request": "generation",
    "Rows": "interfaces.sampler",
    "Sampler": "interfaces.sampler",
    "Settings": "settings",
    "Split": "documents",
    "Tokenizer": "interfaces.tokenizer",
    "Trainer": "interfaces.trainer",
    "hookimpl": "hookspecs",
    "open_engine": "pipeline.target",
}

__all__ = [*_MODULES]  # noqa: PLE0604  # one list of names, not two


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fst_core' has no attribute {name!r}")
    value = getattr(import_module(f"fst_core.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
