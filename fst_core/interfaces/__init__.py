"""The interfaces of the nine kinds of components, one a module, in the order of the data's way.

A component is built from its validated settings alone, `Class(settings)`, or `Class()` if it has
none; what it works with (a tokenizer, a module, a dataset) is passed when it is called.
"""

from fst_core.interfaces.engine import Engine
from fst_core.interfaces.evaluator import Evaluator
from fst_core.interfaces.executor import Executor
from fst_core.interfaces.frontend import Frontend
from fst_core.interfaces.model import Model
from fst_core.interfaces.reader import Reader
from fst_core.interfaces.sampler import Rows, Sampler
from fst_core.interfaces.tokenizer import Tokenizer
from fst_core.interfaces.trainer import Trainer

__all__ = [
    "Engine",
    "Evaluator",
    "Executor",
    "Frontend",
    "Model",
    "Reader",
    "Rows",
    "Sampler",
    "Tokenizer",
    "Trainer",
]
