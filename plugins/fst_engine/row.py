"""A row: one request inside the scheduler, which knows ids only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fst_core.errors import FstError
    from fst_core.generation import FinishReason, Logprob
    from fst_engine.lookup import Lookup

    PromptLogprobs = tuple[Logprob | None, ...]

__all__ = ["Fault", "Row", "Token"]


@dataclass(eq=False, slots=True)
class Row:
    """A request's ids, and how to go on."""

    ids: list[int]
    """The prompt, then what was generated."""
    prompt_length: int
    max_length: int
    """How many ids there are at most, prompt included."""
    seed: int
    parameters: tuple[Any, ...]
    """For each sampler its Settings, with the fields that the request overrides."""
    ends: frozenset[int] = frozenset()
    """The ids that complete the row."""
    min_length: int = 0
    """How many ids there are at least before one may complete the row, prompt included."""
    logprobs: int | None = None
    """How many most likely ids to report; None: no log probabilities."""
    prompt_logprobs: int | None = None
    """The same, of the prompt; None once they were told."""
    scores: list[Logprob | None] = field(default_factory=list)
    """The prompt's log probabilities as far as it is read, until they are told."""
    ticket: int = -1
    """The scheduler's number, by which earlier rows go first."""
    lookup: Lookup | None = None
    """What guesses its next ids; None until it runs alone."""

    @property
    def begun(self) -> bool:
        """Whether something was generated."""
        return len(self.ids) > self.prompt_length

    def take_scores(self) -> PromptLogprobs | None:
        """Return the prompt's log probabilities, once, if they are asked for."""
        if self.prompt_logprobs is None:
            return None
        scores, self.scores, self.prompt_logprobs = tuple(self.scores), [], None
        return scores


@dataclass(frozen=True, slots=True)
class Token:
    """What a step generated for a row."""

    row: Row
    id: int | None
    """None if the row wants nothing but its prompt's log probabilities."""
    logprob: Logprob | None
    finish_reason: FinishReason | None
    """Set if the row is complete, and has left the scheduler."""
    prompt_logprobs: PromptLogprobs | None = None
    """With the first token, if the row asks for them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row failed; it has left the scheduler."""

    row: Row
    error: FstError
