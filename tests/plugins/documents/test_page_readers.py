"""The readers `html`, `epub` and `fb2`: the text that a reader of a page or a book sees."""
# ruff: noqa: RUF001  # Russian letters and dashes are meant

from __future__ import annotations

import zipfile

import pytest
from document_files import BOOK, PAGE, reader, texts, write_epub

from fst_core.errors import DocumentError
from fst_core.testing import ReaderContract


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestHtml(ReaderContract):
    use = "html"
    settings = {"train": "site", "valid": ["v.html"]}

    def write(self, folder):
        (folder / "site/deep").mkdir(parents=True)
        (folder / "site/b.htm").write_text("<p>Two")
        (folder / "site/deep/a.html").write_text("<p>One")
        (folder / "v.html").write_text("<p>Three")

    def change(self, folder):
        (folder / "site/b.htm").write_text("<p>Changed")


# html


def test_html_gives_what_a_page_shows(folder):
    (folder / "a.html").write_text(PAGE)
    assert texts("html", "a.html")[0].split("\n") == [
        "Heading\xa0one",
        "First paragraph with bolditalic words & an entity: é—.",
        "After a break.",
        "one",
        "two",
        "a\tb",
        "1\t2",
        "  keep",
        "    this  as it is",
        "loose text",
        "in a block",
        "and after",
        "last",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251", "koi8-r", "utf-16"])
@pytest.mark.parametrize("said", ["meta", "http-equiv", "nothing"])
def test_html_believes_what_a_page_says_of_its_encoding(folder, encoding, said):
    named = encoding.removesuffix("-sig")
    head = {
        "meta": f'<meta charset="{named}">',
        "http-equiv": f'<meta http-equiv="Content-Type" content="text/html; charset={named}">',
        "nothing": "",
    }[said]
    text = "Всем привет! Ёжик в тумане пил чай и смотрел на звёзды, а медвежонок считал их."
    (folder / "a.html").write_bytes(f"<html><head>{head}</head><p>{text}</p>".encode(encoding))
    built = reader("html", train="a.html")
    assert [d.text for d in built.read("train")] == [text]
    assert built.report().encodings == {"a.html": named}


@pytest.mark.parametrize(
    "said", ["hex", "utf-7", "unicode_escape", "utf-16le", "x-unknown", "\u00e9"]
)
def test_html_does_not_believe_in_what_is_no_encoding_of_such_a_page(folder, said):
    (folder / "a.html").write_text(f"<meta charset='{said}'><p>Ёжик+AGE-", "utf-8")
    assert texts("html", "a.html") == ["Ёжик+AGE-"]


def test_html_takes_the_encoding_that_the_settings_name(folder):
    (folder / "a.html").write_bytes('<meta charset="utf-8"><p>Ёжик'.encode("cp1251"))
    assert texts("html", "a.html", encoding="cp1251") == ["Ёжик"]
    with pytest.raises(DocumentError, match=r"^a\.html: not UTF-8 at byte 25: "):
        texts("html", "a.html")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<div>" * 1_000 + "deep", "deep"),
        ("<p>a\0b", "ab"),
        ('<?xml version="1.0" encoding="koi8-r"?><html><body><p>a</p></body></html>', "a"),
        ("just text\n\nwithout a tag", "just text without a tag"),
        ("<p>" + "x" * 11_000_000, "x" * 11_000_000),
        ("<p>a&#xD83D;b&#0;c&#x1F600;", None),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><p>&a;", None),
    ],
    ids=["deep", "zero", "declaration", "plain", "long", "halves", "entity"],
)
def test_html_of_any_kind_gives_text(folder, page, text):
    (folder / "a.html").write_text(page)
    [found] = texts("html", "a.html")
    assert text in {None, found}
    assert found.encode()


def test_html_that_is_nested_without_bound_is_refused(folder):
    (folder / "a.html").write_text("<div>" * 100_000 + "deep")
    with pytest.raises(DocumentError, match=r"^a\.html: cannot be read as HTML: .*depth"):
        texts("html", "a.html")


def test_html_without_text_is_counted(folder):
    for name, page in (("1", ""), ("2", "<script>x</script>"), ("3", " <p> </p> <!-- x -->")):
        (folder / f"{name}.html").write_text(page)
    built = reader("html", train="*.html")
    assert list(built.read("train")) == []
    assert built.report().dropped == {"empty documents": 3}


# epub


class TestEpub(ReaderContract):
    use = "epub"
    settings = {"train": "a.epub", "valid": "b.epub", "chapters": True}

    def write(self, folder):
        write_epub(folder / "a.epub")
        write_epub(folder / "b.epub", two="<p>Three")

    def change(self, folder):
        write_epub(folder / "a.epub", one="<p>Changed")


def test_epub_follows_the_spine_and_leaves_out_the_contents(folder):
    write_epub(folder / "a.epub")
    assert texts("epub", "a.epub") == ["Two\xa0–\nb\n\nOne"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1251"])
def test_epub_reads_chapters_in_the_encoding_that_they_say(folder, encoding):
    page = '<?xml version="1.0" encoding="windows-1251"?><html><body><p>Ёжик</p></body></html>'
    part = {"OEBPS/text/two.xhtml": page.encode(encoding)}
    write_epub(folder / "a.epub", one="", **part)
    assert texts("epub", "a.epub") == ["Ёжик"]


def test_epub_gives_a_document_a_chapter_when_asked(folder):
    write_epub(folder / "a.epub")
    documents = list(reader("epub", train=".", chapters=True).read("train"))
    assert [(d.text, d.source) for d in documents] == [
        ("Two\xa0–\nb", "a.epub: OEBPS/text/two.xhtml"),
        ("One", "a.epub: OEBPS/text/a one.xhtml"),
    ]


PROTECTED = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"
xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData><enc:CipherData>
<enc:CipherReference URI="{}"/></enc:CipherData></enc:EncryptedData></encryption>"""


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"META-INF/container.xml": None}, "damaged: it has no 'META-INF/container.xml'"),
        ({"META-INF/container.xml": "<x/>"}, "damaged: 'META-INF/container.xml' names no package"),
        ({"OEBPS/package.opf": "<package>"}, "damaged: not well-formed XML"),
        ({"OEBPS/package.opf": "<package/>"}, "damaged: it has no text in the order of reading"),
        ({"OEBPS/text/two.xhtml": None}, "damaged: it has no 'OEBPS/text/two.xhtml'"),
        ({"OEBPS/text/two.xhtml": b"<p>\xff"}, "damaged, or not an .epub book: UnicodeDecodeError"),
        ({"OEBPS/text/two.xhtml": " " * 70_000_000}, "unpacks to more than 67,108,864 bytes"),
        (
            {"META-INF/encryption.xml": PROTECTED.format("OEBPS/text/a%20one.xhtml")},
            "protected against copying: 'OEBPS/text/a one.xhtml' is encrypted",
        ),
        (
            {
                "OEBPS/package.opf": "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>"
            },
            "declares entities of its own",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_a_broken_epub_is_told_and_may_be_left_out(folder, others, message):
    write_epub(folder / "a.epub", **others)
    write_epub(folder / "b.epub", one="", two="<p>Good")
    with pytest.raises(DocumentError) as raised:
        texts("epub", "a.epub", "b.epub")
    assert str(raised.value).startswith(f"a.epub: {message}")
    built = reader("epub", train=["a.epub", "b.epub"], on_error="skip")
    assert [d.text for d in built.read("train")] == ["Good"]
    assert built.report().dropped == {"broken files": 1}


def test_an_epub_with_protected_fonts_is_read(folder):
    fonts = PROTECTED.format("OEBPS/fonts/a.otf")
    write_epub(folder / "a.epub", **{"META-INF/encryption.xml": fonts})
    assert len(texts("epub", "a.epub")) == 1


def test_what_is_no_zip_is_told(folder):
    (folder / "a.epub").write_bytes(b"not a zip")
    with pytest.raises(
        DocumentError, match=r"^a\.epub: damaged, or not an \.epub book: BadZipFile"
    ):
        texts("epub", "a.epub")


# fb2

EXPECTED = "Книга\n\nГлава 1\nПервый абзац с курсивом[1].\n\nСтих один\nСтих два\n\nГлава 2"


class TestFb2(ReaderContract):
    use = "fb2"
    settings = {"train": "books"}

    def write(self, folder):
        (folder / "books").mkdir()
        (folder / "books/a.fb2").write_text(BOOK.format("utf-8", ""))

    def change(self, folder):
        (folder / "books/a.fb2").write_text(BOOK.format("utf-8", "").replace("Книга", "Повесть"))


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1251", "koi8-r", "utf-16"])
def test_fb2_reads_the_text_in_the_encoding_that_the_book_says(folder, encoding):
    # a picture of more than 10 MB is a text that libxml2 would refuse
    (folder / "a.fb2").write_bytes(BOOK.format(encoding, "QUJD" * 3_000).encode(encoding))
    assert texts("fb2", "a.fb2") == [EXPECTED]


def test_fb2_with_a_large_picture_is_read(folder):
    (folder / "a.fb2").write_text(BOOK.format("utf-8", "QUJD" * 3_000_000))
    assert texts("fb2", "a.fb2") == [EXPECTED]


def test_fb2_in_a_zip_is_read(folder):
    with zipfile.ZipFile(folder / "a.fb2.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fb2", BOOK.format("utf-8", ""))
    assert texts("fb2", ".") == [EXPECTED]
    with zipfile.ZipFile(folder / "a.fb2.zip", "a") as archive:
        archive.writestr("b.fb2", BOOK.format("utf-8", ""))
    with pytest.raises(DocumentError, match=r"^a\.fb2\.zip: holds 2 \.fb2 files, not one$"):
        texts("fb2", "a.fb2.zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged: not well-formed XML"),
        ("plain text", "damaged: not well-formed XML"),
        (BOOK.format("utf-8", "")[:500], "damaged: not well-formed XML"),
        ("<html/>", "not an .fb2 book: its root is 'html'"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><FictionBook/>", "declares entities of its own"),
        ("<a>" * 100_000, "damaged: not well-formed XML"),
    ],
)
def test_a_broken_fb2_is_told(folder, content, message):
    (folder / "a.fb2").write_text(content)
    with pytest.raises(DocumentError) as raised:
        texts("fb2", "a.fb2")
    assert str(raised.value).startswith(f"a.fb2: {message}")
    built = reader("fb2", train="a.fb2", on_error="skip")
    assert list(built.read("train")) == []
    assert built.report().dropped == {"broken files": 1}


def test_fb2_bounds_what_is_parsed(folder):
    (folder / "a.fb2").write_text(BOOK.format("utf-8", ""))
    with pytest.raises(DocumentError, match=r"^a\.fb2: larger than 100 bytes"):
        texts("fb2", "a.fb2", max_unpacked_bytes=100)
