"""Generation: what frontends ask of engines, and what they get back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fst_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from fst_core.documents import Message
    from fst_core.interfaces.tokenizer import Tokenizer

__all__ = [
    "Chunk",
    "Detokenizer",
    "FinishReason",
    "Generation",
    "Logprob",
    "Request",
    "gather",
]

FinishReason = Literal["stop", "length"]
"""Why a generation ended: the model or a stop string ended it, or it reached its length."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to an engine.

    Raises:
        UserError: the prompt cannot be written as UTF-8.
    """

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
    stop_ids: tuple[int, ...] = ()
    """Ids that end the generation, as the end of a document does: the last id, without a text."""
    min_new_tokens: int = 0
    """The fewest ids to generate before an id may end it; a stop string ends it all the same."""
    prompt_logprobs: int | None = None
    """How many most likely ids to report beside each id of the prompt; None: no log probabilities.

    With it, `max_new_tokens` may be 0, and the prompt may fill the context.
    """

    def __post_init__(self) -> None:
        try:
            if isinstance(self.prompt, str):
                self.prompt.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"prompt: half a character at position {error.start}; it is not UTF-8"
            ) from None


@dataclass(frozen=True, slots=True)
class Logprob:
    """Log probabilities of one id, from the logits before any sampler."""

    id: int
    logprob: float
    """Natural logarithm of the id's probability."""
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
    prompt_tokens: int | None = None
    """How many ids the prompt had; set in one chunk, which is the first unless it is not known then."""
    prompt_logprobs: tuple[Logprob | None, ...] | None = None
    """One for each id of the prompt, in the first chunk; None for the first id, which nothing precedes."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole generation."""

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[Logprob, ...] | None
    finish_reason: FinishReason
    prompt_tokens: int | None = None
    """How many ids the prompt had; None if the engine does not say."""
    prompt_logprobs: tuple[Logprob | None, ...] | None = None
    """One for each id of the prompt; None for the first id, which nothing precedes."""


async def gather(chunks: AsyncIterator[Chunk]) -> Generation:
    """Join the chunks of a request into a Generation."""
    texts: list[str] = []
    ids: list[int] = []
    logprobs: list[Logprob] | None = None
    reason: FinishReason = "length"
    prompt_tokens: int | None = None
    prompt_logprobs: tuple[Logprob | None, ...] | None = None
    async for chunk in chunks:
        texts.append(chunk.text)
        ids.extend(chunk.ids)
        if chunk.logprobs is not None:
            logprobs = [*(logprobs or []), *chunk.logprobs]
        reason = chunk.finish_reason or reason
        prompt_tokens = prompt_tokens if chunk.prompt_tokens is None else chunk.prompt_tokens
        prompt_logprobs = chunk.prompt_logprobs or prompt_logprobs
    return Generation(
        "".join(texts),
        tuple(ids),
        tuple(logprobs) if logprobs is not None else None,
        reason,
        prompt_tokens,
        prompt_logprobs,
    )


_CUT = "\ufffd"
"""What a cut character decodes to."""
_MISSING = 3
"""The most ids that a cut character may have: it lacks at least one of at most four bytes."""
_CONTEXT = 8
"""How many ids before the new ones are decoded again.

Some tokenizers decode the first id of a text otherwise (a leading space), and a character may have
begun before it.
"""


class Detokenizer:
    """Decodes ids as they come: what it returned never changes, and joined it is the whole text.

    Text that may still change (a character that is not complete, or a beginning of a stop string)
    is held back until it cannot; a character that is not complete at the end is left out. With
    `strip`, so is white space before the first word, as an answer's.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] = (),
        stop: Sequence[str] = (),
        *,
        strip: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(filter(None, stop))
        self._strip = strip
        self._ids = list(prompt_ids[-_CONTEXT:])
        self._shown = len(_complete(tokenizer.decode(self._ids)))
        self._pending = 0  # ids since the text last ended with a whole character
        self._held = ""
        self.stopped = False
        """Whether a stop string was met."""

    def push(self, ids: Sequence[int]) -> str:
        """Return the text that the next ids complete."""
        if self.stopped:
            return ""
        self._ids.extend(ids)
        self._pending += len(ids)
        text = self._tokenizer.decode(self._ids)
        if not text.endswith(_CUT):
            self._pending = 0
        elif self._pending <= _MISSING:
            return ""
        complete = len(_complete(text))
        fresh = text[self._shown : complete]
        self._shown = max(self._shown, complete)
        self._forget(text)
        return self._release(fresh, last=False)

    def finish(self) -> str:
        """Return the text that was still held back."""
        if self.stopped:
            return ""
        fresh = self._tokenizer.decode(self._ids)[self._shown :].rstrip(_CUT)
        return self._release(fresh, last=True)

    def _forget(self, text: str) -> None:
        """Keep only the last ids, if they decode by themselves to the end of the text."""
        kept = self._ids[-_CONTEXT:]
        end = self._tokenizer.decode(kept)
        if text.endswith(end) and len(end) >= len(text) - self._shown:
            self._ids = kept
            self._shown -= len(text) - len(end)

    def _release(self, fresh: str, *, last: bool) -> str:
        """Return what of held and fresh text may be shown; cut it at a stop string."""
        text = self._held + fresh
        # The stop string that is complete first counts, so that chunks may be cut anywhere.
        found = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        if found:
            self.stopped = True
            return self._stripped(text[: min(found)[1]])
        held = 0 if last else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return self._stripped(text[: len(text) - held])

    def _stripped(self, text: str) -> str:
        """Return a text that is to be shown, without the white space before the first word."""
        if not self._strip:
            return text
        self._strip = not text.lstrip()
        return text.lstrip()


def _complete(text: str) -> str:
    """Return a text without what may be a cut character at its end; some tokenizers show each byte."""
    end = len(text.rstrip(_CUT))
    return text[: max(end, len(text) - _MISSING)]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    return next(
        (n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0
    )
