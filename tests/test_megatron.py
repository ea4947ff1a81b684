"""Megatron's corpus format: written as its readers expect it, read with care, and back again."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fst_core.artefacts import verify
from fst_core.cli.dataset import command
from fst_core.dataset import Dataset, Samples, cut
from fst_core.dataset.megatron import MegatronCorpus, document_starts, write_megatron
from fst_core.errors import ArtefactError, UserError
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.stages import run_stages

BOS, END = 256, 257


def samples_of(documents, longest, dtype=np.uint16):
    ids = np.array([i for document in documents for i in document], dtype)
    offsets = np.cumsum([0, *map(len, documents)])
    starts, _ = cut(offsets, longest, 1)
    return Samples(ids, starts, text_bytes=0)


def random_documents(rng, bos=BOS, largest=255):
    begin = [] if bos is None else [bos]
    return [
        [*begin, *(rng.randrange(largest) for _ in range(rng.randint(0, 30))), END]
        for _ in range(40)
    ]


def read_by_hand(prefix):
    """The documents of a corpus, by the description of the format alone."""
    index, data = Path(f"{prefix}.idx").read_bytes(), Path(f"{prefix}.bin").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0"
    version, code, sequences, borders = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    letter = {4: "i", 8: "H"}[code]
    lengths = struct.unpack_from(f"<{sequences}i", index, 34)
    pointers = struct.unpack_from(f"<{sequences}q", index, 34 + 4 * sequences)
    documents = struct.unpack_from(f"<{borders}q", index, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * borders
    read = [
        struct.unpack_from(f"<{length}{letter}", data, at)
        for length, at in zip(lengths, pointers, strict=True)
    ]
    return [[i for part in read[first:last] for i in part] for first, last in pairwise(documents)]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("bos", [BOS, None])
def test_a_document_is_a_sequence(tmp_path, dtype, bos):
    rng = random.Random(228)
    for longest in (2, 7, 16, 100):
        documents = random_documents(rng, bos, largest=256 if dtype == np.uint16 else 250)
        samples = samples_of(documents, longest, dtype)
        starts = document_starts(samples, longest, bos, END)
        write_megatron(tmp_path / "corpus.v1", samples, starts)
        assert read_by_hand(tmp_path / "corpus.v1") == documents
        opened = MegatronCorpus.open(tmp_path / "corpus.v1")
        assert [ids.tolist() for ids in opened.read(300)] == documents
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus.v1.bin", "corpus.v1.idx"]


def test_documents_without_an_end_are_still_apart():
    documents = [[BOS, 1, 2, 3], [BOS, 4, 5, 6, END], [BOS, 7]]
    samples = samples_of(documents, 4)
    assert document_starts(samples, 4, BOS, END).tolist() == [0, 1, 3]


def write_index(prefix, ids, lengths, pointers, documents, *, code=8, version=1, tail=b""):
    Path(f"{prefix}.bin").write_bytes(
        np.array(ids, {8: "<u2", 4: "<i4", 1: "u1"}.get(code, "u1")).tobytes()
    )
    Path(f"{prefix}.idx").write_bytes(
        struct.pack("<9sQBQQ", b"MMIDIDX\0\0", version, code, len(lengths), len(documents))
        + np.array(lengths, "<i4").tobytes()
        + np.array(pointers, "<i8").tobytes()
        + np.array(documents, "<i8").tobytes()
        + tail
    )


def test_documents_of_several_sequences_in_any_order_are_read(tmp_path):
    prefix = tmp_path / "corpus"
    write_index(prefix, range(10), [3, 2, 5], [14, 0, 4], [0, 2, 2, 3], tail=b"\1\0\0")
    opened = MegatronCorpus.open(prefix)
    assert len(opened) == 3
    assert [ids.tolist() for ids in opened.read(10)] == [[7, 8, 9, 0, 1], [], [2, 3, 4, 5, 6]]
    with pytest.raises(
        ArtefactError, match="document 0 has ids from 0 to 9, and the tokenizer has 9"
    ):
        list(opened.read(9))
    write_index(prefix, [-1, 3], [2], [0], [0, 1], code=4)
    with pytest.raises(ArtefactError, match="ids from -1 to 3"):
        list(MegatronCorpus.open(prefix).read(9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [3, 8]}, "sequence 1 lies outside"),
        ({"lengths": [-3, 2]}, "sequence 0 lies outside"),
        ({"pointers": [1, 4]}, "sequence 0 lies outside"),
        ({"pointers": [0, -2]}, "sequence 1 lies outside"),
        ({"pointers": [0, 2**62]}, "sequence 1 lies outside"),
        ({"documents": [0, 1]}, "do not follow"),
        ({"documents": [1, 2]}, "do not follow"),
        ({"documents": [0, 2, 1, 2]}, "do not follow"),
        ({"documents": []}, "too few"),
        ({"code": 7}, "dtype 7 is not known"),
        ({"version": 2}, "version 2"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, changes, message):
    said = {"ids": range(10), "lengths": [3, 2], "pointers": [0, 6], "documents": [0, 1, 2]}
    write_index(tmp_path / "corpus", **said)
    assert len(MegatronCorpus.open(tmp_path / "corpus")) == 2
    write_index(tmp_path / "corpus", **{**said, **changes})
    with pytest.raises(ArtefactError, match=message):
        MegatronCorpus.open(tmp_path / "corpus")


def test_an_index_that_is_cut_is_refused(tmp_path):
    write_index(tmp_path / "corpus", range(10), [3, 2], [0, 6], [0, 1, 2])
    whole = (tmp_path / "corpus.idx").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "corpus.idx").write_bytes(whole[:size])
        with pytest.raises(ArtefactError, match=r"corpus\.idx"):
            MegatronCorpus.open(tmp_path / "corpus")
    (tmp_path / "corpus.bin").unlink()
    with pytest.raises(ArtefactError, match=r"corpus\.bin: No such file"):
        MegatronCorpus.open(tmp_path / "corpus")


# the commands


def said(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False).stdout


@pytest.mark.usefixtures("work")
def test_a_dataset_goes_out_and_comes_back_the_same():
    rng = random.Random(228)
    texts = [
        " ".join(rng.choices(["the", "cat", "Зоя", "日本"], k=rng.randint(3, 60)))
        for _ in range(80)
    ]
    Path("train.txt").write_text("\n[END_OF_DOCUMENT]\n".join(texts), "utf-8")
    tables = {
        "documents": {"use": "delimited", "train": "train.txt"},
        "tokenizer": {"use": "bytes"},
        "dataset": {"max_sample_length": 64, "min_sample_length": 1},
    }
    made = run_stages(check_pipeline("pipeline.toml", tables), "prepare", lambda _: None).dataset
    out = said("export", made, "corpus")
    documents = Dataset.open(made).manifest["counts"]["number_of_train_documents"]
    assert out.startswith(f"corpus_train: {documents} documents of ")
    options = ("--max-sample-length", 64, "--min-sample-length", 1)
    files = ("--train", "corpus_train", "--valid", "corpus_valid", "--tokenizer", made)
    assert said("import", "sets/1", *files, *options).strip() == "sets/1"
    assert verify(Path("sets/1"))
    before, after = Dataset.open(made), Dataset.open(Path("sets/1"))
    for split in ("train", "valid"):
        for name in ("corpus.npy", "sample_start_positions.npy"):
            assert (made / split / name).read_bytes() == (
                after.directory / split / name
            ).read_bytes()
    for name, count in before.manifest["counts"].items():
        assert after.manifest["counts"].get(name, 0) == count
    tables = {"dataset": {"path": "sets/1"}}
    used = run_stages(check_pipeline("pipeline.toml", tables), "prepare", lambda _: None)
    assert used.dataset == Path("sets/1")
    with pytest.raises(UserError, match="exists"):
        said("import", "sets/1", *files)


@pytest.mark.usefixtures("work")
def test_a_share_is_held_out_where_there_is_nothing_to_validate_on():
    documents = [[BOS, *b"a document of some words", END]] * 30
    samples = samples_of(documents, 100)
    write_megatron(Path("corpus"), samples, document_starts(samples, 100, BOS, END))
    Path("train.txt").write_text("words for a tokenizer\n[END_OF_DOCUMENT]\nand others of them")
    tables = {
        "documents": {"use": "delimited", "train": "train.txt"},
        "tokenizer": {"use": "bytes"},
    }
    made = run_stages(check_pipeline("pipeline.toml", tables), "prepare", lambda _: None).dataset
    said("import", "sets/1", "--train", "corpus", "--tokenizer", made, "--valid-share", 0.3)
    opened = Dataset.open(Path("sets/1"))
    assert len(opened.train) + len(opened.valid) == 30
    assert 3 < len(opened.valid) < 20
    assert opened.valid.text_bytes == 24 * len(opened.valid)
    with pytest.raises(ArtefactError, match=r"other\.bin|other\.idx"):
        said("import", "sets/2", "--train", "other", "--tokenizer", made)
    assert not Path("sets/2").exists()
