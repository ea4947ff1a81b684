"""The reader `folder`: files of mixed kinds, each by the reader that knows its suffix."""

from __future__ import annotations

import gzip
import json
import os
import sys

import pyarrow as pa
import pytest
from document_files import reader
from pyarrow import parquet

from fst_core.errors import (
    AmbiguousComponent,
    DocumentError,
    MissingDependency,
    SettingsError,
    UnknownComponent,
)
from fst_core.plugins import registry
from fst_core.testing import ReaderContract


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(folder):
    (folder / "deep").mkdir(parents=True)
    (folder / "b.md").write_text("from Markdown")
    (folder / "a.TXT").write_text("from text")
    (folder / "deep/page.html").write_text("<p>from HTML")
    (folder / "deep/lines.jsonl.gz").write_bytes(gzip.compress(b'{"text": "from lines"}', mtime=0))
    parquet.write_table(pa.table({"text": ["from a row", ""]}), folder / "z.parquet")
    (folder / "c.rtf").write_text(r"{\rtf1 from RTF}")


ALL = ["from text", "from Markdown", "from RTF", "from lines", "from HTML", "from a row"]


class TestFolder(ReaderContract):
    use = "folder"
    settings = {"train": "mixed", "valid": "held.txt"}

    def write(self, folder):
        fill(folder / "mixed")
        (folder / "held.txt").write_text("held")

    def change(self, folder):
        (folder / "mixed/a.TXT").write_text("changed")


def test_each_file_is_read_by_the_reader_of_its_suffix_in_sorted_order(folder):
    fill(folder / "mixed")
    built = reader("folder", train="mixed")
    documents = list(built.read("train"))
    assert [d.text for d in documents] == ALL
    assert [d.source for d in documents] == [
        "mixed/a.TXT:1",
        "mixed/b.md:1",
        "mixed/c.rtf",
        "mixed/deep/lines.jsonl.gz:1",
        "mixed/deep/page.html:1",
        "mixed/z.parquet:1",
    ]
    assert built.report().dropped == {"empty documents": 1}


def test_the_order_is_not_that_of_the_file_system(folder, monkeypatch):
    fill(folder / "mixed")
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

    first = reader("folder", train="mixed").fingerprint("train")
    monkeypatch.setattr(os, "scandir", Reversed)
    assert [d.text for d in reader("folder", train="mixed").read("train")] == ALL
    assert reader("folder", train="mixed").fingerprint("train") == first


def test_files_of_unknown_kinds_are_told_and_counted(folder):
    fill(folder / "mixed")
    (folder / "mixed/picture.jpg").write_bytes(b"\xff\xd8")
    (folder / "mixed/README").write_text("no suffix")
    (folder / "mixed/.hidden.xyz").write_text("hidden")
    built = reader("folder", train="mixed")
    assert len(list(built.read("train"))) == len(ALL)
    report = built.report()
    assert report.dropped["files of unknown kinds"] == 2
    assert report.problems == (
        "mixed/README: no reader knows its suffix; name one in `suffixes`",
        "mixed/picture.jpg: no reader knows its suffix; name one in `suffixes`",
    )
    built = reader("folder", train="mixed", suffixes={"README": "text"})
    assert next(built.read("train")).text == "no suffix"


def test_broken_files_stop_or_are_left_out(folder):
    fill(folder / "mixed")
    (folder / "mixed/bad.pdf").write_bytes(b"no PDF")
    (folder / "mixed/bad.txt").write_bytes(b"\xff\xfe\xff")
    (folder / "mixed/bad.jsonl").write_text("{\n" + json.dumps({"text": "good line"}))
    with pytest.raises(DocumentError, match=r"^mixed/bad\.jsonl:1: not JSON"):
        list(reader("folder", train="mixed").read("train"))
    built = reader("folder", train="mixed", on_error="skip")
    assert "good line" in [d.text for d in built.read("train")]
    assert built.report().dropped == {"broken files": 2, "broken lines": 1, "empty documents": 1}
    assert [p.partition(":")[0] for p in built.report().problems] == [
        "mixed/bad.jsonl",
        "mixed/bad.pdf",
        "mixed/bad.txt",
    ]


def test_settings_for_all_files_reach_the_readers_that_know_them(folder):
    fill(folder / "mixed")
    text = "Ёжик в тумане пил чай и смотрел на звёзды."
    (folder / "mixed/a.TXT").write_bytes(text.encode("cp1251"))
    assert next(reader("folder", train="mixed", encoding="cp1251").read("train")).text == text
    built = reader("folder", train="mixed", encoding="auto")
    assert next(built.read("train")).text == text
    list(built.read("train"))
    assert built.report().encodings["mixed/a.TXT"] == "cp1251"
    built = reader("folder", train="mixed", encoding_errors="skip")
    list(built.read("train"))
    assert built.report().dropped["undecodable places"] == len(text.split())


def test_settings_of_single_readers_are_checked_and_used(folder):
    (folder / "a.parquet").parent.mkdir(exist_ok=True)
    parquet.write_table(pa.table({"body": ["a row"]}), folder / "a.parquet")
    (folder / "a.txt").write_text("a text")
    readers = {"parquet": {"text_field": "body"}, "files/text": {"encoding": "utf-8"}}
    built = reader("folder", train=["a.parquet", "a.txt"], readers=readers)
    assert [d.text for d in built.read("train")] == ["a row", "a text"]
    with pytest.raises(SettingsError, match=r"text_feld: unknown key\. Did you mean 'text_field'"):
        reader("folder", train="a.parquet", readers={"parquet": {"text_feld": "body"}})
    with pytest.raises(UnknownComponent, match="Did you mean 'parquet'"):
        reader("folder", train="a.parquet", readers={"parqet": {}})
    with pytest.raises(UnknownComponent, match="Did you mean 'text'"):
        reader("folder", train="a.parquet", suffixes={".rst": "txt"})


def test_chats_are_read_when_their_names_are_said(folder):
    (folder / "bob").mkdir()
    (folder / "bob/_chat.txt").write_text("31.12.20, 10:00 - Bob: hi\n31.12.20, 10:01 - Ann: ho\n")
    (folder / "a.txt").write_text("a text")
    settings = {"suffixes": {"_chat.txt": "whatsapp"}, "readers": {"whatsapp": {"me": "Ann"}}}
    built = reader("folder", train=["a.txt", "bob"], **settings)
    first, second = built.read("train")
    assert first.text == "a text"
    assert [m.content for m in second.messages] == ["hi", "ho"]


def test_the_longest_suffix_that_fits_wins(folder):
    (folder / "a.fb2.zip").write_bytes(b"no archive")
    (folder / "b.zip").write_bytes(b"no archive")
    built = reader("folder", train=["a.fb2.zip", "b.zip"], on_error="skip")
    assert list(built.read("train")) == []
    assert built.report().dropped == {"broken files": 1, "files of unknown kinds": 1}


# other plugins

HOOKS = """
from fst_core import Component, hookimpl

@hookimpl
def fst_readers():
    yield Component("poems", "fst_poems.poems:PoemReader", "Poems.", "fst_poems.poems:PoemSettings",
                    needs={needs}, suffixes=({suffix!r},))
"""
POEMS = """
from fst_core import Document, Settings
from fst_core.reading.reader import FileReader
from fst_core.reading.settings import FilesSettings

class PoemSettings({base}):
    pass

class PoemReader(FileReader):
    def documents(self, name, path, tally):
        yield Document(text="a poem: " + path.read_text(), source=name)
"""


@pytest.fixture
def poems(tmp_path, monkeypatch):
    """Install a plugin of somebody else, whose reader knows a suffix."""

    def install(suffix=".poem", needs=(), base="FilesSettings"):
        site = tmp_path / "site"
        files = {
            "fst_poems/__init__.py": HOOKS.format(needs=needs, suffix=suffix),
            "fst_poems/poems.py": POEMS.format(base=base),
            "fst_poems-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: fst-poems\nVersion: 1.5\n",
            "fst_poems-1.5.dist-info/entry_points.txt": "[fst]\npoems = fst_poems\n",
        }
        for name, content in files.items():
            path = site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.syspath_prepend(str(site))
        registry.cache_clear()

    yield install
    registry.cache_clear()
    for name in [name for name in sys.modules if name.startswith("fst_poems")]:
        del sys.modules[name]


def test_readers_of_other_plugins_are_found_by_their_suffixes(folder, poems):
    fill(folder / "mixed")
    (folder / "mixed/rose.poem").write_text("Roses")
    poems()
    assert "a poem: Roses" in [d.text for d in reader("folder", train="mixed").read("train")]


def test_two_readers_of_one_suffix_must_be_told_apart(folder, poems):
    (folder / "a.txt").write_text("Roses")
    poems(suffix=".txt")
    expected = (
        r"^a\.txt: 'poems/poems' of fst-poems 1\.5 and 'files/text' of full-stack-transformer \S+ "
        r'read \.txt files\. Choose one: suffixes = \{"\.txt" = "poems/poems"\}$'
    )
    with pytest.raises(AmbiguousComponent, match=expected):
        list(reader("folder", train="a.txt").read("train"))
    built = reader("folder", train="a.txt", suffixes={".txt": "poems/poems"})
    assert [d.text for d in built.read("train")] == ["a poem: Roses"]


def test_a_reader_whose_packages_are_missing_prints_the_pip_line(folder, poems):
    (folder / "a.poem").write_text("Roses")
    poems(needs=("no_such_package",))
    built = reader("folder", train="a.poem", on_error="skip")
    with pytest.raises(MissingDependency, match="pip install fst-poems"):
        built.fingerprint("train")


def test_a_reader_that_takes_no_files_is_told(folder, poems):
    (folder / "a.poem").write_text("Roses")
    poems(base="Settings")
    with pytest.raises(DocumentError, match=r"^a\.poem: reader 'poems/poems' does not take a file"):
        list(reader("folder", train="a.poem").read("train"))


def test_every_bundled_reader_reads_the_suffixes_that_it_says():
    offers = [o for o in registry().of_kind("reader") if o.component.suffixes]
    assert len(offers) >= 10
    for offer in offers:
        assert offer.implementation().suffixes == offer.component.suffixes
