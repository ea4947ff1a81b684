"""Grammars: schemas and regular expressions, compiled for one tokenizer within bounds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Final

from llguidance import LLMatcher, LLTokenizer, regex_to_lark

from fst_constraints.trial import MEMORY, SECONDS, compiled
from fst_constraints.vocabulary import open_vocabulary
from fst_core.errors import UserError

if TYPE_CHECKING:
    from fst_core import Tokenizer

    Source = tuple[str, str]
    """The field that constrains a text, and its value."""

__all__ = ["Grammars", "reason"]

_KEPT: Final = 256 * 2**20
"""Bytes of compiled grammars that are kept: those of requests that run, and of others like them."""
_LEAST: Final = 2**18
"""Bytes that a grammar counts for, however small it is."""
_SECONDS: Final = 8.0
"""How long a trial may take on a busy machine; of a processor's time it has less."""
_HEAD: Final = '%llguidance {"no_forcing": true}\nstart: '
"""Every id that fits is allowed; with forcing it is that of the tokenizer's own way to write it."""
_SPACE: Final = r"\n[ ]{0,32}|[ ]"
"""The white space in JSON, where any is allowed: with more, a model may never come to an end."""


class Grammars:
    """Compiles grammars, and keeps the latest; several threads may ask."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tokenizer: Tokenizer | None = None
        self._vocabulary: LLTokenizer | None = None
        self._compiled: OrderedDict[Source, tuple[LLMatcher, int]] = OrderedDict()
        """With the bytes that each takes."""

    def vocabulary(self, tokenizer: Tokenizer) -> LLTokenizer:
        """Return a tokenizer's vocabulary, which is read once."""
        with self._lock:
            if self._vocabulary is None or self._tokenizer is not tokenizer:
                self._vocabulary = open_vocabulary(tokenizer)
                self._tokenizer = tokenizer
                self._compiled.clear()
            return self._vocabulary

    def matcher(self, source: Source, tokenizer: Tokenizer) -> LLMatcher:
        """Return a matcher of a grammar that has read nothing yet.

        Raises:
            UserError: the grammar is wrong, too large, or allows nothing; the message begins with
                the field's name.
        """
        vocabulary = self.vocabulary(tokenizer)
        with self._lock:
            found = self._compiled.get(source)
            if found is not None:
                self._compiled.move_to_end(source)
                return found[0].deep_copy()
        grammar = _grammar(source)
        size = _tried(source[0], grammar)
        made, error = compiled(vocabulary, grammar)
        if error:
            raise UserError(f"{source[0]}: {reason(error)}")
        with self._lock:
            if self._vocabulary is vocabulary:
                self._compiled[source] = made, max(size, _LEAST)
                while sum(size for _, size in self._compiled.values()) > _KEPT:
                    self._compiled.popitem(last=False)
        return made.deep_copy()


def reason(error: str) -> str:
    """Return what llguidance means by an error, without its places and its own state."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    words = next((line for line in lines if line.startswith("error: ")), lines[0])
    words = re.sub(r"^(error: |at \d+\(\d+\): )", "", words)
    return words.removeprefix("failed to compile JSON schema: ")[:200]


def _grammar(source: Source) -> str:
    """Return what llguidance compiles."""
    field, text = source
    if field == "regex":
        return f"{_HEAD}/{regex_to_lark(text, '')}/"
    schema = json.loads(text)
    options = schema.get("x-guidance", {})
    if isinstance(options, dict):
        schema["x-guidance"] = {"whitespace_pattern": _SPACE, **options}
    return f"{_HEAD}%json {json.dumps(schema)}"


def _tried(field: str, grammar: str) -> int:
    """Return how many bytes a grammar takes, tried out in a process of its own.

    Raises:
        UserError: it is wrong, or takes too much of anything.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fst_constraints.trial"],
            input=grammar.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        raise UserError(
            f"{field}: to compile it takes more than {SECONDS} s, or {MEMORY >> 20} MiB of memory"
        ) from None
    told = json.loads(done.stdout)
    if told["error"]:
        raise UserError(f"{field}: {reason(told['error'])}")
    return int(told["bytes"])
