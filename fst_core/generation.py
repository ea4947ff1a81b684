"""Generation: what frontends ask of engines, and what they get back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from fst_core.documents import Message
    from fst_core.interfaces.tokenizer import Tokenizer

__all__ = ["Chunk", "Detokenizer", "FinishReason", "Generation", "Logprob", "Request", "gather", "uniform"]

FinishReason = Literal["stop", "length"]
"""Why a generation ended: the model or a stop string ended it, or it reached its length."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to an engine."""

    prompt: str | tuple[int, ...] | tuple[Message, ...] = ""
    """A text, encoded by `encode_prompt`; ids, used as they are; or the turns of a conversation."""
    max_new_tokens: int | None = None
    """The most ids to generate; None: as many as the context has room for."""
    seed: int = 0
    """Equal seeds, prompts and parameters give equal ids."""
    stop: tuple[str, ...] = ()
    """Strings that end the generation; they are not part of its text."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the samplers' Settings that this request overrides."""
    logprobs: int | None = None
    """How many most likely ids to report beside each chosen one; None: no log probabilities."""
    meta: str | None = None
    """The label that a document of a training set may carry, encoded as it was there."""


@dataclass(frozen=True, slots=True)
class Logprob:
    """Log probabilities of one generated id, from the logits before any sampler."""

    id: int
    logprob: float
    """Natural logarithm of the chosen id's probability."""
    top: tuple[tuple[int, float], ...] = ()
    """The most likely ids with their log probabilities, best first."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next piece of a generation; chunks' texts joined are the whole text."""

    text: str = ""
    ids: tuple[int, ...] = ()
    logprobs: tuple[Logprob, ...] | None = None
    finish_reason: FinishReason | None = None
    """Set in the last chunk alone."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole generation."""

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[Logprob, ...] | None
    finish_reason: FinishReason


async def gather(chunks: AsyncIterator[Chunk]) -> Generation:
    """Join the chunks of a request into a Generation."""
    texts: list[str] = []
    ids: list[int] = []
    logprobs: list[Logprob] | None = None
    reason: FinishReason = "length"
    async for chunk in chunks:
        texts.append(chunk.text)
        ids.extend(chunk.ids)
        if chunk.logprobs is not None:
            logprobs = [*(logprobs or []), *chunk.logprobs]
        reason = chunk.finish_reason or reason
    return Generation("".join(texts), tuple(ids), tuple(logprobs) if logprobs is not None else None, reason)


def uniform(seed: int, index: int) -> float:
    """Return a number in [0, 1): a pure function of a request's seed and its token's index.

    SplitMix64 (Steele, Lea and Flood 2014), run once on the seed and once on the position.
    """
    return _splitmix64(_splitmix64(seed) + index) / 2**53


def _splitmix64(state: int) -> int:
    """Return the 53 upper bits of the next output from a state of any size."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 11


class Detokenizer:
    """Decodes ids as they come: what it returned never changes, and joined it is the whole text.

    Text that may still change (a character that is not complete, or a beginning of a stop string)
    is held back until it cannot.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = (), stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(filter(None, stop))
        # A few ids of context: some tokenizers decode the first id of a text otherwise (a leading
        # space), and a tail that ends inside a character decodes otherwise too.
        self._ids = list(prompt_ids[-8:])
        self._shown = len(tokenizer.decode(self._ids)) if self._ids else 0
        self._held = ""
        self.stopped = False
        """Whether a stop string was met."""

    def push(self, ids: Sequence[int]) -> str:
        """Return the text that the next ids complete."""
        if self.stopped:
            return ""
        self._ids.extend(ids)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd"):  # a cut character: wait for the rest of it
            return ""
        fresh = text[self._shown :]
        self._ids = self._ids[-8:]
        self._shown = len(self._tokenizer.decode(self._ids))
        return self._release(fresh, last=False)

    def finish(self) -> str:
        """Return the text that was still held back."""
        if self.stopped:
            return ""
        fresh = self._tokenizer.decode(self._ids)[self._shown :]
        return self._release(fresh, last=True)

    def _release(self, fresh: str, *, last: bool) -> str:
        """Return what of held and fresh text may be shown; cut it at a stop string."""
        text = self._held + fresh
        ends = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)]
        held = 0 if last else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
