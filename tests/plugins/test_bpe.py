"""The tokenizer `bpe`: what it learns, what a subclass can make of it, and the file it is kept in."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from fst_gpt2 import BpeTokenizer
from pydantic import ValidationError
from tokenizers import Tokenizer as Pipeline
from transformers import AutoTokenizer

from fst_core.errors import ArtefactError, DocumentError
from fst_core.generation import Detokenizer
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import TokenizerContract
from fst_core.tokenizer_json import TokenizerJson

DOCUMENTS = (
    "The cat sat on the mat. The cat sat on the hat.",
    "Кот сидел на ковре, и кот смотрел на кота.",
    "😀 the cat 😀 the mat 😀",
    "In 1234 there were 12 cats; in 1235 there were 13.",
) * 5
TEXTS = (
    *DOCUMENTS[:4],
    "",
    " ",
    "\n",
    " the ",
    "Привет 👩\u200d👩\u200d👧 мир",
    "[DOC_END] [PAD]",
    "日本語",
)
CONTROL = ("[DOC_START]", "[DOC_END]", "[PAD]")


def tokenizer(texts=None, **settings):
    offer = registry().find("tokenizer", "bpe")
    built = offer.build(validate(offer.settings_class(), settings))
    if texts is not None:
        built.fit(iter(texts))
    return built


@pytest.fixture(scope="module")
def bpe():
    return tokenizer(DOCUMENTS, vocab_size=320)


@pytest.fixture
def saved(bpe, tmp_path):
    directory = tmp_path / "saved"
    directory.mkdir()
    bpe.save(directory)
    return directory


class TestBpe(TokenizerContract):
    use = "bpe"
    settings = {"vocab_size": 400}
    control_tokens = CONTROL


class TestBpeOfBytes(TokenizerContract):
    use = "bpe"
    settings = {"vocab_size": 259}


# what it learns


def test_control_ids_follow_all_others(bpe):
    assert bpe.vocab_size == 320
    assert (bpe.bos_id, bpe.end_id, bpe.pad_id) == (317, 318, 319)


def test_what_stands_together_often_is_one_id(bpe):
    assert len(bpe.encode(" cat")) == 1
    assert len(bpe.encode(" кот")) == 1
    assert len(bpe.encode("xyz")) == 3
    assert tokenizer(DOCUMENTS, min_frequency=21).encode(" cat") != bpe.encode(" cat")


def test_words_numbers_and_punctuation_are_never_joined():
    fitted = tokenizer(["ab, ab,12 ab,12"] * 50)
    assert [fitted.decode([i]) for i in fitted.encode("ab,12 ab,")] == ["ab", ",", "12", " ab", ","]


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["", "b"]])
def test_documents_that_repeat_nothing_leave_a_vocabulary_of_bytes(texts, tmp_path):
    fitted = tokenizer(texts)
    assert fitted.vocab_size == 259
    assert fitted.end_id == 257
    assert fitted.decode(fitted.encode("Привет 😀")) == "Привет 😀"
    fitted.save(tmp_path)
    assert BpeTokenizer.load(tmp_path).vocab_size == 259


def test_a_small_corpus_gives_a_smaller_vocabulary(tmp_path):
    fitted = tokenizer(DOCUMENTS, vocab_size=8192)
    assert 320 < fitted.vocab_size < 1000
    ids, _ = fitted.encode_documents(TEXTS)
    assert ids.max() == fitted.end_id == fitted.vocab_size - 2
    assert set(range(fitted.vocab_size - 3)) >= set(ids.tolist()) - {fitted.bos_id, fitted.end_id}


def test_it_has_bytes_until_it_is_fitted():
    unfitted = tokenizer()
    assert unfitted.vocab_size == 259
    assert len(unfitted.encode("Привет")) == 12


def test_fitting_again_starts_anew(bpe):
    again = tokenizer(["ничего общего"] * 9, vocab_size=320)
    again.fit(DOCUMENTS)
    assert again.encode(DOCUMENTS[0]) == bpe.encode(DOCUMENTS[0])
    assert again.vocab_size == bpe.vocab_size


def test_it_learns_from_a_sample_of_the_budget_spread_over_the_documents():
    texts = [f"{chr(0x4E00 + number)}" * 60 for number in range(200)]
    fitted = tokenizer(texts, max_chars=3_000, vocab_size=2_000)
    learned = [n for n, text in enumerate(texts) if len(fitted.encode(text)) < 60]
    assert len(learned) == 50
    assert min(learned) < 20
    assert max(learned) > 180
    assert tokenizer(texts, max_chars=3_000, vocab_size=2_000).encode(texts[0]) == fitted.encode(
        texts[0]
    )
    everything = tokenizer(texts, max_chars=12_000, vocab_size=2_000)
    assert all(len(everything.encode(text)) < 60 for text in texts)


def test_no_document_gives_more_than_its_share():
    cut = tokenizer(["a" * 60 + "b" * 60], max_chars=60)
    assert len(cut.encode("a" * 16)) < 16
    assert len(cut.encode("b" * 16)) == 16
    long = "ab " * 40_000 + "xyz " * 5_000
    capped = tokenizer([long, "cd " * 50], max_chars=1_000_000)
    assert len(capped.encode(" ab")) == 1
    assert len(capped.encode(" cd")) == 1
    assert len(capped.encode(" xyz")) > 1  # it stands behind the first 100,000 characters


def test_an_error_of_the_documents_is_raised_as_it_is():
    def documents():
        yield "a"
        raise DocumentError("a.txt:2: not UTF-8")

    with pytest.raises(DocumentError, match=r"^a\.txt:2: not UTF-8$"):
        tokenizer().fit(documents())


@pytest.mark.parametrize(
    "settings", [{"vocab_size": 258}, {"vocab_size": 10**12}, {"max_chars": 0}]
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValidationError):
        tokenizer(**settings)


def test_processes_with_other_threads_learn_the_same_bytes(tmp_path):
    code = (
        "import random, sys, pathlib, fst_gpt2\n"
        "random.seed(1); words = [''.join(random.choices('abcdeжя', k=3)) for _ in range(200)]\n"
        "texts = [' '.join(random.choices(words, k=50)) for _ in range(400)]\n"
        "bpe = fst_gpt2.BpeTokenizer(); bpe.fit(iter(texts)); bpe.save(pathlib.Path(sys.argv[1]))\n"
    )
    contents = []
    for threads in "1", "2", "5":
        directory = tmp_path / threads
        directory.mkdir()
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", code, str(directory)], check=True, env=environment)
        contents.append({path.name: path.read_bytes() for path in directory.iterdir()})
    assert contents[0] == contents[1] == contents[2]
    assert set(contents[0]) == {"tokenizer.json", "tokenizer_config.json"}


# what a text becomes


def test_a_document_has_one_space_on_each_side(bpe):
    ids, offsets = bpe.encode_documents(["the cat", "[DOC_END]"])
    assert ids[: offsets[1]].tolist() == [317, *bpe.encode(" the cat "), 318]
    assert ids[offsets[1] :].tolist() == [317, *bpe.encode(" [DOC_END] "), 318]
    assert bpe.encode_prompt("the cat") == [317, *bpe.encode(" the cat")]
    assert bpe.encode_prompt("") == [317]
    assert bpe.decode(bpe.encode("the cat")) == "the cat"


def test_transformers_gives_the_same_prompts_and_texts(bpe, saved):
    theirs = AutoTokenizer.from_pretrained(str(saved))
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (317, 318, 319)
    for text in (*TEXTS, *CONTROL, "a [DOC_END] b"):
        assert theirs(text)["input_ids"] == bpe.encode_prompt(text)
        ids = [i for text in TEXTS for i in bpe.encode(text)]
        assert theirs.decode(ids, skip_special_tokens=True) == bpe.decode(ids)


def test_text_that_is_streamed_is_the_whole_text(bpe):
    for text in TEXTS:
        detokenizer = Detokenizer(bpe, bpe.encode_prompt("кот 😀"))
        pieces = [detokenizer.push([i]) for i in [*bpe.encode(text), bpe.end_id]]
        assert "".join([*pieces, detokenizer.finish()]) == text
        assert not any("\ufffd" in piece for piece in pieces)


# what a subclass can make of it


class Marked(BpeTokenizer):
    """Writes capitals as a mark and a small letter, without loss."""

    def normalize(self, text):
        return re.sub(r"[A-Z\u0410-\u042f^]", lambda m: "^" + m[0].lower(), text)

    def restore(self, text):
        return re.sub(r"\^(.)", lambda m: m[1].upper(), text)


@pytest.fixture
def marked():
    fitted = Marked()
    fitted.fit(iter(DOCUMENTS))
    return fitted


def test_a_subclass_normalizes_whatever_is_encoded(marked, tmp_path):
    marked.save(tmp_path)
    plain = BpeTokenizer.load(tmp_path)
    for text in TEXTS:
        normal = marked.normalize(text)
        assert marked.encode(text) == plain.encode(normal)
        assert marked.encode_prompt(text) == plain.encode_prompt(normal)
    normals = [marked.normalize(text) for text in TEXTS]
    for encoded in ("encode_batch", "encode_documents"):
        ids, offsets = getattr(marked, encoded)(TEXTS)
        expected_ids, expected_offsets = getattr(plain, encoded)(normals)
        assert ids.tolist() == expected_ids.tolist()
        assert offsets.tolist() == expected_offsets.tolist()


def test_a_subclass_learns_from_normalized_text(marked):
    assert not any("T" in marked._file.token(i) for i in range(256, marked.vocab_size - 3))
    assert len(marked.encode("The")) == 2


def test_a_subclass_restores_whatever_is_decoded(marked, tmp_path):
    marked.save(tmp_path)
    for each in (marked, Marked.load(tmp_path)):
        for text in TEXTS:
            assert each.decode(each.encode(text)) == text
            assert each.decode(each.encode_documents([text])[0].tolist()) == f" {text} "


def test_a_subclass_may_leave_nothing_of_a_text():
    class Silent(BpeTokenizer):
        lossy = True

        def normalize(self, text):
            return ""

    silent = Silent()
    assert silent.encode_prompt("anything") == [silent.bos_id]
    assert silent.encode_batch(["a", "b"])[1].tolist() == [0, 0, 0]


# the file


def test_a_copy_for_another_process_keeps_the_rules(bpe):
    for other in (pickle.loads(pickle.dumps(bpe)), copy.deepcopy(bpe)):
        assert other.encode("[DOC_END]") == bpe.encode("[DOC_END]")
        assert other.end_id not in other.encode("[DOC_END]")
        assert other.vocab_size == bpe.vocab_size


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_encodes_alike_and_in_silence():
    code = (
        "import os, sys, fst_gpt2\n"
        "bpe = fst_gpt2.BpeTokenizer()\n"
        "texts = ['a text'] * 1000\n"
        "before = bpe.encode_batch(texts)[0].tolist()\n"
        "child = os.fork()\n"
        "if not child: os._exit(bpe.encode_batch(texts)[0].tolist() != before)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""


def test_what_another_use_set_in_the_file_is_left_out(saved):
    path = saved / "tokenizer.json"
    pipeline = Pipeline.from_file(str(path))
    plain = TokenizerJson.read(path)
    pipeline.enable_truncation(3)
    pipeline.enable_padding(length=20)
    pipeline.model.dropout = 0.5
    pipeline.save(str(path))
    assert TokenizerJson.read(path).encode(DOCUMENTS[0]) == plain.encode(DOCUMENTS[0])
    ids, offsets = TokenizerJson.read(path).encode_batch(DOCUMENTS)
    expected_ids, expected_offsets = plain.encode_batch(DOCUMENTS)
    assert np.array_equal(ids, expected_ids)
    assert np.array_equal(offsets, expected_offsets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields["added_tokens"].pop(), "does not end with the control tokens"),
        (lambda fields: fields.update(normalizer=None), "does not put ' ' before a text"),
        (
            lambda fields: fields["normalizer"].update(prepend="_"),
            "does not put ' ' before a text",
        ),
        (lambda fields: fields.update(model={"type": "Magic"}), "not a tokenizer.json: "),
        (lambda fields: fields.pop("model"), "not a tokenizer.json: "),
        (lambda fields: fields["model"]["merges"].append(["x y", "z"]), "not a tokenizer.json: "),
    ],
)
def test_a_file_that_is_not_its_own_is_refused_in_one_line(saved, change, message):
    path = saved / "tokenizer.json"
    fields = json.loads(path.read_text("utf-8"))
    change(fields)
    path.write_text(json.dumps(fields))
    assert_refused(saved, f"{path}: {message}")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"PK\3\4"])
def test_a_damaged_file_is_refused_in_one_line(saved, content):
    path = saved / "tokenizer.json"
    path.write_bytes(content)
    assert_refused(saved, f"{path}: not a tokenizer.json: ")


def test_a_missing_or_huge_file_is_refused_in_one_line(saved):
    path = saved / "tokenizer.json"
    with path.open("r+b") as file:
        file.truncate(64 * 2**20 + 1)  # a hole: it takes no room
    assert_refused(saved, f"{path}: larger than 64 MiB")
    path.unlink()
    assert_refused(saved, f"{path}: no such file")
    path.mkdir()
    assert_refused(saved, f"{path}: no such file")


def assert_refused(directory, beginning):
    with pytest.raises(ArtefactError) as raised:
        BpeTokenizer.load(directory)
    assert str(raised.value).startswith(beginning)
    assert "\n" not in str(raised.value)
