"""The scheduler: which requests compute together, step by step."""

from __future__ import annotations

from collections import deque
from itertools import accumulate, chain, count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from fst_core.errors import FstError
from fst_engine.lookup import Lookup
from fst_engine.prefixes import LEAST_SHARED, Prefixes, shared_length
from fst_engine.row import Fault, Row, Token
from fst_engine.sampling import failure, logprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_core.generation import FinishReason
    from fst_engine.forward import Forward
    from fst_engine.sampling import Sampling

__all__ = ["Scheduler"]

PACE: Final = 8, 2
"""Of long prompts, about so many ids, and so many for each row that is written, take two steps' time."""
IDLE: Final = 2
"""While nobody waits for a next token, this many times as many ids of prompts are read in a step."""
WORTH_WAITING: Final = 64
"""For so many ids that another row is about to read as well, a row waits, and then copies them."""


class Portion(NamedTuple):
    """The ids of a row that a step computes."""

    row: Row
    begin: int
    end: int

    @property
    def ids(self) -> list[int]:
        """What the forward pass gets of it."""
        return self.row.ids[self.begin : self.end]

    @property
    def keep(self) -> int:
        """Of how many of its last ids the logits are computed."""
        return 1 if self.row.prompt_logprobs is None else self.end - self.begin


class Scheduler:
    """Runs rows in one batch, which they join and leave at every step; first come, first served.

    A step computes the last id of each row that is written, and some ids of prompts that are read,
    so few that the others never wait for long; those whose ids are all computed get their next. A row
    that runs alone may get several: ids that its text lets guess are computed along with the last one,
    and count as far as they are those that are drawn one after another (speculative decoding, Leviathan
    et al. 2023). When keys and values no longer fit into memory, the youngest rows go back to the head of
    the line, and are read again later: what a row generates does not depend on it. Not for several
    threads at once.
    """

    def __init__(
        self,
        forward: Forward,
        sampling: Sampling,
        *,
        max_running: int,
        prefill_chunk: int,
        cache_bytes: float,
        prefixes: Prefixes | None = None,
        lookup: int = 0,
    ) -> None:
        """With `prefixes`, ids that were read once are not read again, as long as the weights stay.

        With `lookup`, so many ids at most are guessed of a row that runs alone.
        """
        self.waiting: deque[Row] = deque()
        self.running: list[Row] = []
        """Those that are written or read; each lies in the slot of its number."""
        self.cache = forward.new_cache()
        self._forward = forward
        self._sampling = sampling
        self._max_running = max_running
        self._prefill_chunk = prefill_chunk
        self._cache_bytes = cache_bytes
        self._prefixes = prefixes if forward.supports_cache else None
        self._lookup = lookup if forward.supports_cache else 0
        self._tickets = count()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.running)

    def submit(self, row: Row) -> None:
        """Put a row at the end of the line."""
        row.ticket = next(self._tickets)
        self.waiting.append(row)

    def cancel(self, row: Row) -> None:
        """Forget a row, wherever it is."""
        if row in self.running:
            self._leave(row, keep=row.begun)
        elif row in self.waiting:
            self.waiting.remove(row)

    def step(self) -> list[Token | Fault]:
        """Do one step, and return what came of it, in the rows' order; of a row, a fault comes last."""
        self._make_room()
        portions = self._plan()
        outcomes = self._speculate() or self._compute(portions)
        outcomes.sort(key=lambda outcome: outcome.row.ticket)
        for outcome in outcomes:
            if _ended(outcome):  # of a fault, what the cache holds may be the reason
                self._leave(outcome.row, keep=not isinstance(outcome, Fault))
        return outcomes

    def _plan(self) -> list[Portion]:
        """Say what this step computes of each row, and let rows join as far as it reaches."""
        by_age = sorted(self.running, key=lambda row: row.ticket)
        written = [row for row in by_age if self._is_written(row)]
        portions = [self._portion(row) for row in written]
        reading = (row for row in by_age if not self._is_written(row))
        budget = self._prefill_chunk * (1 if written else IDLE)
        # A prompt that is read in many steps is read slowly while others wait for their next id.
        pace = PACE[0] + PACE[1] * len(written) if written else budget
        for row in chain(reading, iter(self._admit, None)):
            is_long = len(row.ids) > self._prefill_chunk
            portion = self._portion(row, min(budget, pace) if is_long else budget)
            if read := portion.end - portion.begin:
                portions.append(portion)
            budget -= read
            pace -= read if is_long else 0
            if budget <= 0:
                break
        return portions

    def _is_written(self, row: Row) -> bool:
        """Say whether all ids of a running row are computed but the last."""
        if not self._forward.supports_cache:
            return row.begun
        return len(row.ids) - self.cache.lengths[self.running.index(row)] == 1

    def _portion(self, row: Row, most: int | None = None) -> Portion:
        """Return what a step computes of a running row, which is about as many ids at most."""
        begin, end = self.cache.lengths[self.running.index(row)], len(row.ids)
        # No rest is left that is not worth a step.
        if most is None or not self._forward.supports_cache or end - begin <= most * 5 // 4:
            return Portion(row, begin, end)
        return Portion(row, begin, begin + max(0, most))

    def _admit(self) -> Row | None:
        """Let the row at the head of the line join, if there is room, with what is known of its beginning."""
        if not self.waiting or not self._has_room(self.waiting[0]):
            return None
        row = self.waiting[0]
        source, place, length = self._known(row)
        if self._prefixes is not None and row.prompt_logprobs is None:
            coming = (shared_length(other.ids, row.ids) for other in self.running)
            if max(coming, default=0) - length >= WORTH_WAITING:
                return None
        self.cache.add(source, place, length)
        self.running.append(self.waiting.popleft())
        return row

    def _known(self, row: Row) -> tuple[Any, int, int]:
        """Return which row of which cache, if any, holds most of the ids at a row's beginning, and how many."""
        if self._prefixes is None or row.prompt_logprobs is not None:
            return None, 0, 0
        found, length = self._prefixes.find(row.ids)
        place = 0
        for slot, other in enumerate(self.running):
            shared = shared_length(other.ids[: self.cache.lengths[slot]], row.ids)
            if shared > max(length, LEAST_SHARED - 1):
                found, length, place = self.cache, shared, slot
        return found, place, min(length, len(row.ids) - 1)  # one must be left to compute

    def _compute(self, portions: Sequence[Portion]) -> list[Token | Fault]:
        """Compute portions in one forward pass; if that fails, one by one, to tell the faulty ones apart."""
        if not portions:
            return []
        slots = [self.running.index(portion.row) for portion in portions]
        keep = [portion.keep for portion in portions]
        try:
            logits = self._forward([each.ids for each in portions], self.cache, slots, keep)
        except Exception as error:  # noqa: BLE001  # a stranger's module may raise anything
            if len(portions) == 1:
                return [Fault(portions[0].row, failure("the model failed", error))]
            return [outcome for portion in portions for outcome in self._compute([portion])]
        ends = list(accumulate(keep))
        for portion, n, end in zip(portions, keep, ends, strict=True):
            if portion.row.prompt_logprobs is not None:
                _score(portion, logits[end - n : end])
        drawn: list[tuple[Row, int]] = []
        done: list[Row] = []
        for (row, _, last), end in zip(portions, ends, strict=True):
            if last == row.max_length:
                done.append(row)
            elif last == len(row.ids):
                drawn.append((row, end - 1))
        if len(drawn) < len(logits):
            logits = logits[[place for _, place in drawn]]
        outcomes = self._choose([row for row, _ in drawn], logits)
        return outcomes + [Token(row, None, None, "length", row.take_scores()) for row in done]

    def _speculate(self) -> list[Token | Fault]:
        """Generate tokens for the only row, as far as they are those that its text lets guess.

        Nothing comes of it where there is no guess, or somebody waits, or the guess may be what makes
        the model fail: a number that is none goes through every mask, to earlier ids too.
        """
        if not self._lookup or len(self.running) != 1 or self.waiting:
            return []
        (row,) = self.running
        if not row.begun or not self._is_written(row):
            return []
        row.lookup = row.lookup or Lookup(self._lookup)
        guess = row.lookup.guess(row.ids, row.max_length - len(row.ids) - 1)
        if not guess:
            return []
        known = self.cache.lengths[0]
        try:
            logits = self._forward([[row.ids[-1], *guess]], self.cache, keep=[1 + len(guess)])
            failed = not torch.isfinite(logits.amax(dim=-1)).all()
        except Exception:  # noqa: BLE001  # the same without the guess tells whose fault it is
            failed = True
        if failed:
            self.cache.shorten(0, known)
            return []
        outcomes: list[Token | Fault] = []
        for right, expected in enumerate([*guess, None]):
            outcomes += self._choose([row], logits[right : right + 1])
            if _ended(outcomes[-1]) or row.ids[-1] != expected:
                break
        row.lookup.learn(right)
        self.cache.shorten(0, known + 1 + right)
        return outcomes

    def _has_room(self, row: Row) -> bool:
        """Say whether there is room for a row beside those that run."""
        if not self.running:
            return True
        needed = self.cache.bytes_for([len(each.ids) for each in (row, *self.running)])
        return len(self.running) < self._max_running and needed <= self._cache_bytes

    def _make_room(self) -> None:
        """Send the youngest rows back until the others fit; one is always served."""
        while len(self.running) > 1:
            if self.cache.bytes_for([len(row.ids) for row in self.running]) <= self._cache_bytes:
                return
            youngest = max(self.running, key=lambda row: row.ticket)
            self._leave(youngest, keep=youngest.begun)
            self.waiting.appendleft(youngest)

    def _choose(self, rows: Sequence[Row], logits: torch.Tensor) -> list[Token | Fault]:
        """Draw the next id of each row."""
        outcomes: list[Token | Fault] = []
        for row, drawn in zip(rows, self._sampling(logits, rows), strict=True):
            if isinstance(drawn, FstError):
                outcomes.append(Fault(row, drawn))
                continue
            chosen, logprob = drawn
            row.ids.append(chosen)
            reason: FinishReason | None = "length" if len(row.ids) >= row.max_length else None
            if chosen in row.ends:
                reason = "stop"
            outcomes.append(Token(row, chosen, logprob, reason, row.take_scores()))
        return outcomes

    def _leave(self, row: Row, *, keep: bool) -> None:
        """Take a row out of the batch; the last one takes its place, here as in the cache."""
        slot = self.running.index(row)
        if keep and self._prefixes is not None:
            self._prefixes.keep(row.ids, self.cache, slot)
        last = self.running.pop()
        if last is not row:
            self.running[slot] = last
        self.cache.remove(slot)


def _score(portion: Portion, logits: torch.Tensor) -> None:
    """Note the log probabilities of the prompt's ids that follow a portion's, of (T, V) logits."""
    row, begin, end = portion
    assert row.prompt_logprobs is not None
    following = row.ids[begin + 1 : end + 1]
    found = logprobs(logits[: len(following)], following, row.prompt_logprobs)
    row.scores = [*(row.scores if begin else [None]), *found]


def _ended(outcome: Token | Fault) -> bool:
    return isinstance(outcome, Fault) or outcome.finish_reason is not None
