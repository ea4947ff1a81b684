"""The process that tries a grammar out: it compiles it, and writes by it, within limits.

Most of what llguidance does has bounds of its own; some has none (a large `multipleOf`, patterns
that all have to hold), and a thread that does it can neither be ended nor kept from filling memory.
"""

from __future__ import annotations

import json
import mmap
import random
import sys
import time
from pathlib import Path
from typing import Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

__all__ = ["LIMITS", "MEMORY", "SECONDS", "compiled"]

MEMORY: Final = 64 * 2**20
"""Bytes that a grammar may take."""
SECONDS: Final = 1
"""Of a processor's time."""
LIMITS: Final = LLParserLimits(
    initial_lexer_fuel=300_000,
    step_lexer_fuel=100_000,
    step_max_items=25_000,
    max_lexer_states=20_000,
    max_grammar_size=50_000,
    verbose_errors=False,
)
"""With these no step of what was compiled took longer than some 20 ms."""
_STEPS: Final = 100
_ALL, _RESIDENT = 0, 1
"""Columns of /proc/self/statm."""


class _Bytes:
    """A vocabulary of single bytes: how a grammar compiles does not depend on it."""

    bos_token_id = None
    eos_token_id = 256
    special_token_ids = (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"")

    def __call__(self, text: bytes) -> list[int]:
        """Return the ids of a text."""
        return list(text)


def main() -> None:
    """Answer with an error, empty if there is none, and how many bytes the grammar takes."""
    grammar = sys.stdin.buffer.read().decode()
    vocabulary = LLTokenizer(TokenizerWrapper(_Bytes()))
    _limit()
    before = _bytes_used(_RESIDENT)
    matcher, error = compiled(vocabulary, grammar)
    _walk(matcher)
    sys.stdout.write(json.dumps({"error": error, "bytes": _bytes_used(_RESIDENT) - before}))


def compiled(vocabulary: LLTokenizer, grammar: str) -> tuple[LLMatcher, str]:
    """Return a matcher that has read nothing, and what is wrong with its grammar, if anything is."""
    matcher = LLMatcher(vocabulary, grammar, log_level=0, limits=LIMITS)
    first = matcher.deep_copy()
    allowed = first.compute_bitmask()
    error = first.get_error()
    if error.startswith("NoExtension") or not (error or any(allowed)):
        error = "there is no text that it allows"
    return matcher, error


def _walk(matcher: LLMatcher) -> None:
    """Write some text by chance: a grammar that holds up an engine's step would do so here."""
    dice = random.Random(228)  # noqa: S311  # for variety, not for secrets
    for _ in range(_STEPS):
        bits = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [byte for byte in range(256) if bits >> byte & 1]
        if not allowed or not matcher.consume_token(dice.choice(allowed)):
            return


def _limit() -> None:
    """Limit time and memory, where the system can."""
    try:
        import resource

        seconds = int(time.process_time()) + 1 + SECONDS  # whole ones alone can be said
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        size = _bytes_used(_ALL)
        if size:
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    except (ImportError, OSError, ValueError):  # not POSIX: there whoever asks limits the time
        return


def _bytes_used(column: int) -> int:
    """Return a size of this process; 0 where the system does not tell it."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[column])
    except OSError:
        return 0
    return pages * mmap.PAGESIZE


if __name__ == "__main__":
    main()
