"""The tokenizer `bytes`, and that it is as simple as it looks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fst_core.errors import ArtefactError
from fst_core.plugins import registry
from fst_core.testing import TokenizerContract


class TestBytes(TokenizerContract):
    use = "bytes"
    control_tokens = ("[DOC_START]", "[DOC_END]", "[PAD]")


@pytest.fixture
def tokenizer():
    return registry().find("tokenizer", "bytes").build(None)


def test_ids_are_bytes_and_control_ids_follow_them(tokenizer):
    assert tokenizer.encode("aé\0") == [97, 0xC3, 0xA9, 0]
    assert (tokenizer.bos_id, tokenizer.end_id, tokenizer.pad_id) == (256, 257, 258)
    assert tokenizer.vocab_size == 259


def test_a_document_and_its_prompt(tokenizer):
    ids, offsets = tokenizer.encode_documents(["ab", "", "c"])
    assert ids.tolist() == [256, 97, 98, 257, 256, 257, 256, 99, 257]
    assert offsets.tolist() == [0, 4, 6, 9]
    assert tokenizer.encode_prompt("ab") == [256, 97, 98]


def test_what_is_not_utf8_decodes_to_replacement_characters(tokenizer):
    assert tokenizer.decode([97, 0xC3]) == "a\ufffd"
    assert tokenizer.decode([0xA9, 97, 0xFF, 98]) == "\ufffda\ufffdb"
    assert tokenizer.decode([256, 0xF0, 0x9F, 0x98, 0x80, 257, 258]) == "😀"


def test_a_batch_takes_no_object_a_byte(tokenizer):
    texts = ["A document of some length. " * 400] * 100
    total = sum(map(len, texts))
    tracemalloc.start()
    try:
        ids, _ = tokenizer.encode_batch(texts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(ids) == total
    assert peak < 7 * total  # 4 are the ids, 2 the encoded texts; a list takes 8 by itself


def test_ids_of_a_batch_can_be_written_to(tokenizer):
    ids, _ = tokenizer.encode_batch(["abc"])
    ids[0] = np.uint32(98)
    assert ids.tolist() == [98, 98, 99]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"control_tokens": {"[DOC_END]": 1}}'])
def test_a_file_of_something_else_is_refused_by_its_name(tokenizer, tmp_path, content):
    (tmp_path / "bytes.json").write_text(content)
    with pytest.raises(ArtefactError, match=r"bytes\.json"):
        type(tokenizer).load(tmp_path)
