"""The stage `prepare`: exactly what goes into a dataset, and that it is there whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fakes import environment_of

from fst_core import Component, Document, Reader, Tokenizer
from fst_core.artefacts import load_tokenizer, verify
from fst_core.artefacts.publish import locked
from fst_core.chance import uniform
from fst_core.dataset import Dataset
from fst_core.errors import ArtefactError, DocumentError, FstError, UserError
from fst_core.pipeline.pipeline import Part, check_pipeline
from fst_core.pipeline.prepare import plan_prepare
from fst_core.pipeline.stages import run_stages
from fst_core.plugins import Offer, registry

END = "[END_OF_DOCUMENT]"
START_ID, END_ID = 256, 257  # of `bytes`
WORDS = ["the", "cat", "sat", "on", "a", "mat,", "and", "Зоя", "пила", "чай;", "日本", "😀"]

pytestmark = pytest.mark.usefixtures("work")
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork, signals and limits of POSIX")


def pipeline(documents=None, tokenizer="bytes", *, seed=228, **dataset):
    """A pipeline of `delimited` documents; a tokenizer is a name, a table or a class."""
    tables = {
        "run": {"name": "corpus", "seed": seed},
        "documents": {"use": "delimited", **(documents or {"train": "train.txt"})},
        "tokenizer": {"use": tokenizer} if isinstance(tokenizer, str) else tokenizer,
        "dataset": dataset,
    }
    if isinstance(tokenizer, type):
        tables["tokenizer"] = {"use": "bytes"}
        made = check_pipeline("pipeline.toml", tables)
        return dataclasses.replace(made, tokenizer=own("tokenizer", tokenizer))
    return check_pipeline("pipeline.toml", tables)


def own(kind, cls):
    """A part of a pipeline whose component is a class of these tests."""

    class Own(Offer):
        def implementation(self):
            return cls

    component = Component("own", f"own:{cls.__name__}", "A class of the tests.")
    table = {"reader": "documents"}.get(kind, kind)
    return Part(f"[{table}]", Own(kind, component, "own", "fst-own", "1.0"), None)


def prepared(*arguments, **changes):
    return run_stages(pipeline(*arguments, **changes), "prepare", lambda _: None).dataset


def described(directory):
    return json.loads((directory / "description.json").read_bytes())


def produced(directory):
    """The bytes of every file that does not say when it was made."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in files
        if path.name != "fst.json"
    }


def left(root="data/datasets/corpus"):
    """What lies in a directory of datasets, the lock aside."""
    return sorted(path.name for path in Path(root).iterdir() if path.name != ".lock")


# what goes into a dataset, by brute force


def documents_of(data, end=END):
    """The documents in the bytes of a delimited file, and how many empty ones are among them."""
    lines = re.split(r"\r\n|\n|\r", data.decode().removeprefix("\ufeff"))
    if lines[-1] == "":
        lines.pop()
    documents, waiting = [], []
    for line in [*map(str.strip, lines)]:
        if line == end:
            documents.append(waiting)
            waiting = []
        else:
            waiting.append(line)
    documents += [waiting] if waiting else []
    texts = ["\n".join(document) for document in documents]
    return [t for t in texts if t.strip()], sum(not t.strip() for t in texts)


def samples_of(documents, longest, shortest):
    """The kept samples of documents that are lists of ids, one slice after another."""
    slices = [d[at : at + longest] for d in documents for at in range(0, len(d), longest)]
    return [sample for sample in slices if len(sample) >= shortest]


def encoded(text):
    return [START_ID, *text.encode(), END_ID]


def random_file(rng):
    """A delimited file with every trouble there is: its line ends, white space, empty documents."""
    breaks = rng.choice(["\n", "\r\n", "\r", None])
    pieces = []
    for _ in range(rng.randint(2, 25)):
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            words = rng.choices([*WORDS, "", "\ufffd\ufffd", "[DOC_END]", "\u2028", "\x85"], k=6)
            space = rng.choice(["", " ", "\t", "\u3000", "\xa0"])
            pieces.append(space + " ".join(words) + rng.choice(["", " ", "\t\x0b"]))
        pieces.append(rng.choice(["", "  "]) + END + rng.choice(["", "\t"]))
    if rng.random() < 0.5:
        pieces.append("the last document has no delimiter")
    text = "".join(piece + (breaks or rng.choice(["\n", "\r\n", "\r"])) for piece in pieces)
    return rng.choice(["", "\ufeff"]).encode() + text.encode()


@pytest.mark.parametrize("round_", range(25))
def test_a_dataset_is_what_brute_force_says(round_):
    rng = random.Random(round_)
    files = {"train": random_file(rng), "valid": random_file(rng)}
    for split, data in files.items():
        Path(f"{split}.txt").write_bytes(data + f"\n{END}\nwords enough for a sample".encode())
        files[split] = Path(f"{split}.txt").read_bytes()
    longest = rng.choice([2, 3, 7, 16, 64, 1_000])
    shortest = rng.randint(1, min(longest, 20))
    lengths = {"max_sample_length": longest, "min_sample_length": shortest}
    directory = prepared({"train": "train.txt", "valid": "valid.txt"}, **lengths)
    table, empty = described(directory), 0
    for split, data in files.items():
        texts, dropped = documents_of(data)
        empty += dropped
        samples = samples_of(map(encoded, texts), longest, shortest)
        corpus = np.load(directory / split / "corpus.npy", mmap_mode="r")
        starts = np.load(directory / split / "sample_start_positions.npy", mmap_mode="r")
        assert corpus.tolist() == [i for sample in samples for i in sample]
        assert starts.tolist() == [sum(map(len, samples[:n])) for n in range(len(samples))]
        assert (corpus.dtype, starts.dtype) == (np.uint16, np.int64)
        assert isinstance(corpus, np.memmap)
        assert isinstance(starts, np.memmap)
        assert table[f"number_of_{split}_documents"] == len(texts)
        assert table[f"number_of_{split}_samples"] == len(samples)
        assert table[f"number_of_{split}_tokens"] == sum(map(len, samples))
        # An id below 256 is a byte of text, so this is exact where a cut falls inside a character.
        assert table[f"number_of_{split}_bytes"] == sum(i < 256 for s in samples for i in s)
    assert table["number_of_empty_documents"] == empty
    assert verify(directory)


def test_the_description_says_what_it_was_made_from():
    for name in ("a", "b", "v"):
        Path(f"{name}.txt").write_text(f"the document of {name}")
    documents = {"train": ["a.txt", "b.txt"], "valid": ["v.txt"], "end_of_document": "***"}
    directory = prepared(
        documents, root="sets", name="named", max_sample_length=16, min_sample_length=4
    )
    assert directory == Path("sets/named/1")
    assert described(directory) == {
        "documents_train_file": ["a.txt", "b.txt"],
        "documents_valid_file": "v.txt",
        "end_of_document": "***",
        "tokenizer": "bytes",
        "tokenizer_cls_name": "BytesTokenizer",
        "max_sample_length": 16,
        "min_sample_length": 4,
        "datasets_root": "sets",
        "dataset_name": "named",
        "number_of_train_documents": 2,
        "number_of_train_samples": 2,
        "number_of_train_tokens": 32,
        "number_of_train_bytes": 30,
        "number_of_valid_documents": 1,
        "number_of_valid_samples": 1,
        "number_of_valid_tokens": 16,
        "number_of_valid_bytes": 15,
        "number_of_empty_documents": 0,
    }
    assert sorted(p.name for p in directory.iterdir()) == [
        "description.json",
        "fst.json",
        "tokenizer",
        "train",
        "valid",
    ]
    assert sorted(p.name for p in (directory / "train").iterdir()) == [
        "corpus.npy",
        "sample_start_positions.npy",
    ]


def test_without_a_valid_file_the_description_has_none():
    write_documents(30)
    table = described(prepared())
    assert table["documents_train_file"] == "train.txt"
    assert table["documents_valid_file"] is None


# tokenizers


class Pieces(Tokenizer):
    """The longest piece of bytes that fits, whether or not it ends with a character.

    A document is framed as `gpt2` frames it, with a space on each side.
    """

    pieces = tuple(
        [bytes([i]) for i in range(256)]
        + [b" \xd0", b"\xd0\xb8\xd0", b"\x97\xa5", b"\xf0\x9f", b"\x98\x80 ", b"the", b" th", b"  "]
        + ["日本".encode(), "и 日".encode(), b"\xef\xbf", b"\xbd\xef", b"e\n", b". "]
    )
    bos_id, end_id, pad_id = len(pieces), len(pieces) + 1, len(pieces) + 2
    vocab_size = len(pieces) + 3

    def encode(self, text):
        data, ids = text.encode(), []
        while data:
            best = max((p for p in self.pieces if data.startswith(p)), key=len)
            ids.append(self.pieces.index(best))
            data = data[len(best) :]
        return ids

    def encode_documents(self, texts):
        return super().encode_documents([f" {text} " for text in texts])

    def decode(self, ids):
        known = (self.pieces[i] for i in ids if i < len(self.pieces))
        return b"".join(known).decode(errors="replace")

    def save(self, directory):
        (directory / "pieces.json").write_text("{}")

    @classmethod
    def load(cls, directory):
        return cls()


def test_bytes_of_text_are_exact_wherever_a_cut_falls():
    """Also beside real U+FFFD, which a cut character looks like once it is decoded."""
    rng = random.Random(228)
    for round_ in range(12):
        texts = [
            "x" + "".join(rng.choices("the и я 日本😀é\ufffd\ufffd\n.", k=rng.randint(8, 60))) + "x"
            for _ in range(40)
        ]
        Path("train.txt").write_text(f"\n{END}\n".join(texts), "utf-8")
        texts, _ = documents_of(Path("train.txt").read_bytes())
        longest = rng.randint(3, 24)
        shortest = rng.randint(2, longest)
        lengths = {"max_sample_length": longest, "min_sample_length": shortest}
        directory = prepared(
            {"train": "train.txt", "valid": "train.txt"}, Pieces, name=str(round_), **lengths
        )
        expected = 0
        for text in texts:
            ids = [Pieces.bos_id, *Pieces().encode(f" {text} "), Pieces.end_id]
            kept = [i for s in samples_of([ids], longest, shortest) for i in s]
            data = b"".join(Pieces.pieces[i] for i in kept if i < len(Pieces.pieces))
            # The space before the text is none of it, nor is the one behind it if that is kept.
            expected += max(len(data) - 1 - (data == f" {text} ".encode()), 0)
        assert described(directory)["number_of_train_bytes"] == expected


class Lossy(Pieces):
    """Keeps lower case alone."""

    lossy = True

    def encode(self, text):
        return super().encode(text.lower())


def test_bytes_of_a_lossy_tokenizer_are_an_estimate():
    write_documents(60)
    directory = prepared(tokenizer=Lossy, max_sample_length=16, min_sample_length=8)
    total = sum(len(text.encode()) for text in documents_of(Path("train.txt").read_bytes())[0])
    table = described(directory)
    counted = table["number_of_train_bytes"] + table["number_of_valid_bytes"]
    assert 0.7 * total < counted < total


class Large(Pieces):
    """Has ids above 65,535."""

    bos_id, end_id, pad_id = 65_536, 65_537, 65_538
    vocab_size = 65_539


class Largest16(Pieces):
    """Has the largest id that fits 16 bits, and no larger one."""

    bos_id, end_id, pad_id = 65_533, 65_535, 65_534
    vocab_size = 65_536


@pytest.mark.parametrize(("cls", "dtype"), [(Large, "uint32"), (Largest16, "uint16")])
def test_a_larger_vocabulary_has_wider_ids(cls, dtype):
    write_documents(30)
    directory = prepared(tokenizer=cls)
    corpus = np.load(directory / "train/corpus.npy", mmap_mode="r")
    assert corpus.dtype == dtype
    assert corpus.max() == cls.end_id
    assert (corpus == cls.end_id).sum() == described(directory)["number_of_train_documents"]


class Wrong(Pieces):
    """Says that it has fewer ids than it has."""

    bos_id, end_id, pad_id = 65_536, 65_537, 65_538


def test_an_id_beyond_the_vocabulary_is_never_written_as_another():
    write_documents(30)
    with pytest.raises(OverflowError, match="does not fit uint16"):
        prepared(tokenizer=Wrong)
    assert left() == []


def test_a_document_of_gpt2_has_spaces_and_control_ids_around_it():
    """The predecessor's framing: [DOC_START] + ids(" " + text + " ") + [DOC_END]."""
    offer = registry().find("tokenizer", "gpt2")
    if offer.missing():
        pytest.skip(f"needs {offer.missing()}")
    write_documents(40, extra="a text with [DOC_END], [DOC_START] and <|endoftext|> in it")
    documents = {"train": "train.txt", "valid": "train.txt"}
    lengths = {"max_sample_length": 16, "min_sample_length": 6}
    try:
        directory = prepared(documents, "gpt2", **lengths)
    except UserError as error:
        pytest.skip(str(error))
    vocabulary = json.loads((directory / "tokenizer/tokenizer.json").read_bytes())["model"]["vocab"]
    pieces = {number: to_bytes(token) for token, number in vocabulary.items()}
    tokenizer = load_tokenizer(directory, json.loads((directory / "fst.json").read_bytes()))
    texts, _ = documents_of(Path("train.txt").read_bytes())
    expected, text_bytes = [], 0
    for text in texts:
        ids = tokenizer.encode(f" {text} ")
        assert b"".join(pieces[i] for i in ids) == f" {text} ".encode()
        assert max(ids) < 50_256
        samples = samples_of([[50_257, *ids, 50_258]], 16, 6)
        expected += samples
        kept = b"".join(pieces[i] for s in samples for i in s if i < 50_257)
        text_bytes += max(len(kept) - 1 - (kept == f" {text} ".encode()), 0)
    opened = Dataset.open(directory)
    assert [sample.tolist() for sample in opened.train] == expected
    assert opened.train.text_bytes == text_bytes
    assert opened.train.corpus.dtype == np.uint16
    assert described(directory)["tokenizer_cls_name"] == "GPT2Tokenizer"


@cache
def byte_of_character():
    """GPT-2 writes a byte as the character of its code if that is visible, else as one above 255."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in visible)
    return {chr(b): b for b in visible} | {chr(256 + n): b for n, b in enumerate(others)}


def to_bytes(token):
    return bytes(byte_of_character().get(c, 0) for c in token)


# held-out documents


def write_documents(count, extra=""):
    rng = random.Random(228)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(5, 40))) for _ in range(count)]
    Path("train.txt").write_text(f"\n{END}\n".join([*texts, extra]), "utf-8")


def texts_of(samples):
    """The documents in samples that hold each of them whole."""
    return [bytes(i for i in sample if i < 256).decode() for sample in samples]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("seed", [1, 2, 2**62])
def test_documents_are_held_out_by_a_hash_of_seed_and_index(seed, share):
    write_documents(80)
    texts, _ = documents_of(Path("train.txt").read_bytes())
    opened = Dataset.open(prepared(seed=seed, valid_share=share, max_sample_length=4_000))
    chances = [uniform(seed, index) for index in range(len(texts))]
    held = {i for i, chance in enumerate(chances) if chance < share} or {np.argmin(chances)}
    assert texts_of(opened.valid) == [t for i, t in enumerate(texts) if i in held]
    assert texts_of(opened.train) == [t for i, t in enumerate(texts) if i not in held]


def test_of_two_documents_one_is_held_out():
    for seed in range(5):
        Path("train.txt").write_text(f"the first document\n{END}\nthe second document")
        opened = Dataset.open(prepared(seed=seed))
        texts = [*texts_of(opened.train), *texts_of(opened.valid)]
        assert sorted(texts) == ["the first document", "the second document"]


def test_a_single_document_is_cut_at_a_line_end():
    rng = random.Random(228)
    lines = [" ".join(rng.choices(WORDS, k=8)) for _ in range(100)]
    Path("train.txt").write_text("\n".join(lines), "utf-8")
    opened = Dataset.open(prepared(valid_share=0.1, max_sample_length=100_000))
    (train,), (valid,) = texts_of(opened.train), texts_of(opened.valid)
    assert f"{train}\n{valid}".split("\n") == lines
    assert len(valid) / len(train + valid) == pytest.approx(0.1, abs=0.01)


SMALL = {
    "a line": "To be, or not to be, that is the question.",
    "a short last line": "A line of some words\nand another one of them\nand more of it\nend",
    "lines": "\n".join(f"line {n}" for n in range(12)),
    "Japanese": "日本語の文章はスペースを使いません。",
    "documents of a line": f"\n{END}\n".join(["So be it, said he, and went."] * 4),
}
SMALL_FOR_BYTES = {
    "no spaces": "abcdefgh" * 10,
    "blank lines": "one line\n\n\n\nanother line\n\n\n",
    "short documents among others": f"\n{END}\n".join([*"abcdefgh", *["long enough"] * 8]),
}
CASES = [(use, name) for use in ("bytes", "bpe", "gpt2") for name in SMALL]
CASES += [("bytes", name) for name in SMALL_FOR_BYTES]


@pytest.mark.parametrize(("use", "name"), CASES)
def test_one_small_file_works(use, name):
    if registry().find("tokenizer", use).missing():
        pytest.skip("needs tokenizers")
    Path("train.txt").write_text((SMALL | SMALL_FOR_BYTES)[name], "utf-8")
    for seed in range(3):
        opened = Dataset.open(prepared(tokenizer=use, seed=seed))
        for samples in (opened.train, opened.valid):
            assert len(samples) > 0
            assert samples.text_bytes > 0


def test_more_is_held_out_where_a_share_makes_no_sample():
    lines = []
    Path("train.txt").write_text("word " * 20)
    run_stages(pipeline(valid_share=0.01), "prepare", lines.append)
    assert "prepare: holds out 0.08 of the text: less makes no sample" in lines


# same seed, same bytes

AGAIN = """
import sys
from pathlib import Path
from fst_core.pipeline.pipeline import load_pipeline
from fst_core.pipeline.stages import run_stages
run_stages(load_pipeline(Path("pipeline.toml")), "prepare", lambda line: None)
"""


@pytest.mark.parametrize("use", ["bytes", "bpe"])
def test_the_same_seed_gives_the_same_bytes_in_another_process(work, use):
    if registry().find("tokenizer", use).missing():
        pytest.skip("needs tokenizers")
    write_documents(200)
    tokenizer = {"use": use, **({"vocab_size": 400} if use == "bpe" else {})}
    first = produced(prepared(tokenizer=tokenizer))
    assert {name.partition("/")[0] for name in first} == {
        "description.json",
        "tokenizer",
        "train",
        "valid",
    }
    size = "vocab_size = 400\n" if use == "bpe" else ""
    for hash_seed in ("0", "1"):
        elsewhere = work / f"elsewhere-{hash_seed}"
        elsewhere.mkdir()
        (elsewhere / "train.txt").write_bytes(Path("train.txt").read_bytes())
        (elsewhere / "pipeline.toml").write_text(
            '[run]\nname = "corpus"\n[documents]\nuse = "delimited"\ntrain = "train.txt"\n'
            f'[tokenizer]\nuse = "{use}"\n{size}'
        )
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", AGAIN], check=True, cwd=elsewhere, env=environment)
        assert produced(elsewhere / "data/datasets/corpus/1") == first


def test_another_seed_gives_other_bytes():
    write_documents(200)
    first, second = prepared(seed=1), prepared(seed=2)
    assert (first.name, second.name) == ("1", "2")
    assert (first / "train/corpus.npy").read_bytes() != (second / "train/corpus.npy").read_bytes()


def test_documents_in_many_batches_are_the_same_documents(monkeypatch):
    write_documents(100)
    first = produced(prepared())
    monkeypatch.setattr("fst_core.preparation.batches.CHARACTERS", 100)
    assert produced(prepared(root="others"))["train/corpus.npy"] == first["train/corpus.npy"]


# what is there already


def test_an_equal_dataset_is_used_again_and_not_touched():
    write_documents(30)
    first = prepared()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    lines = []
    assert run_stages(pipeline(), "prepare", lines.append).dataset == first
    assert lines == [f"prepare: up to date: {first}"]
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_a_change_makes_the_next_and_leaves_the_old_one():
    write_documents(30)
    first = prepared()
    before = produced(first)
    assert prepared(max_sample_length=32) == first.with_name("2")
    write_documents(31)
    assert prepared() == first.with_name("3")
    assert produced(first) == before
    assert prepared(max_sample_length=32) == first.with_name("4")
    write_documents(30)
    assert prepared() == first


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_sample_length": 32}, "dataset.max_sample_length: 256 -> 32"),
        ({"min_sample_length": 9}, "dataset.min_sample_length: 8 -> 9"),
        ({"valid_share": 0.25}, "dataset.valid_share: 0.05 -> 0.25"),
        ({"seed": 7}, "run.seed: 228 -> 7"),
        (
            {"documents": {"train": "train.txt", "end_of_document": "***"}},
            f"documents.end_of_document: '{END}' -> '***'",
        ),
        ({"tokenizer": Pieces}, "tokenizer.use: 'bytes/bytes' -> 'own/own'"),
    ],
)
def test_what_changed_is_named(changes, reason):
    write_documents(30)
    first = prepared()
    plan = plan_prepare(pipeline(**changes))
    assert (plan.action, plan.directory) == ("make", first.with_name("2"))
    assert plan.reasons == (f"changed since 1: {reason}",)


def test_documents_that_changed_are_named():
    write_documents(30)
    prepared()
    write_documents(31)
    (reason,) = plan_prepare(pipeline()).reasons
    assert re.fullmatch(
        r"changed since 1: documents\.train\.content: [0-9a-f]{12} -> [0-9a-f]{12}", reason
    )


def test_a_damaged_dataset_is_not_used_and_not_removed():
    write_documents(30)
    first = prepared()
    (first / "train/corpus.npy").write_bytes(b"")
    plan = plan_prepare(pipeline())
    assert plan.action == "make"
    assert plan.reasons[0].startswith(f"not used: {first / 'train/corpus.npy'}: 0 bytes long")
    assert prepared() == first.with_name("2")
    assert (first / "train/corpus.npy").read_bytes() == b""


def test_a_manifest_without_a_fingerprint_is_not_used():
    write_documents(30)
    path = prepared() / "fst.json"
    said = json.loads(path.read_bytes())
    del said["fields"]
    path.write_text(json.dumps(said))
    assert plan_prepare(pipeline()).reasons == (
        f"not used: {path.parent}: fst.json does not say fields",
    )


# a dataset that is named


def named(path, **tables):
    made = {"dataset": {"path": str(path), **tables.pop("dataset", {})}, **tables}
    return run_stages(check_pipeline("pipeline.toml", made), "prepare", lambda _: None).dataset


def test_a_named_dataset_is_used_as_it_is():
    write_documents(30)
    made = prepared()
    moved = made.rename("elsewhere")
    Path("train.txt").unlink()
    assert named(moved) == moved
    documents = {"use": "delimited", "train": "train.txt"}
    assert named(moved, documents=documents, tokenizer={"use": "bytes"}) == moved
    assert named(moved, dataset={"max_sample_length": 256}) == moved


def test_a_named_dataset_that_was_made_from_something_else_is_refused():
    write_documents(30)
    made = prepared(max_sample_length=32)
    other = {"use": "delimited", "train": ["other.txt"], "strip_lines": False}
    with pytest.raises(ArtefactError) as raised:
        named(made, documents=other, dataset={"max_sample_length": 64})
    assert str(raised.value).split("\n  ") == [
        f"{made}: made from something else:",
        "dataset.max_sample_length: 32 -> 64",
        "documents.strip_lines: True -> False",
        "documents.train: ['train.txt'] -> ['other.txt']",
    ]
    with pytest.raises(ArtefactError, match=r"tokenizer\.use: 'bytes/bytes' -> 'gpt2/bpe'"):
        named(made, tokenizer={"use": "bpe"})
    with pytest.raises(ArtefactError, match="no such directory"):
        named("nothing")


# what cannot be done


class Broken(Reader):
    """Fails half way."""

    def splits(self):
        return ("train", "valid")

    def read(self, split):
        for number in range(2_000):
            yield Document(text=f"document number {number} of many", source=f"broken:{number}")
            if split == "valid" and number == 1_000:
                raise RuntimeError("the reader is broken")

    def fingerprint(self, split):
        return "same"


def test_a_reader_that_fails_half_way_leaves_nothing(monkeypatch):
    monkeypatch.setattr("fst_core.preparation.batches.CHARACTERS", 1_000)
    made = dataclasses.replace(pipeline(), documents=own("reader", Broken))
    with pytest.raises(RuntimeError, match="the reader is broken"):
        run_stages(made, "prepare", lambda _: None)
    assert left() == []


def test_bytes_that_are_not_text_are_told_with_their_place_and_leave_nothing():
    write_documents(30)
    data = Path("train.txt").read_bytes()
    Path("valid.txt").write_bytes(data + b"\n\xff")
    with pytest.raises(DocumentError, match=rf"valid\.txt: not UTF-8 at byte {len(data) + 1}"):
        prepared({"train": "train.txt", "valid": "valid.txt"})
    assert left() == []


@pytest.mark.parametrize("text", ["", "\n", f"{END}\n  \n{END}\n", "\ufeff"])
def test_an_empty_corpus_is_an_error(text):
    Path("train.txt").write_text(text, "utf-8")
    with pytest.raises(
        UserError, match=r"pipeline\.toml \[documents\]: .* no document to train on"
    ):
        prepared()
    assert left() == []
    write_documents(3)
    Path("valid.txt").write_text(text, "utf-8")
    with pytest.raises(UserError, match="no document to validate on"):
        prepared({"train": "train.txt", "valid": "valid.txt"})


def test_documents_that_are_all_too_short_are_an_error():
    Path("train.txt").write_text(f"\n{END}\n".join("abcde"))
    with pytest.raises(UserError) as raised:
        prepared()
    assert re.fullmatch(
        r"pipeline\.toml \[dataset\]: no document to train on \(of [1-4]\) has "
        r"min_sample_length = 8 ids\. Lower it, or add documents\.",
        str(raised.value),
    )
    assert left() == []


def test_a_missing_file_is_told_before_anything_is_made():
    with pytest.raises(DocumentError, match=r"train\.txt: no such file"):
        prepared()
    assert not Path("data").exists()


def test_another_run_on_the_same_output_is_refused():
    write_documents(30)
    with (
        locked(Path("data/datasets/corpus")),
        pytest.raises(UserError, match=r"another run works on it \(lock .*\.lock\)") as raised,
    ):
        prepared()
    assert raised.value.exit_status == 2
    assert prepared().is_dir()


FULL = (
    """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
"""
    + AGAIN.replace("run_stages(", "try:\n    run_stages(")
    + """
except OSError as error:
    sys.exit(f"refused: {error.strerror}")
"""
)


@posix
def test_a_full_disk_leaves_nothing():
    """Files may have 20,000 bytes here, so that a write fails half way as on a full disk."""
    write_documents(1_000)
    Path("pipeline.toml").write_text(
        '[run]\nname = "corpus"\n[documents]\nuse = "delimited"\ntrain = "train.txt"\n'
        '[tokenizer]\nuse = "bytes"\n'
    )
    command = [sys.executable, "-W", "error", "-c", FULL]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (1, "refused: File too large\n")
    assert left() == []
    assert prepared().name == "1"


def test_the_first_dataset_is_begun_before_the_digest_of_its_documents_is_known(monkeypatch):
    write_documents(300)
    reader = registry().find("reader", "delimited").implementation()
    read, fingerprint, begun = reader.read, reader.fingerprint, threading.Event()

    def tells(self, split):
        begun.set()
        return read(self, split)

    def waits(self, split):
        assert begun.wait(60)
        return fingerprint(self, split)

    monkeypatch.setattr(reader, "read", tells)
    monkeypatch.setattr(reader, "fingerprint", waits)
    directory = prepared()
    assert plan_prepare(pipeline()).action == "reuse"
    fields = json.loads((directory / "fst.json").read_bytes())["fields"]
    assert fields["documents.train.content"] == fingerprint(pipeline().documents.build(), "train")


def test_documents_whose_digest_cannot_be_found_leave_nothing(monkeypatch):
    write_documents(300)
    reader = registry().find("reader", "delimited").implementation()

    def fails(self, split):
        raise DocumentError(f"{split}: gone meanwhile")

    monkeypatch.setattr(reader, "fingerprint", fails)
    with pytest.raises(DocumentError, match="gone meanwhile"):
        prepared()
    assert left() == []


# killed

KILLED = '''
import json, shutil, sys
from pathlib import Path
from killing import kill_everywhere, produced
from fst_core.artefacts import verify
from fst_core.dataset import Dataset
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import plan_prepare, prepare

ROOT = Path("data/datasets/corpus")
pipeline = check_pipeline("pipeline.toml", json.loads(sys.argv[1]))

def make():
    return prepare(pipeline, plan_prepare(pipeline), lambda _: None).directory

def check():
    """What a killed child left is nothing or whole; another run makes it whole, and cleans up."""
    there = (ROOT / "1").exists()
    if there:
        verify(ROOT / "1")
        Dataset.open(ROOT / "1")
    assert make() == ROOT / "1"
    assert produced(ROOT / "1") == expected
    assert there or sorted(p.name for p in ROOT.iterdir()) == [".lock", "1"]
    shutil.rmtree(ROOT)
    return there

expected = produced(make())
shutil.rmtree(ROOT)
kill_everywhere(make, check)
'''


@posix
def test_a_killed_run_leaves_nothing_or_all_and_the_next_one_gives_the_same_bytes():
    write_documents(300)
    tables = {
        "run": {"name": "corpus"},
        "documents": {"use": "delimited", "train": "train.txt"},
        "tokenizer": {"use": "bytes"},
    }
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(tables)],
        env=environment_of(["."]),
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    operations, published, timed = json.loads(done.stdout)
    assert operations > 20  # it was killed at each of them
    assert 0 < published < operations  # before the dataset was there, and after
    assert timed > 0


TWO = """
import json, os, sys
from pathlib import Path
from fst_core.errors import UserError
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import plan_prepare, prepare
pipeline = check_pipeline("pipeline.toml", json.loads(sys.argv[1]))
plan = plan_prepare(pipeline)
plan.depends.settle()  # no child has the thread that looks at the documents
children = []
for _ in range(3):
    pid = os.fork()
    if not pid:
        try:
            prepare(pipeline, plan, lambda _: None)
        except UserError as error:
            sys.stderr.write(f"{error}\\n")
            os._exit(error.exit_status)
        os._exit(0)
    children.append(pid)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]))
"""


@posix
def test_of_runs_at_the_same_time_one_makes_the_dataset():
    write_documents(300)
    for number in range(3):
        tables = {
            "run": {"name": f"corpus{number}"},
            "documents": {"use": "delimited", "train": "train.txt"},
            "tokenizer": {"use": "bytes"},
        }
        done = subprocess.run(
            [sys.executable, "-c", TWO, json.dumps(tables)],
            capture_output=True,
            check=True,
            text=True,
        )
        assert sorted(json.loads(done.stdout)) == [0, 2, 2]
        assert all("another run" in line for line in done.stderr.splitlines())
        assert verify(Path(f"data/datasets/corpus{number}/1"))


# fast, in bounded memory


def text_of(rng, characters):
    words = (rng.choice(WORDS) + rng.choice([" ", " ", " ", "\n"]) for _ in range(characters // 4))
    return "".join(words)


def long_documents(path="train.txt"):
    """A corpus that is worth the fast encoder: short documents, and a long one."""
    rng = random.Random(228)
    texts = [text_of(rng, rng.randint(40, 4_000)) for _ in range(300)]
    texts.insert(100, text_of(rng, 600_000) + "[DOC_END] [DOC_START] [PAD]")
    Path(path).write_text(f"\n{END}\n".join(texts), "utf-8")


def test_the_fast_encoder_gives_the_same_dataset_and_says_so(monkeypatch):
    pytest.importorskip("fastokens")
    long_documents()
    tokenizer = {"use": "bpe", "vocab_size": 400}
    fast = prepared(tokenizer=tokenizer, root="fast")
    monkeypatch.setitem(sys.modules, "fastokens", None)
    lines = []
    slow = run_stages(pipeline(tokenizer=tokenizer, root="slow"), "prepare", lines.append).dataset
    assert "prepare: encoded slowly: fastokens is not installed" in lines
    of_fast, of_slow = ({**produced(d), "description.json": b""} for d in (fast, slow))
    assert of_fast == of_slow
    manifests = [json.loads((d / "fst.json").read_bytes()) for d in (fast, slow)]
    assert manifests[0]["encoder"]["used"].startswith("fastokens ")
    assert manifests[0]["encoder"]["equal_to"].startswith("tokenizers ")
    assert manifests[1]["encoder"]["used"].startswith("tokenizers ")
    assert manifests[0]["fingerprint"] != ""
    assert manifests[0]["counts"] == manifests[1]["counts"]
    ends = np.load(fast / "train/corpus.npy") == manifests[0]["counts"]["vocab_size"] - 2
    valid = np.load(fast / "valid/corpus.npy") == manifests[0]["counts"]["vocab_size"] - 2
    assert ends.sum() + valid.sum() <= 301  # what is written in a text is no end of it


def test_a_fast_encoder_that_differs_late_in_the_corpus_leaves_no_trace(monkeypatch):
    pytest.importorskip("fastokens")
    from fst_core import encoding

    long_documents()
    expected = produced(prepared(tokenizer={"use": "bpe", "vocab_size": 400}))
    right, calls = encoding._encode_fast, 0

    def wrong(fast, texts):
        nonlocal calls
        calls += 1
        ids, offsets = right(fast, texts)
        return ids[::-1] if calls > 3 else ids, offsets

    monkeypatch.setattr(encoding, "_encode_fast", wrong)
    monkeypatch.setattr("fst_core.preparation.batches.CHARACTERS", 2**18)
    lines = []
    made = pipeline(tokenizer={"use": "bpe", "vocab_size": 400}, root="others")
    directory = run_stages(made, "prepare", lines.append).dataset
    assert calls > 3
    assert any("begins again without it" in line for line in lines)
    found = produced(directory)
    assert {**found, "description.json": b""} == {**expected, "description.json": b""}
    assert verify(directory)
    assert "gives other ids" in json.loads((directory / "fst.json").read_bytes())["encoder"]["why"]


def test_a_document_that_is_too_long_to_encode_is_refused_by_name():
    Path("train.txt").write_text(f"short enough\n{END}\n" + "я" * 5_001, "utf-8")
    with pytest.raises(DocumentError, match=r"train\.txt:3: a document of 10,002 bytes"):
        prepared(max_document_bytes=10_000)
    assert left() == []
    Path("train.txt").write_text(f"short enough\n{END}\n" + "я" * 5_000, "utf-8")
    assert prepared(max_document_bytes=10_000).is_dir()


@pytest.mark.parametrize("use", ["bytes", "bpe", "gpt2", "pretrained"])
@pytest.mark.parametrize("meta", [None, "a label " * 10])
def test_a_very_long_document_is_written_in_parts_and_equal(monkeypatch, use, meta):
    if registry().find("tokenizer", use).missing():
        pytest.skip("needs tokenizers")
    tokenizer = {"use": use, **({"vocab_size": 300} if use == "bpe" else {})}
    if use == "pretrained":
        write_documents(30)
        learned = prepared(tokenizer={"use": "bpe", "vocab_size": 300}, name="learned")
        tokenizer["path"] = str(learned / "tokenizer")
    rng = random.Random(228)
    texts = [text_of(rng, 3_000), text_of(rng, 700_000), text_of(rng, 90_000), "short enough"]
    lines = [json.dumps({"text": text, **({"meta": meta} if meta else {})}) for text in texts]
    Path("train.jsonl").write_text("\n".join(lines))
    documents = {"use": "jsonl", "train": "train.jsonl", "valid": "train.jsonl"}
    lengths = {"max_sample_length": 60, "min_sample_length": 20}
    whole = prepared(documents, tokenizer, name="whole", **lengths)
    monkeypatch.setattr("fst_core.preparation.batches.LONG", 20_000)
    monkeypatch.setattr("fst_core.encoding._AT_ONCE", 50_000)
    monkeypatch.setattr("fst_core.encoding._PIECE", 1_000)
    parts = prepared(documents, tokenizer, name="parts", **lengths)
    assert {**produced(parts), "description.json": b""} == {
        **produced(whole),
        "description.json": b"",
    }
    tables = (described(directory) for directory in (parts, whole))
    assert (
        len({tuple(list(table.values())[8:]) for table in tables if table.pop("dataset_name")}) == 1
    )


def test_a_long_document_that_can_be_cut_is_not_refused():
    if registry().find("tokenizer", "bpe").missing():
        pytest.skip("needs tokenizers")
    Path("train.txt").write_text("a word " * 10_000)
    tokenizer = {"use": "bpe", "vocab_size": 300}
    assert prepared(tokenizer=tokenizer, max_document_bytes=10_000).is_dir()


MEMORY = """
import json, re, resource, sys
from pathlib import Path
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import plan_prepare, prepare
pipeline = check_pipeline("pipeline.toml", json.loads(sys.argv[1]))
prepare(pipeline, plan_prepare(pipeline), lambda line: None)
# Not what getrusage says on Linux: it remembers the process that this one was forked from.
status = Path("/proc/self/status")
peak = status.exists() and re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())
print(peak[1] if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@posix
@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus():
    rng = random.Random(1)
    texts = [text_of(rng, 4_000) for _ in range(250)]
    peaks = []
    for times in (10, 60):  # about 15 and 90 MB
        with Path("train.txt").open("w", encoding="utf-8") as file:
            for _ in range(times):
                file.writelines(f"{text}\n{END}\n" for text in texts)
        tables = {
            "run": {"name": f"corpus{times}"},
            "documents": {"use": "delimited", "train": "train.txt"},
            "tokenizer": {"use": "bytes"},
        }
        command = [sys.executable, "-c", MEMORY, json.dumps(tables)]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 30  # MiB


GIANT = (
    """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
"""
    + MEMORY
)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("foreign", [[], ["Зоя"]], ids=["ASCII", "twice as much in memory"])
def test_one_giant_document_takes_less_than_a_gibibyte(foreign):
    if registry().find("tokenizer", "bpe").missing():
        pytest.skip("needs tokenizers")
    rng = random.Random(1)
    words = ["the", "cat", "sat", "on", "a", "mat,", "and", "went;", "Nobody", "knows\n", "why."]
    text = " ".join(rng.choices([*words * 5, *foreign], k=200_000))
    with Path("train.txt").open("w", encoding="utf-8") as file:
        file.writelines(text for _ in range(256_000_000 // len(text.encode())))
    tables = {
        "run": {"name": "corpus"},
        "documents": {"use": "delimited", "train": "train.txt"},
        "tokenizer": {"use": "bpe", "vocab_size": 300, "max_chars": 100_000},
    }
    command = [sys.executable, "-c", GIANT, json.dumps(tables)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert int(done.stdout) < 2**20  # KiB


# progress


def test_progress_is_told_in_lines_where_there_is_no_terminal(monkeypatch):
    from fst_core.preparation.progress import Progress

    monkeypatch.setattr("fst_core.preparation.progress._LINE_EVERY", 0.0)
    lines = []
    with Progress(lines.append, 4_000_000) as progress:
        time.sleep(0.01)
        progress.advance(1_000_000, 300_000)
    said = r"prepare: 1 of 4 MB, [\d.]+ MB/s, 0\.3 million tokens, 0:00 left"
    assert re.fullmatch(said, lines[0])
    lines.clear()
    write_documents(200)
    monkeypatch.setattr("fst_core.preparation.batches.CHARACTERS", 100)
    run_stages(pipeline(), "prepare", lines.append)
    assert sum("MB/s" in line for line in lines) > 5


@posix
def test_a_terminal_gets_a_bar_and_quiet_nothing():
    import pty

    write_documents(3_000)
    Path("pipeline.toml").write_text(
        '[run]\nname = "corpus"\n[documents]\nuse = "delimited"\ntrain = "train.txt"\n'
        '[tokenizer]\nuse = "bytes"\n'
    )
    code = (
        "import fst_core.preparation.batches as p, fst_core.preparation.progress as q\n"
        "p.CHARACTERS, q._BAR_AFTER = 1_000, 0\n"
        "from fst_core.cli import main\nmain()"
    )
    shown = {}
    for option in ("--quiet", None):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-c", code, "prepare", *([option] if option else [])]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
        child = subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env=environment)
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            parts.append(part)
        assert child.stdout.read().strip() == b"data/datasets/corpus/1"
        assert child.wait() == 0
        child.stdout.close()
        os.close(ours)
        shown[option] = b"".join(parts).decode()
        for path in sorted(Path("data").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert shown["--quiet"] == ""
    assert "MB/s" in shown[None]


# disks and signals


def test_a_disk_that_is_too_small_is_told_before_the_work(monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=30_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    write_documents(300)
    with pytest.raises(UserError, match=r"needs about [\d.]+ MB, and 0\.0 MB are free") as raised:
        prepared()
    assert raised.value.exit_status == 2
    assert left() == []


@posix
def test_a_disk_that_gets_full_on_the_way_is_told_at_once_and_nothing_is_left(monkeypatch):
    """A file system of 8 MB in memory, which only root may mount."""
    Path("small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", "small"]
    if shutil.which("mount") is None or subprocess.call(mount):
        pytest.skip("needs the right to mount a file system")
    try:
        write_documents(300)
        kept = prepared(root="small")
        Path("train.txt").write_text(f"\n{END}\n".join(["words of a document " * 100] * 3_000))
        monkeypatch.setattr("fst_core.preparation.preparation.check_space", lambda *_: None)
        begun = time.perf_counter()
        with pytest.raises(
            FstError, match=r"No space left on device: the [\d.]+ MB that are free"
        ) as raised:
            prepared(root="small")
        assert time.perf_counter() - begun < 5
        assert raised.value.exit_status == 1
        assert left("small/corpus") == [kept.name]
        assert verify(kept)
    finally:
        subprocess.run(["umount", "small"], check=True)


@posix
def test_a_signal_ends_the_threads_and_leaves_nothing():
    rng = random.Random(5)
    texts = [text_of(rng, 4_000) for _ in range(250)]
    with Path("train.txt").open("w", encoding="utf-8") as file:
        for _ in range(60):
            file.writelines(f"{text}\n{END}\n" for text in texts)
    Path("pipeline.toml").write_text(
        '[run]\nname = "corpus"\n[documents]\nuse = "delimited"\ntrain = "train.txt"\n'
        '[tokenizer]\nuse = "bytes"\n'
    )
    command = [sys.executable, "-c", "from fst_core.cli import main; main()", "prepare"]
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        partial = Path("data/datasets/corpus/.1.partial/train/corpus.npy")
        deadline = time.monotonic() + 20
        while not (partial.exists() and partial.stat().st_size > 2_000_000):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        child.send_signal(number)
        begun = time.monotonic()
        assert child.wait(timeout=10) == status
        assert time.monotonic() - begun < 3
        assert left() == []


@posix
@pytest.mark.slow
def test_a_run_with_all_its_threads_killed_at_random_moments_leaves_nothing_or_all():
    """Twenty times, with the fast encoder at work."""
    pytest.importorskip("fastokens")
    long_documents()
    Path("train.txt").write_text(
        f"\n{END}\n".join([Path("train.txt").read_text("utf-8")] * 6), "utf-8"
    )
    Path("pipeline.toml").write_text(
        '[run]\nname = "corpus"\n[documents]\nuse = "delimited"\ntrain = "train.txt"\n'
        '[tokenizer]\nuse = "bpe"\nvocab_size = 300\nmax_chars = 100000\n'
    )
    command = [sys.executable, "-c", "from fst_core.cli import main; main()", "prepare", "--quiet"]
    root = Path("data/datasets/corpus")

    def run(wait=None):
        child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            child.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        return child.returncode

    begun = time.perf_counter()
    assert run() == 0
    took = time.perf_counter() - begun
    expected = produced(root / "1")
    rng = random.Random(228)
    killed = 0
    for _ in range(20):
        shutil.rmtree(root)
        killed += run(rng.uniform(0.3, 1) * took) == -signal.SIGKILL
        if (root / "1").exists():
            verify(root / "1")
        else:
            assert run() == 0
        assert left() == ["1"]
        assert produced(root / "1") == expected
    assert killed > 5


def test_how_well_a_learned_vocabulary_compresses_is_told():
    if registry().find("tokenizer", "bpe").missing():
        pytest.skip("needs tokenizers")
    write_documents(300)
    lines = []
    run_stages(pipeline(tokenizer={"use": "bpe", "vocab_size": 400}), "prepare", lines.append)
    assert "prepare: learns a vocabulary in about 25 MB of memory" in lines
    (said,) = [line for line in lines if "bytes a token" in line]
    learned = re.match(r"prepare: learned (\d+) ids: (\d\.\d\d) bytes a token", said)
    assert 259 < int(learned[1]) <= 400
    assert 1.5 < float(learned[2]) < 8
    lines.clear()
    run_stages(pipeline(), "prepare", lines.append)
    assert not any("bytes a token" in line for line in lines)  # `bytes` learns nothing
