"""The contract of tokenizers."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from fst_core.testing.component import ComponentContract
from fst_core.testing.saved import assert_damage_is_told, contents, pickled
from fst_core.testing.texts import ADVERSARIAL, CORPUS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fst_core import Tokenizer

__all__ = ["TokenizerContract"]


class TokenizerContract(ComponentContract):
    """What every tokenizer does. A subclass names it.

        class TestChars(TokenizerContract):
            use = "chars"
            texts = ("What it learns from.",)  # if left out, sentences of several languages
            control_tokens = ("<end>",)        # how it spells its control tokens, if it does

    It asserts that ids lie within the vocabulary, and no text yields a control id, even one that
    spells a control token; that a text comes back as it was, unless the tokenizer is `lossy`, and
    decoding never raises, whatever the ids; that a batch gives what its texts give one by one; that
    documents are framed, and a prompt is the beginning of a document; that saving and loading
    change nothing, saving writes the same bytes each time, without pickle, and damage is told; and
    that equal texts and settings give equal tokenizers.
    """

    kind: ClassVar[str] = "tokenizer"
    texts: ClassVar[Sequence[str]] = CORPUS
    """What the tokenizer is fitted to."""
    control_tokens: ClassVar[Sequence[str]] = ()
    """The spellings of the tokenizer's own control tokens."""

    @pytest.fixture
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, fitted to `texts`."""
        return self._fitted()

    @pytest.fixture
    def saved(self, tokenizer: Tokenizer, tmp_path: Path) -> Path:
        """Where the tokenizer was saved."""
        return _save(tokenizer, tmp_path / "saved")

    def test_ids_lie_within_the_vocabulary(self, tokenizer: Tokenizer) -> None:
        """Every text is a list of plain integers in [0, vocab_size)."""
        for text in self._texts():
            ids = tokenizer.encode(text)
            assert isinstance(ids, list)
            assert all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids), text
        assert all(0 <= i < tokenizer.vocab_size for i in _control_ids(tokenizer))

    def test_no_text_yields_a_control_id(self, tokenizer: Tokenizer) -> None:
        """A document that speaks of "[DOC_END]" does not end there."""
        for text in self._texts():
            assert not _control_ids(tokenizer) & set(tokenizer.encode(text)), text

    def test_no_text_has_no_ids(self, tokenizer: Tokenizer) -> None:
        """The empty text is encoded to nothing, and nothing is decoded to the empty text."""
        assert tokenizer.encode("") == []
        assert tokenizer.decode([]) == ""

    def test_a_text_comes_back_as_it_was(self, tokenizer: Tokenizer) -> None:
        """Decoding undoes encoding, to the character, unless the tokenizer says that it is lossy."""
        for text in self._texts():
            decoded = tokenizer.decode(tokenizer.encode(text))
            assert isinstance(decoded, str)
            assert tokenizer.lossy or decoded == text

    def test_decoding_never_raises(self, tokenizer: Tokenizer) -> None:
        """Any prefix of a text's ids, any single id, and ids in any order have a text."""
        dice = random.Random(228)  # noqa: S311  # for variety, not for secrets
        for text in self._texts():
            ids = tokenizer.encode(text)
            for end in range(min(len(ids), 40)):
                tokenizer.decode(ids[:end])
        for i in range(0, tokenizer.vocab_size, max(1, tokenizer.vocab_size // 1000)):
            tokenizer.decode((i,))
        for _ in range(200):
            shuffled = [dice.randrange(tokenizer.vocab_size) for _ in range(20)]
            tokenizer.decode(shuffled).encode()  # half of a surrogate pair would not do either

    def test_control_ids_decode_to_nothing(self, tokenizer: Tokenizer) -> None:
        """A generation's text never shows how it ended."""
        for i in _control_ids(tokenizer):
            assert tokenizer.decode([i]) == ""
            ids = tokenizer.encode("some text")
            assert tokenizer.decode([i, *ids, i]) == tokenizer.decode(ids)

    def test_a_batch_gives_what_its_texts_give_one_by_one(self, tokenizer: Tokenizer) -> None:
        """`encode_batch` is `encode`, flat: empty texts and no texts too."""
        texts = ["", *self._texts(), ""]
        ids, offsets = tokenizer.encode_batch(texts)
        _assert_dtypes(ids, offsets)
        assert (ids.shape, offsets.shape) == ((offsets[-1],), (len(texts) + 1,))
        assert offsets[0] == 0
        for index, text in enumerate(texts):
            assert ids[offsets[index] : offsets[index + 1]].tolist() == tokenizer.encode(text)
        ids, offsets = tokenizer.encode_batch([])
        _assert_dtypes(ids, offsets)
        assert (ids.tolist(), offsets.tolist()) == ([], [0])

    def test_documents_are_framed(self, tokenizer: Tokenizer) -> None:
        """Each begins with `bos_id`, if there is one, ends with `end_id`, and has no other control id."""
        texts = ["", *self._texts()]
        ids, offsets = tokenizer.encode_documents(texts)
        _assert_dtypes(ids, offsets)
        assert (offsets[0], offsets[-1]) == (0, len(ids))
        for index, text in enumerate(texts):
            document = ids[offsets[index] : offsets[index + 1]].tolist()
            assert document[-1] == tokenizer.end_id
            inner = document[:-1]
            if tokenizer.bos_id is not None:
                assert inner.pop(0) == tokenizer.bos_id
            assert not _control_ids(tokenizer) & set(inner)
            assert tokenizer.lossy or text in tokenizer.decode(document)
            assert tokenizer.encode_documents([text])[0].tolist() == document

    def test_a_prompt_begins_a_document(self, tokenizer: Tokenizer) -> None:
        """It stands where a document of a training set does: begun with `bos_id`, never ended."""
        begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        assert tokenizer.encode_prompt("") == begin
        for text in self._texts():
            prompt = tokenizer.encode_prompt(text)
            assert prompt[: len(begin)] == begin
            assert not _control_ids(tokenizer) & set(prompt[len(begin) :]), text
            assert tokenizer.lossy or text.rstrip() in tokenizer.decode(prompt)
        for text in self.texts:
            document = tokenizer.encode_documents([text])[0].tolist()
            before_last = tokenizer.encode_prompt(text)[:-1]  # the last may merge with what follows
            assert document[: len(before_last)] == before_last

    def test_saving_and_loading_change_nothing(
        self, tokenizer: Tokenizer, saved: Path, tmp_path: Path
    ) -> None:
        """A loaded tokenizer encodes and decodes alike, wherever its directory was moved."""
        moved = tmp_path / "moved"
        saved.rename(moved)
        loaded = type(tokenizer).load(moved)
        shutil.rmtree(moved)  # all is read by now
        assert type(loaded) is type(tokenizer)
        for name in ("vocab_size", "bos_id", "end_id", "pad_id", "lossy"):
            assert getattr(loaded, name) == getattr(tokenizer, name), name
        for text in self._texts():
            ids = tokenizer.encode(text)
            assert loaded.encode(text) == ids
            assert loaded.encode_prompt(text) == tokenizer.encode_prompt(text)
            assert loaded.decode(ids) == tokenizer.decode(ids)
        ids_before, offsets_before = tokenizer.encode_documents(self._texts())
        ids_after, offsets_after = loaded.encode_documents(self._texts())
        assert np.array_equal(ids_after, ids_before)
        assert np.array_equal(offsets_after, offsets_before)

    def test_saving_writes_the_same_bytes_each_time(
        self, tokenizer: Tokenizer, saved: Path, tmp_path: Path
    ) -> None:
        """Saved again after use, and saved after loading: datasets and models compare these bytes."""
        tokenizer.encode_batch(self._texts())
        assert contents(saved)
        assert contents(_save(tokenizer, tmp_path / "again")) == contents(saved)
        loaded = type(tokenizer).load(saved)
        assert contents(_save(loaded, tmp_path / "loaded")) == contents(saved)

    def test_nothing_is_pickled(self, saved: Path) -> None:
        """What a person opens may come from a stranger."""
        assert pickled(saved) == []

    def test_damage_is_told(self, tokenizer: Tokenizer, saved: Path) -> None:
        """A directory without a file, or with half of one, gives an ArtefactError that names the place."""
        assert_damage_is_told(type(tokenizer).load, saved)

    def test_equal_texts_give_equal_tokenizers(self, saved: Path, tmp_path: Path) -> None:
        """Another instance, fitted to the same texts, writes the same bytes."""
        other = self._fitted()
        assert contents(_save(other, tmp_path / "other")) == contents(saved)
        assert other.fingerprint() == self._fitted().fingerprint()

    def _fitted(self) -> Tokenizer:
        tokenizer: Tokenizer = self.build()
        tokenizer.fit(iter(self.texts))  # documents are read once
        return tokenizer

    def _texts(self) -> list[str]:
        """What it was fitted to, what is hard, and random mixtures of that."""
        dice = random.Random(228)  # noqa: S311  # for variety, not for secrets
        own = [*self.control_tokens, *(f"a {each} b{each}" for each in self.control_tokens)]
        pieces = [*ADVERSARIAL, *own]
        mixed = ["".join(dice.choices(pieces, k=4)) for _ in range(40)]
        return [*self.texts, *pieces, *mixed]


def _control_ids(tokenizer: Tokenizer) -> set[int]:
    return {tokenizer.bos_id, tokenizer.end_id, tokenizer.pad_id} - {None}  # type: ignore[return-value]  # None is taken out


def _assert_dtypes(ids: NDArray[Any], offsets: NDArray[Any]) -> None:
    assert ids.dtype == np.uint32
    assert offsets.dtype == np.int64


def _save(tokenizer: Tokenizer, directory: Path) -> Path:
    directory.mkdir()
    tokenizer.save(directory)
    return directory
