"""The tokenizer `bpe`: byte-level BPE, trained on the user's documents."""

from __future__ import annotations

from functools import cached_property
from heapq import heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from tokenizers import AddedToken
from tokenizers import Tokenizer as Pipeline
from tokenizers.decoders import ByteLevel as BytesToText
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from fst_core import Tokenizer
from fst_core.chance import uniform
from fst_core.errors import ArtefactError
from fst_core.interfaces.tokenizer import frame
from fst_core.tokenizer_json import TOKENIZER, TokenizerJson
from fst_gpt2.settings import BpeSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fst_core.interfaces.tokenizer import FlatIds

__all__ = ["BpeTokenizer"]

BOS, END, PAD = CONTROL = ("[DOC_START]", "[DOC_END]", "[PAD]")
"""The control tokens; their ids follow all others, in this order."""
SPACE: Final = " "
"""What stands on each side of a document's text, so that its first word is like any other."""
_SEED: Final = 228
"""Of the sample that a vocabulary is learned from."""
_LEAST_SHARE: Final = 100_000
"""Characters that a document may give however small the budget is."""

_LEAST_MEMORY, _A_CHARACTER = 25_000_000, 5
"""Bytes that learning took, the latter of each character of Python files, which have many words."""


class BpeTokenizer(Tokenizer):
    """Byte-level BPE: every text has ids, and decodes to itself.

    The algorithm is that of Sennrich, Haddow and Birch (2016) over the bytes of text that is cut
    into words, numbers and punctuation first, as in GPT-2 (Radford et al. 2019). A document is
    `[DOC_START]`, the ids of its text with one space on each side, `[DOC_END]`. Until it is fitted
    it knows single bytes.

    A subclass may override `normalize` and `restore`; with nothing else it is a tokenizer of its
    own. One with settings takes them in its constructor, and gives all of them defaults: `load`
    calls it without any.
    """

    bos_id: int

    def __init__(self, settings: BpeSettings | None = None) -> None:
        self._settings = settings or BpeSettings()
        self._count(256 + len(CONTROL))

    @cached_property
    def _file(self) -> TokenizerJson:
        alphabet = sorted(ByteLevel.alphabet())
        return byte_level(BPE({char: i for i, char in enumerate(alphabet)}, []))

    def normalize(self, text: str) -> str:
        """Return the text that is encoded in place of a text; the default is the text itself."""
        return text

    def restore(self, text: str) -> str:
        """Return the text that is shown in place of a decoded one; undoes `normalize`.

        A stream of ids is decoded piece by piece, so the end of a text may not change its beginning.
        """
        return text

    def fit(self, texts: Iterable[str]) -> None:
        """Learn a vocabulary; what is shorter than `vocab_size` gives a smaller one."""
        trainer = BpeTrainer(
            vocab_size=self._settings.vocab_size - len(CONTROL),
            min_frequency=self._settings.min_frequency,
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        )
        pipeline = Pipeline(BPE())
        pipeline.pre_tokenizer = ByteLevel(add_prefix_space=False)
        pipeline.train_from_iterator(self._sample(texts), trainer)
        self._use(byte_level(pipeline.model))

    def memory_to_fit(self, text_bytes: int | None) -> int:
        """Return about how many bytes `fit` needs: of the sample, and of its words and their pairs."""
        budget = self._settings.max_chars
        return _LEAST_MEMORY + _A_CHARACTER * min(
            budget, budget if text_bytes is None else text_bytes
        )

    def encode(self, text: str) -> list[int]:
        """Encode a text, without control ids and without spaces around it."""
        return self._file.encode(self.normalize(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids, the spaces around a document included; control ids decode to nothing."""
        return self.restore(self._file.decode(ids))

    def encode_batch(self, texts: Sequence[str]) -> FlatIds:
        """Encode texts as `encode` does, one after another."""
        return self._file.encode_batch([self.normalize(text) for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> FlatIds:
        """Encode texts as they stand in a dataset: control ids and one space on each side."""
        normal = [self.normalize(text) for text in texts]
        ids, offsets = self._file.encode_batch(normal, before=SPACE, after=SPACE)
        return frame(ids, offsets, self.bos_id, self.end_id)

    def encode_long(self, text: str) -> Iterator[NDArray[np.uint32]]:
        """Yield what `encode_documents` gives of one text, some ids at a time."""
        yield np.array([self.bos_id], np.uint32)
        yield from self._file.encode_long(self.normalize(text), before=SPACE, after=SPACE)
        yield np.array([self.end_id], np.uint32)

    def encode_prompt(self, text: str) -> list[int]:
        """Encode a document's beginning, `[DOC_START]`, a space and the text, as `transformers` does."""
        text = self.normalize(text)
        return [self.bos_id, *self._file.encode(SPACE + text)] if text else [self.bos_id]

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json; what `normalize` does is not in them."""
        tokens = {"bos_token": BOS, "eos_token": END, "pad_token": PAD}
        self._file.save(directory, tokens, prefix=SPACE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        path = directory / TOKENIZER
        file = TokenizerJson.read(path, prefix=SPACE)
        first = file.vocab_size - len(CONTROL)
        if [file.token(first + i) for i in range(len(CONTROL))] != [*CONTROL]:
            raise ArtefactError(
                f"{path}: does not end with the control tokens {', '.join(CONTROL)}"
            )
        tokenizer = cls()
        tokenizer._use(file)
        return tokenizer

    def _use(self, file: TokenizerJson) -> None:
        self._file = file
        self._count(file.vocab_size)

    def _count(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.bos_id, self.end_id, self.pad_id = range(vocab_size - len(CONTROL), vocab_size)

    def _sample(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield documents whose characters reach the budget, chosen by a hash of their index.

        All of them, if they fit; no single one gives more than a hundredth of a large budget.
        """
        budget = self._settings.max_chars
        most = min(budget, max(budget // 100, _LEAST_SHARE))
        kept: list[tuple[float, int, str]] = []  # a heap, the document to give up first
        total = 0
        for index, whole in enumerate(texts):
            text = whole[:most]
            heappush(kept, (-uniform(_SEED, index), index, text))
            total += len(text)
            while total - len(kept[0][2]) >= budget:
                total -= len(heappop(kept)[2])
        for _, _, text in sorted(kept, key=itemgetter(1)):
            yield SPACE + self.normalize(text) + SPACE


def byte_level(model: BPE) -> TokenizerJson:
    """Return a tokenizer over the bytes of text, with the control tokens after the model's own."""
    pipeline = Pipeline(model)
    pipeline.pre_tokenizer = ByteLevel(add_prefix_space=False)
    pipeline.decoder = BytesToText()
    pipeline.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in CONTROL])
    # Only `transformers` reads this: its prompts begin as ours do.
    pipeline.post_processor = TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, pipeline.token_to_id(BOS))]
    )
    return TokenizerJson(pipeline)
