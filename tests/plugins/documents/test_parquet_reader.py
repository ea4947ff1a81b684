"""The reader `parquet`: a document a row, read row group by row group."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from document_files import reader
from pyarrow import parquet

from fst_core import Document, Message
from fst_core.errors import DocumentError
from fst_core.testing import ReaderContract


def read(**settings):
    return list(reader("parquet", **settings).read("train"))


def write(path, schema=None, **columns):
    parquet.write_table(pa.table(columns, schema=schema), path, row_group_size=100)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestParquet(ReaderContract):
    use = "parquet"
    settings = {"train": "data", "valid": "v.parquet"}

    def write(self, folder):
        (folder / "data").mkdir()
        write(folder / "data/b.parquet", text=["two", " ", "three"])
        write(folder / "data/a.parquet", text=["one"])
        write(folder / "v.parquet", text=["four"])

    def change(self, folder):
        write(folder / "data/a.parquet", text=["changed"])


def test_a_row_is_a_document_whatever_the_row_groups(folder):
    texts = [f"text {n}\n  Ё 😀" if n % 7 else "" for n in range(1_234)]
    write(folder / "a.parquet", text=texts, number=list(range(1_234)))
    built = reader("parquet", train="a.parquet")
    documents = list(built.read("train"))
    assert [d.text for d in documents] == [text for text in texts if text]
    assert documents[7].source == "a.parquet:10"
    assert built.report().dropped == {"empty documents": 177}


def test_memory_does_not_grow_with_the_file(folder):
    rng = random.Random(228)
    schema = pa.schema([("text", pa.string())])
    with parquet.ParquetWriter(folder / "a.parquet", schema) as file:
        for _ in range(20):
            texts = [rng.randbytes(1_000).hex() for _ in range(500)]
            file.write_table(pa.table({"text": texts}, schema))
    assert (folder / "a.parquet").stat().st_size > 10e6
    before = pa.total_allocated_bytes()
    documents = reader("parquet", train="a.parquet").read("train")
    assert max(pa.total_allocated_bytes() - before for _ in documents) < 6e6


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_text_of_any_kind_is_read(folder, kind):
    write(folder / "a.parquet", body=pa.array(["a", None, "b", "a"], kind))
    built = reader("parquet", train="a.parquet", text_field="body")
    assert [d.text for d in built.read("train")] == ["a", "b", "a"]
    assert built.report().dropped == {"empty documents": 1}


def test_conversations_and_labels_are_read(folder):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    write(
        folder / "a.parquet",
        text=[None, "a text", None],
        messages=[turns, None, None],
        meta=["chat", None, "x"],
    )
    assert read(train="a.parquet") == [
        Document(
            messages=(Message("user", "Hi"), Message("assistant", "Ho")),
            meta="chat",
            source="a.parquet:1",
        ),
        Document(text="a text", source="a.parquet:2"),
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"body": ["a"], "n": [1]},
            "a.parquet: neither of the columns 'text' and 'messages' among body, n; set text_field",
        ),
        ({"text": [1]}, "a.parquet: the column 'text' holds int64, not text"),
        ({"text": ["a"], "meta": [1.5]}, "a.parquet: the column 'meta' holds double, not text"),
        (
            {"messages": [[{"role": "robot", "content": "a"}]]},
            "a.parquet:1: 'messages[0].role' is 'robot', not one of",
        ),
        ({"text": ["a"], "messages": [[{"role": "user", "content": "a"}]]}, "a.parquet:1: both of"),
    ],
)
def test_what_is_not_there_is_told_by_name(folder, columns, message):
    write(folder / "a.parquet", **columns)
    with pytest.raises(DocumentError) as raised:
        read(train="a.parquet")
    assert str(raised.value).startswith(message)


def test_broken_files_are_told_and_may_be_left_out(folder):
    write(folder / "a.parquet", text=["first"])
    write(folder / "b.parquet", text=[f"text {n}" * 50 for n in range(1_000)])
    data = (folder / "b.parquet").read_bytes()
    middle = len(data) // 2
    broken = {
        "b.parquet": data[:middle] + bytes(1000) + data[middle + 1000 :],
        "c.parquet": data[:middle],
        "d.parquet": b"",
        "e.parquet": b"not a table",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
        with pytest.raises(DocumentError, match=rf"^{name}: damaged, or not a Parquet file: "):
            read(train=name)
    built = reader("parquet", train="*.parquet", on_error="skip")
    documents = list(built.read("train"))
    assert documents[0].text == "first"
    assert {d.source.partition(":")[0] for d in documents} <= {"a.parquet", "b.parquet"}
    report = built.report()
    assert report.dropped == {"broken files": 4}
    assert [problem[:9] for problem in report.problems] == list(broken)


def test_text_that_is_not_utf8_is_told(folder):
    column = pa.array([b"fine", b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    write(folder / "a.parquet", text=column)
    with pytest.raises(DocumentError, match=r"^a\.parquet: damaged, .*UnicodeDecodeError"):
        read(train="a.parquet")
