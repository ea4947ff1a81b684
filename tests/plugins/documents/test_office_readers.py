"""The readers of word processors' files and of PDF: what comes out of files that other programs wrote."""

from __future__ import annotations

import io
import re
import time
import zipfile
import zlib

import docx
import odf.opendocument
import pytest
from document_files import WRITE, pdf_bytes, reader, texts, write_docx, write_odt
from odf import table, text
from pypdf import PdfReader, PdfWriter
from pypdf.errors import DependencyError

from fst_core.errors import DocumentError
from fst_core.testing import ReaderContract

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol" * 10}">' for n in range(10))
"""Entities that would be 30 GB."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


KINDS = ("docx", "odt", "pdf", "rtf")


class OfficeContract(ReaderContract):
    settings = {"train": "documents", "valid": "held"}

    def write(self, folder):
        for name in ("documents/deep", "held"):
            (folder / name).mkdir(parents=True)
        self.put(folder / "documents/b", "Two", "lines")
        self.put(folder / "documents/deep/a", "One")
        self.put(folder / "held/c", "Three")

    def change(self, folder):
        self.put(folder / "documents/b", "Changed")

    def put(self, path, *paragraphs):
        WRITE[self.use](path.with_suffix(f".{self.use}"), *paragraphs)

    @pytest.fixture(autouse=True)
    def still(self, monkeypatch):
        """The same content has the same bytes, whenever it was written."""
        monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(10**9))


class TestDocx(OfficeContract):
    use = "docx"


class TestOdt(OfficeContract):
    use = "odt"


class TestRtf(OfficeContract):
    use = "rtf"


class TestPdf(OfficeContract):
    use = "pdf"


@pytest.mark.parametrize("use", KINDS)
def test_a_folder_gives_a_document_a_file_in_sorted_order(folder, use):
    for name in ("b", "a", "c/d"):
        path = folder / f"data/{name}.{use}"
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITE[use](path, f"This is {name}.", "Bye.")
    documents = list(reader(use, train="data").read("train"))
    assert [d.text for d in documents] == [f"This is {n}.\nBye." for n in ("a", "b", "c/d")]
    assert documents[2].source == f"data/c/d.{use}"


@pytest.mark.parametrize("use", KINDS)
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_broken_file_stops_or_is_told_and_counted(folder, use, damage):
    WRITE[use](folder / f"1.{use}", "First.")
    WRITE[use](folder / f"2.{use}", "Second.")
    WRITE[use](folder / f"3.{use}", "Third.")
    good = (folder / f"2.{use}").read_bytes()
    bad = {"cut": good[: len(good) // 2], "noise": bytes(range(256)) * 9, "empty": b""}[damage]
    (folder / f"2.{use}").write_bytes(bad)
    with pytest.raises(DocumentError, match=rf"^2\.{use}: "):
        texts(use, f"*.{use}")
    built = reader(use, train=f"*.{use}", on_error="skip")
    assert [d.text for d in built.read("train")] == ["First.", "Third."]
    report = built.report()
    assert report.dropped == {"broken files": 1}
    assert [problem.partition(":")[0] for problem in report.problems] == [f"2.{use}"]


@pytest.mark.parametrize("use", KINDS)
def test_a_file_without_text_is_counted_as_empty(folder, use):
    WRITE[use](folder / f"1.{use}", " ")
    built = reader(use, train=f"1.{use}")
    assert list(built.read("train")) == []
    assert built.report().dropped["empty documents"] == 1


# docx


def test_docx_reads_paragraphs_and_tables_in_order(folder):
    document = docx.Document()
    document.add_heading("The title", 0)
    document.add_paragraph("Before\tthe table")
    rows = document.add_table(rows=2, cols=2)
    for row in (0, 1):
        for column in (0, 1):
            rows.cell(row, column).text = f"{row}{column}"
    document.add_paragraph("")
    document.add_paragraph("")
    run = document.add_paragraph("line").add_run()
    run.add_break()
    run.add_text("break")
    document.sections[0].header.paragraphs[0].text = "running head"
    document.save(folder / "a.docx")
    assert texts("docx", "a.docx") == [
        "The title\nBefore\tthe table\n00\t01\n10\t11\n\nline\nbreak"
    ]


def changed(path, part, *changes):
    """Rewrite a part of an archive."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for old, new in changes:
        assert old in parts[part]
        parts[part] = parts[part].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def test_docx_accepts_changes_and_reads_links_and_controls(folder):
    write_docx(folder / "a.docx", "XXX")
    inserted = (
        b"<w:r><w:t>kept </w:t></w:r><w:ins w:id='1'><w:r><w:t>inserted </w:t></w:r></w:ins>"
        b"<w:del w:id='2'><w:r><w:delText>deleted </w:delText></w:r></w:del>"
        b"<w:hyperlink><w:r><w:t>link </w:t></w:r></w:hyperlink>"
        b"<w:sdt><w:sdtContent><w:r><w:t>control</w:t></w:r></w:sdtContent></w:sdt>"
    )
    changed(folder / "a.docx", "word/document.xml", (b"<w:r><w:t>XXX</w:t></w:r>", inserted))
    assert texts("docx", "a.docx") == ["kept inserted link control"]


# odt


def test_odt_reads_paragraphs_headings_tables_and_spaces(folder):
    document = odf.opendocument.OpenDocumentText()
    document.text.addElement(text.H(outlinelevel=1, text="The title"))
    paragraph = text.P(text="three")
    paragraph.addElement(text.S(c=3))
    paragraph.addElement(text.Span(text="spaces"))
    paragraph.addElement(text.Tab())
    paragraph.addText("tab")
    paragraph.addElement(text.LineBreak())
    paragraph.addText("line")
    note = text.Note(noteclass="footnote")
    body = text.NoteBody()
    body.addElement(text.P(text="a note"))
    note.addElement(body)
    paragraph.addElement(note)
    document.text.addElement(paragraph)
    rows = table.Table()
    for row in ("a", "b"):
        line = table.TableRow()
        for column in ("1", "2"):
            cell = table.TableCell()
            cell.addElement(text.P(text=row + column))
            line.addElement(cell)
        rows.addElement(line)
    document.text.addElement(rows)
    document.save(folder / "a.odt")
    assert texts("odt", "a.odt") == ["The title\nthree   spaces\ttab\nline\na1\ta2\nb1\tb2"]


def test_odt_bounds_the_spaces_that_an_element_stands_for(folder):
    document = odf.opendocument.OpenDocumentText()
    paragraph = text.P(text="a")
    paragraph.addElement(text.S(c=10**9))
    paragraph.addText("b")
    document.text.addElement(paragraph)
    document.save(folder / "a.odt")
    [found] = texts("odt", "a.odt")
    assert re.fullmatch("a {1,1000}b", found)


def test_an_encrypted_odt_is_told(folder):
    write_odt(folder / "a.odt", "secret")
    said = b'<manifest:encryption-data xmlns:manifest="urn:x"/></manifest:manifest>'
    changed(folder / "a.odt", "META-INF/manifest.xml", (b"</manifest:manifest>", said))
    with pytest.raises(DocumentError, match=r"^a\.odt: encrypted; save it without a password$"):
        texts("odt", "a.odt")


# rtf


def test_rtf_reads_the_code_page_and_unicode(folder):
    (folder / "a.rtf").write_bytes(
        rb"{\rtf1\ansi\ansicpg1251{\fonttbl{\f0\fcharset204 Arial;}}"
        rb"\f0\'cf\'f0\'e8\'e2\'e5\'f2 \u9731? {\b bold} a\{b\}\par two}"
    )
    assert texts("rtf", "a.rtf") == ["Привет ☃ bold a{b}\ntwo"]


def test_rtf_joins_what_is_written_as_two_halves(folder):
    (folder / "a.rtf").write_bytes(rb"{\rtf1 a\u-10179?\u-8704?b\u-10179?c}")
    assert texts("rtf", "a.rtf") == ["a😀b\ufffdc"]


def test_rtf_of_another_kind_is_told(folder):
    (folder / "a.rtf").write_text("plain text")
    with pytest.raises(DocumentError, match=r"^a\.rtf: not in the rich text format$"):
        texts("rtf", "a.rtf")


# pdf


def test_pdf_joins_pages_and_counts_those_without_text(folder):
    (folder / "a.pdf").write_bytes(pdf_bytes("Page one\nhyphen-\nated", "", "Page three"))
    built = reader("pdf", train="a.pdf")
    [document] = built.read("train")
    assert document.text == "Page one\nhyphen-\nated\nPage three"
    assert built.report().dropped == {"pages without text": 1}


@pytest.mark.parametrize(("user", "opens"), [("", True), ("secret", False)])
def test_an_encrypted_pdf_is_read_where_anybody_may(folder, user, opens):
    writer = PdfWriter(clone_from=io.BytesIO(pdf_bytes("Hidden")))
    writer.encrypt(user, "owner", algorithm="RC4-128")
    writer.write(folder / "a.pdf")
    if opens:
        assert texts("pdf", "a.pdf") == ["Hidden"]
    else:
        with pytest.raises(DocumentError, match=r"^a\.pdf: encrypted; save it without a password$"):
            texts("pdf", "a.pdf")


def test_a_pdf_whose_encryption_needs_a_package_prints_the_pip_line(folder, monkeypatch):
    def decrypt(pages, password):
        raise DependencyError("cryptography>=3.1 is required for AES algorithm")

    writer = PdfWriter(clone_from=io.BytesIO(pdf_bytes("Hidden")))
    writer.encrypt("", "owner", algorithm="RC4-128")
    writer.write(folder / "a.pdf")
    monkeypatch.setattr(PdfReader, "decrypt", decrypt)
    with pytest.raises(DocumentError, match=r"^a\.pdf: encrypted .*: pip install cryptography$"):
        texts("pdf", "a.pdf")


def test_a_pdf_bomb_is_refused(folder):
    packed = zlib.compress(b"BT (a) Tj ET " * 10_000_000, 9)
    plain = pdf_bytes("x")
    old = re.search(rb"<< /Length \d+ >>\nstream\n.*?\nendstream", plain, re.DOTALL)[0]
    new = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
    (folder / "a.pdf").write_bytes(plain.replace(old, new))
    with pytest.raises(DocumentError, match=r"^a\.pdf: damaged, or not a PDF file: .*[Ll]imit"):
        texts("pdf", "a.pdf")


# hostile archives and XML


@pytest.mark.parametrize(("use", "part"), [("docx", "word/document.xml"), ("odt", "content.xml")])
def test_a_zip_bomb_is_refused(folder, use, part):
    WRITE[use](folder / f"a.{use}", "x")
    with zipfile.ZipFile(folder / f"a.{use}") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / f"a.{use}", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data + b" " * 100_000_000 if name == part else data)
    assert (folder / f"a.{use}").stat().st_size < 200_000
    with pytest.raises(
        DocumentError, match=r"^a\.\w+: unpacks to more than 67,108,864 bytes; raise"
    ):
        texts(use, f"a.{use}")
    with pytest.raises(DocumentError, match="unpacks to more than 10 bytes"):
        texts(use, f"a.{use}", max_unpacked_bytes=10)


@pytest.mark.parametrize(
    ("use", "part", "root"),
    [
        ("docx", "word/document.xml", b"<w:document"),
        ("odt", "content.xml", b"<office:document-content"),
    ],
)
@pytest.mark.parametrize("entities", ["laughs", "external"])
def test_entities_are_refused(folder, use, part, root, entities):
    WRITE[use](folder / f"a.{use}", "XXX")
    (folder / "secret").write_text("the secret")
    said = {"laughs": LAUGHS, "external": f'<!ENTITY l9 SYSTEM "{folder.as_uri()}/secret">'}
    head = f"<!DOCTYPE x [{said[entities]}]>".encode() + root
    changed(folder / f"a.{use}", part, (root, head), (b"XXX", b"&l9;"))
    # libxml2 counts what they would become, and refuses those that would be much before we do
    refused = r"^a\.\w+: (declares entities of its own|damaged: .* entity amplification)"
    with pytest.raises(DocumentError, match=refused):
        texts(use, f"a.{use}")


@pytest.mark.parametrize(("use", "part"), [("docx", "word/document.xml"), ("odt", "content.xml")])
def test_a_missing_part_and_broken_xml_are_told(folder, use, part):
    WRITE[use](folder / f"a.{use}", "XXX")
    changed(folder / f"a.{use}", part, (b"XXX", b"X<X"))
    with pytest.raises(DocumentError, match=r"^a\.\w+: damaged: not well-formed XML: "):
        texts(use, f"a.{use}")
    with zipfile.ZipFile(folder / f"a.{use}", "w") as archive:
        archive.writestr("_rels/.rels", "<Relationships/>")
    with pytest.raises(DocumentError, match=rf"^a\.\w+: damaged: it has no '{part}'$"):
        texts(use, f"a.{use}")
