"""The scheduler: which requests compute together, step by step."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import accumulate, count
from typing import TYPE_CHECKING, Final

import torch

from fst_core.errors import FstError
from fst_engine.cache import SlotCache
from fst_engine.lookup import Lookup
from fst_engine.prefixes import LEAST_SHARED, Prefixes, shared_length
from fst_engine.row import Fault, Token
from fst_engine.sampling import failure, logprobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fst_core.generation import FinishReason, Logprob
    from fst_engine.forward import Forward
    from fst_engine.row import Row
    from fst_engine.sampling import Sampling

__all__ = ["Scheduler"]

LEAST: Final = 8
"""A forward pass costs as much as this many ids at least: it reads all weights."""
PACE: Final = 8, 1
"""Of a long prompt, about so many ids, and so many for each running row, take two steps' time."""
IDLE: Final = 2
"""While nobody waits for a next token, this many times as many ids of prompts are read in a step."""


class Scheduler:
    """Runs rows in one batch, which they join and leave at every step; first come, first served.

    A step generates one token for each running row, then reads some ids of new prompts, so that
    running rows never wait for a long one. A row that runs alone may get several: ids that its text
    lets guess are computed along with the next one, and count as far as they are those that are drawn
    one after another (speculative decoding, Leviathan et al. 2023). When keys and values no longer
    fit into memory, the youngest rows go back to the head of the line, and are read again later: what
    a row generates does not depend on it. Not for several threads at once.
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
        self.cache = SlotCache(dtype=forward.cache_dtype)
        """Of the running rows, in their order."""
        self._forward = forward
        self._sampling = sampling
        self._max_running = max_running
        self._prefill_chunk = prefill_chunk
        self._cache_bytes = cache_bytes
        self._prefixes = prefixes if forward.supports_cache else None
        self._lookup = lookup if forward.supports_cache else 0
        self._guessed = False
        """Whether the only row's slot may hold what ids left that were guessed, and not drawn."""
        self._tickets = count()
        self._entering: tuple[Row, SlotCache | None] | None = None
        """The row whose prompt is being read, and its own cache until it joins."""
        self._scores: list[Logprob | None] = []
        """The log probabilities of its prompt so far, if it asks for them."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.running or self._entering)

    def submit(self, row: Row) -> None:
        """Put a row at the end of the line."""
        row.ticket = next(self._tickets)
        self.waiting.append(row)

    def cancel(self, row: Row) -> None:
        """Forget a row, wherever it is."""
        if self._entering and row is self._entering[0]:
            self._entering = None
        elif row in self.running:
            self._leave(self.running.index(row))
        elif row in self.waiting:
            self.waiting.remove(row)

    def step(self) -> list[Token | Fault]:
        """Do one step, and return what came of it: a row's tokens in their order, a fault at most, last."""
        return [*self._decode(), *self._prefill()]

    def _decode(self) -> list[Token | Fault]:
        """Generate a token for each running row, or some for the only one."""
        self._make_room()
        rows = list(self.running)
        if not rows:
            return []
        outcomes = self._speculate()
        if not outcomes:
            try:
                if self._forward.supports_cache:
                    logits = self._forward([row.ids[-1:] for row in rows], self.cache)
                else:
                    logits = torch.cat([self._forward([row.ids], None) for row in rows])
            except Exception as error:  # noqa: BLE001  # a stranger's module may raise anything
                return self._tell_apart(error)
            outcomes = self._choose(rows, logits[:, -1])
        for outcome in outcomes:
            if _ended(outcome):  # of a fault, what the cache holds may be the reason
                index = self.running.index(outcome.row)
                self._leave(index, keep=not isinstance(outcome, Fault))
        return outcomes

    def _speculate(self) -> list[Token | Fault]:
        """Generate tokens for the only row, as far as they are those that its text lets guess.

        Nothing comes of it where there is no guess, or somebody waits, or the guess may be what makes
        the model fail: a number that is none goes through every mask, to earlier ids too.
        """
        if not self._lookup or len(self.running) > 1 or self.waiting or self._entering:
            return []
        (row,) = self.running
        row.lookup = row.lookup or Lookup(self._lookup)
        guess = row.lookup.guess(row.ids, row.max_length - len(row.ids) - 1)
        if not guess:
            return []
        known, self._guessed = self.cache.lengths[0], True
        try:
            (logits,) = self._forward([[row.ids[-1], *guess]], self.cache, 1 + len(guess))
            failed = not torch.isfinite(logits.amax(dim=-1)).all()
        except Exception:  # noqa: BLE001  # the same without the guess tells whose fault it is
            failed = True
        if failed:
            self.cache.lengths[0] = known
            return []
        outcomes: list[Token | Fault] = []
        for right, expected in enumerate([*guess, None]):
            outcomes += self._choose([row], logits[right : right + 1])
            if _ended(outcomes[-1]) or row.ids[-1] != expected:
                break
        row.lookup.learn(right)
        self.cache.lengths[0] = known + 1 + right
        return outcomes

    def _prefill(self) -> list[Token | Fault]:
        """Read ids of new prompts; those that are read to the end generate their first token and join."""
        outcomes: list[Token | Fault] = []
        budget = self._prefill_chunk * (1 if self.running else IDLE)
        while budget >= LEAST:
            if together := self._gather(budget):  # as many as fit: the rest is for the next step
                return outcomes + self._read_together(together)
            if (entering := self._next()) is None:
                break
            row, cache = entering
            begin, end = self._portion(row, cache, budget)
            budget -= max(end - begin, LEAST)
            asked = row.prompt_logprobs is not None
            try:
                logits = self._forward([row.ids[begin:end]], cache, end - begin if asked else 1)
                if asked:
                    self._score(row, logits[0], begin)
            except Exception as error:  # noqa: BLE001  # a stranger's module may raise anything
                self._entering = None
                outcomes.append(Fault(row, failure("the model failed", error)))
                continue
            if end < len(row.ids):
                break
            self._entering = None
            outcomes += (chosen := self._first(row, logits[:, -1]))
            if not _ended(chosen[0]):
                self._join(row, cache)
        return outcomes

    def _gather(self, budget: int) -> list[Row]:
        """Take the rows at the head of the line whose prompts can be read together, as many ids at most."""
        rows: list[Row] = []
        while self._entering is None and self.waiting and self._forward.supports_cache:
            row = self.waiting[0]
            budget -= len(row.ids)
            if budget < 0 or row.prompt_logprobs is not None or not self._has_room(row, rows):
                break
            if self._prefixes is not None and any(
                shared_length(row.ids, other.ids) >= LEAST_SHARED for other in rows
            ):
                break  # once those are read, what it has in common with them is
            self.waiting.popleft()
            if begun := self._begun(row):
                self._entering = row, begun
            else:
                rows.append(row)
        return rows

    def _read_together(self, rows: Sequence[Row]) -> list[Token | Fault]:
        """Read whole prompts in one forward pass; if that fails, one by one, to tell the faulty ones apart.

        A number that is none goes through every mask, so such logits are not those of their row alone.
        """
        together = SlotCache([0], self._forward.cache_dtype)
        try:
            logits = self._forward.read_together([row.ids for row in rows], together)
            # Of one row alone, whoever draws from them looks.
            failed = len(rows) > 1 and not torch.isfinite(logits.amax(dim=-1)).all()
        except Exception as error:  # noqa: BLE001  # a stranger's module may raise anything
            if len(rows) == 1:
                return [Fault(rows[0], failure("the model failed", error))]
            failed = True
        if failed:
            return [outcome for row in rows for outcome in self._read_together([row])]
        lengths = [len(row.ids) for row in rows]
        begins = accumulate([0, *lengths[:-1]])
        outcomes = self._choose(rows, logits)
        for row, outcome, begin, length in zip(rows, outcomes, begins, lengths, strict=True):
            if not _ended(outcome):
                self._join(row, together, begin, length)
        return outcomes

    def _portion(self, row: Row, cache: SlotCache | None, budget: int) -> tuple[int, int]:
        """Return from where to where a prompt is read in this step.

        One that is read in many steps is read slowly while others run; no rest is left that is not
        worth a step.
        """
        if cache is None:
            return 0, len(row.ids)
        begin, share = cache.lengths[0], budget
        if self.running and len(row.ids) > self._prefill_chunk:
            share = min(budget, PACE[0] + PACE[1] * len(self.running))
        left = len(row.ids) - begin
        return begin, begin + (left if left <= share * 5 // 4 else share)

    def _score(self, row: Row, logits: torch.Tensor, begin: int) -> None:
        """Note the log probabilities of the prompt's ids that follow (T, V) logits."""
        assert row.prompt_logprobs is not None
        following = row.ids[begin + 1 : begin + 1 + len(logits)]
        found = logprobs(logits[: len(following)], following, row.prompt_logprobs)
        self._scores = [*(self._scores if begin else [None]), *found]

    def _first(self, row: Row, logits: torch.Tensor) -> list[Token | Fault]:
        """Draw the first id of a row whose prompt is read, unless it wants none."""
        scores = None
        if row.prompt_logprobs is not None:
            scores, self._scores, row.prompt_logprobs = tuple(self._scores), [], None
        if len(row.ids) == row.max_length:
            return [Token(row, None, None, "length", scores)]
        (outcome,) = self._choose([row], logits)
        return [outcome if isinstance(outcome, Fault) else replace(outcome, prompt_logprobs=scores)]

    def _next(self) -> tuple[Row, SlotCache | None] | None:
        """Return the row whose prompt is to be read now, and its cache."""
        if self._entering is None and self.waiting and self._has_room(self.waiting[0]):
            row = self.waiting.popleft()
            cache = None
            if self._forward.supports_cache:
                cache = self._begun(row) or SlotCache([0], self._forward.cache_dtype)
            self._entering = row, cache
        return self._entering

    def _begun(self, row: Row) -> SlotCache | None:
        """Return a cache of the ids at a row's beginning that were read before, without its last."""
        if self._prefixes is None or row.prompt_logprobs is not None:
            return None
        found, length = self._prefixes.find(row.ids)
        place = 0
        for slot, other in enumerate(self.running):
            shared = shared_length(other.ids[: self.cache.lengths[slot]], row.ids)
            if shared > max(length, LEAST_SHARED - 1):
                found, length, place = self.cache, shared, slot
        return None if found is None else found.copy(place, min(length, len(row.ids) - 1))

    def _has_room(self, row: Row, joining: Sequence[Row] = ()) -> bool:
        """Say whether there is room for a row beside those that run, and those that are about to."""
        others = [*self.running, *joining]
        if not others:
            return True
        length = max(len(each.ids) for each in (row, *others))
        needed = self.cache.bytes_for(len(others) + 1, length)
        return len(others) < self._max_running and needed <= self._cache_bytes

    def _make_room(self) -> None:
        """Send the youngest rows back until the others fit; one is always served."""
        while len(self.running) > 1:
            longest = max(len(row.ids) for row in self.running)
            if self.cache.bytes_for(len(self.running), longest) <= self._cache_bytes:
                return
            youngest = max(self.running, key=lambda row: row.ticket)
            self._leave(self.running.index(youngest))
            self._send_back([youngest])

    def _tell_apart(self, error: Exception) -> list[Token | Fault]:
        """Fail a row whose forward pass failed; of several, read each anew, alone, to find it."""
        rows, self.running = self.running, []
        self.cache.clear()
        if len(rows) == 1:
            return [Fault(rows[0], failure("the model failed", error))]
        self._send_back(rows)
        return []

    def _send_back(self, rows: Iterable[Row]) -> None:
        """Put rows that had begun at the head of the line, in the order in which they came."""
        self.waiting = deque(sorted([*rows, *self.waiting], key=lambda row: row.ticket))

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
            outcomes.append(Token(row, chosen, logprob, reason))
        return outcomes

    def _join(
        self, row: Row, cache: SlotCache | None, begin: int = 0, length: int | None = None
    ) -> None:
        """Take a row into the batch, with so many columns of the only row of its cache."""
        if self._guessed and len(self.running) == 1:
            # A mask does not hide it: a weight of 0 times NaN would be NaN.
            self.cache = self.cache.copy(0, self.cache.lengths[0])
        self._guessed = False
        self.running.append(row)
        if cache is not None:
            self.cache.append(cache, begin, length)

    def _leave(self, index: int, *, keep: bool = True) -> None:
        """Take a row out of the batch; the last one takes its place, here as in the cache."""
        if keep and self._prefixes is not None:
            self._prefixes.keep(self.running[index].ids, self.cache, index)
        last = self.running.pop()
        if index < len(self.running):
            self.running[index] = last
        if self._forward.supports_cache:
            self.cache.remove(index)


def _ended(outcome: Token | Fault) -> bool:
    return isinstance(outcome, Fault) or outcome.finish_reason is not None
