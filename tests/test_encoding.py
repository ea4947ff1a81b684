"""Encoding in bulk: the fast encoder's ids are the reference's, and long texts may be cut."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest

tokenizers = pytest.importorskip("tokenizers")

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers  # noqa: E402

from fst_core.encoding import (  # noqa: E402  # these follow what may be missing
    EncodersDiffer,
    bulk_encoding,
    current_bulk,
    encode_by_reference,
)
from fst_core.safe_cuts import _PATTERNS, can_be_cut, pieces  # noqa: E402
from fst_core.tokenizer_json import TokenizerJson  # noqa: E402

WORDS = [
    "the", "cat's", "I'LL", "don't", "über", "Зоя", "пила", "日本語", "。", "مرحبا", "שלום", "नमस्ते", "한국어",
    "e\u0301", "a\u0308\u0323\u20dd", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "\u202eabc\u202c", "\x00",
    "\x01\x7f", "\ufeff", "\u0378", "\U000e0fff", "\uffff", "\ufffd", "\uff11\uff12", "²³", "Ⅻ", "٣٤",
    "3.14", "1234567", "\u017f", "'\u017f", "[DOC_START]", "[DOC_END]", "[PAD]", "<|endoftext|>", "...", "--",
    "'", "_x_", "ǅ", "ﬁ", "\U0001f1e9\U0001f1ea",
]  # fmt: skip
SPACES = [
    *"   \n\t", "  ", "\n\n", " \n ", "\r\n", "\u3000", "\xa0", "\x85", "\u2028", "\x0b", "\x1c", "",
]  # fmt: skip


def hostile(rng, words):
    return "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(words))


def byte_level(*, normalizer=None, added=(), pre_tokenizer=None):
    """A byte-level tokenizer with merges of its own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    merges = []
    pairs = "t+h th+e Ġ+th Ġth+e c+a Ġ+Ġ Ð+\u00b8 '+s 1+2 ã+ģ .+. Ċ+Ċ e+r"
    for pair in pairs.split():
        left, right = pair.split("+")
        if left in vocabulary and right in vocabulary:
            vocabulary.setdefault(left + right, len(vocabulary))
            merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens(["[DOC_START]", "[DOC_END]", "[PAD]"])
    tokenizer.add_tokens(list(added))
    tokenizer.encode_special_tokens = True
    return tokenizer


def split_by(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def one_by_one(tokenizer, texts):
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    return [i for each in ids for i in each], np.cumsum([0, *map(len, ids)]).tolist()


# the fast encoder


TEXTS = [
    "", " ", "\n", "\x00", "\ufeff", "a" * 1_000_000, "日" * 100_000, " " * 50_000, "\n" * 20_000, "1" * 50_000,
    "'" * 10_000, "e" + "\u0301" * 20_000, "👩\u200d" * 10_000, "[DOC_END]" * 1_000,
]  # fmt: skip


def test_the_fast_encoder_has_the_ids_of_the_reference_on_hostile_text():
    pytest.importorskip("fastokens")
    rng = random.Random(228)
    texts = [*TEXTS, *(hostile(rng, 40) for _ in range(500))]
    tokenizer = byte_level()
    file = TokenizerJson(tokenizer)
    with bulk_encoding(None) as bulk:
        assert current_bulk() is bulk
        ids, offsets = file.encode_batch(texts)
    assert current_bulk() is None
    assert bulk.record()["used"].startswith("fastokens ")
    assert bulk.record()["on_bytes"] > 0
    assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
    expected = one_by_one(tokenizer, texts)
    assert (ids.tolist(), offsets.tolist()) == expected
    assert max(expected[0]) < file.vocab_size - 3  # no text yields a control id


def test_the_published_vocabulary_has_the_same_ids_fast():
    pytest.importorskip("fastokens")
    gpt2 = pytest.importorskip("fst_gpt2.gpt2").GPT2Tokenizer()
    try:
        gpt2.fingerprint()
    except Exception as error:  # noqa: BLE001  # whatever is missing
        pytest.skip(str(error))
    rng = random.Random(7)
    texts = [hostile(rng, 60) for _ in range(1_500)] + ["x" * 300_000]
    expected = gpt2.encode_documents(texts)
    with bulk_encoding(None) as bulk:
        found = gpt2.encode_documents(texts)
    assert bulk.record()["used"].startswith("fastokens ")
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def test_few_texts_are_encoded_by_the_reference_alone():
    with bulk_encoding(None) as bulk:
        TokenizerJson(byte_level()).encode_batch(["the cat"] * 10)
    assert bulk.record() == {"used": f"tokenizers {tokenizers.__version__}"}


def test_without_the_fast_encoder_the_reference_is_used_and_that_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastokens", None)
    texts = ["the cat sat on a mat"] * 20_000
    tokenizer = byte_level()
    with bulk_encoding(None) as bulk:
        ids, _ = TokenizerJson(tokenizer).encode_batch(texts)
    assert bulk.record()["why"] == bulk.why_not == "fastokens is not installed"
    assert np.array_equal(ids, encode_by_reference(tokenizer, texts)[0])


def test_a_fast_encoder_that_is_wrong_is_found_and_not_used_again(monkeypatch):
    pytest.importorskip("fastokens")
    from fst_core import encoding

    right = encoding._encode_fast

    def wrong(fast, texts):
        ids, offsets = right(fast, texts)
        return ids ^ np.uint32(sum("needle" in text for text in texts)), offsets

    monkeypatch.setattr(encoding, "_encode_fast", wrong)
    hay = ["the cat sat on a mat"] * 20_000
    file = TokenizerJson(byte_level())
    with bulk_encoding(sum(map(len, hay)) * 2) as bulk:
        file.encode_batch(hay)
        assert bulk.why_not is None
        with pytest.raises(EncodersDiffer, match="gives other ids than tokenizers"):
            file.encode_batch(["a needle " * 1_000] * 200)
        ids, _ = file.encode_batch(["a needle"])
    assert ids.tolist() == file.encode("a needle")
    assert bulk.record()["used"].startswith("tokenizers ")
    assert "gives other ids" in bulk.record()["why"]


@pytest.mark.parametrize("said", [None, 100, 3_000_000])
def test_the_sample_is_spread_whatever_was_said_of_the_corpus(said, monkeypatch):
    pytest.importorskip("fastokens")
    from fst_core import encoding

    checked = []
    reference = encoding.encode_by_reference
    monkeypatch.setattr(
        encoding,
        "encode_by_reference",
        lambda tokenizer, texts: checked.extend(texts) or reference(tokenizer, texts),
    )
    documents = [f"{number:04} " * 1_000 for number in range(600)]  # 3,000,000 characters
    with bulk_encoding(said) as bulk:
        file = TokenizerJson(byte_level())
        for first in range(0, 600, 100):
            file.encode_batch(documents[first : first + 100])
    numbers = [int(text.split()[1]) for text in checked]
    assert numbers == sorted(numbers)
    if said == 3_000_000:
        assert len(numbers) == 64
        assert max(np.diff(numbers)) <= 10
        assert bulk.record()["on_bytes"] == sum(map(len, checked)) == 64 * 4096
    else:
        assert 2 <= len(numbers) < 600
    if said == 100:  # longer than was said: the sample thins out
        assert max(np.diff(numbers)) > 1


def test_every_part_of_the_sample_is_compared_also_after_texts_that_were_too_few():
    pytest.importorskip("fastokens")
    file = TokenizerJson(byte_level())
    with bulk_encoding(2**26) as bulk:
        file.encode_batch(["a few words"] * 3_000)
        assert bulk.record()["used"].startswith("tokenizers ")
        file.encode_batch(["the cat sat on a mat " * 50_000])
    assert bulk.record()["on_bytes"] == 2 * 4096  # at 0 and at 2**20


# cutting


CUTTABLE = {
    "GPT-2": None,
    "digits": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
    **{f"pattern {n}": split_by(pattern) for n, pattern in enumerate(sorted(_PATTERNS))},
}


@pytest.mark.parametrize("name", CUTTABLE)
def test_the_pieces_of_a_text_have_together_the_ids_of_the_whole(name):
    tokenizer = byte_level(pre_tokenizer=CUTTABLE[name])
    assert can_be_cut(tokenizer.to_str())
    rng = random.Random(name)
    cuts = 0
    for _ in range(300):
        text = hostile(rng, rng.randint(1, 60))
        parts = list(pieces(text, rng.choice([1, 2, 5, 30])))
        cuts += len(parts) - 1
        assert "".join(parts) == text
        assert one_by_one(tokenizer, parts)[0] == one_by_one(tokenizer, [text])[0]
    assert cuts > 300


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": normalizers.NFC()},
        {"added": [AddedToken("in the")]},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
        {"pre_tokenizer": pre_tokenizers.Metaspace()},
        {"pre_tokenizer": split_by(r"\w+\s\w+")},
        {"pre_tokenizer": pre_tokenizers.Digits()},
    ],
    ids=str,
)
def test_a_tokenizer_of_which_no_safe_place_is_known_is_not_cut(changes):
    assert not can_be_cut(byte_level(**changes).to_str())


def test_no_place_is_found_in_a_text_without_letters_before_spaces():
    for text in ("x" * 1_000, "!? " * 500, "日本。\n" * 300, " " * 500):
        assert list(pieces(text, 10)) == [text]


@pytest.mark.parametrize("fast", [True, False])
def test_a_long_text_among_short_ones_has_the_ids_of_the_whole(fast, monkeypatch):
    if fast:
        pytest.importorskip("fastokens")
    else:
        monkeypatch.setitem(sys.modules, "fastokens", None)
    monkeypatch.setattr("fst_core.encoding._PIECE", 5_000)
    monkeypatch.setattr("fst_core.encoding._AT_ONCE", 20_000)
    rng = random.Random(3)
    texts = ["", hostile(rng, 5), hostile(rng, 90_000), "", hostile(rng, 20_000), "x" * 30_000, ""]
    tokenizer = byte_level()
    with bulk_encoding(None) as bulk:
        ids, offsets = TokenizerJson(tokenizer).encode_batch(texts)
    assert bulk.cuts
    assert bulk.record()["used"].startswith("fastokens" if fast else "tokenizers")
    assert (ids.tolist(), offsets.tolist()) == one_by_one(tokenizer, texts)
