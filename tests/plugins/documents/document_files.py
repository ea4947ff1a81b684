"""Files of every kind as other programs write them, and readers to read them."""
# ruff: noqa: RUF001  # Russian letters and dashes are meant

from __future__ import annotations

import io
import json
import zipfile

import docx
import odf.opendocument
import pyarrow as pa
from odf import text
from pyarrow import parquet

from fst_core.plugins import registry
from fst_core.settings import validate


def reader(use, **settings):
    offer = registry().find("reader", use)
    return offer.build(validate(offer.settings_class(), settings))


def texts(use, *names, **settings):
    return [d.text for d in reader(use, train=list(names), **settings).read("train")]


# word processors' files and PDF


def write_docx(path, *paragraphs):
    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    document.save(path)


def write_odt(path, *paragraphs):
    document = odf.opendocument.OpenDocumentText()
    for paragraph in paragraphs:
        document.text.addElement(text.P(text=paragraph))
    document.save(path)


def write_rtf(path, *paragraphs):
    written = "\\par\n".join(
        "".join(c if c.isascii() else f"\\u{ord(c)}?" for c in paragraph)
        for paragraph in paragraphs
    )
    path.write_text(f"{{\\rtf1\\ansi\\ansicpg1252 {written}}}", "ascii")


def pdf_bytes(*pages):
    """A PDF file by hand: a page a string, its lines below each other."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>"
        % (len(pages), b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(len(pages)))),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, page in enumerate(pages):
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in page.split("\n") if line)
        content = f"BT /F1 12 Tf 72 720 Td {lines}ET".encode("latin-1")
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            b"/Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>" % (5 + 2 * number),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        ]
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer << /Size %d /Root 1 0 R >>\n" % (len(objects) + 1))
    out.write(b"startxref\n%d\n%%%%EOF\n" % start)
    return out.getvalue()


def write_pdf(path, *paragraphs):
    path.write_bytes(pdf_bytes("\n".join(paragraphs)))


# pages and books

PAGE = """<!DOCTYPE html><html><head><title>The title</title><style>p { color: red }</style>
<script>var a = "<p>script</p>";</script></head>
<body><nav><a href="/">Home</a> <a href="/x">Other</a></nav>
<div role="navigation">Menu</div><p hidden>hidden</p>
<h1>Heading&nbsp;one</h1>
<p>First   paragraph with <b>bold</b><i>italic</i>
words &amp; an entity: &eacute;&#8212;.<br>After a break.</p>
<noscript>no script</noscript><template><p>template</p></template>
<ul><li>one<li>two</ul>
<table><tr><th>a<th>b<tr><td>1<td>2</table>
<pre>  keep
    this  as it is
</pre>
loose text<div>in a block</div> and after
<!-- comment --><script>more()</script>
<p>last</html>
"""


CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/package.opf" media-type="application/oebps-package+xml"/>
</rootfiles></container>"""
PACKAGE = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata/><manifest>
<item id="one" href="text/a%20one.xhtml" media-type="application/xhtml+xml"/>
<item id="two" href="text/two.xhtml" media-type="application/xhtml+xml"/>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="img" href="cover.jpg" media-type="image/jpeg"/>
</manifest><spine><itemref idref="nav"/><itemref idref="two"/><itemref idref="one"/>
</spine></package>"""


def chapter(text):
    return (
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns='
        f'"http://www.w3.org/1999/xhtml"><head><title>T</title></head><body>{text}</body></html>'
    )


def write_epub(path, one="<p>One</p>", two="<h1>Two&nbsp;–</h1><p>b</p>", **others):
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/package.opf": PACKAGE,
        "OEBPS/text/a one.xhtml": chapter(one),
        "OEBPS/text/two.xhtml": chapter(two),
        "OEBPS/nav.xhtml": chapter("<nav>Contents</nav><p>Contents</p>"),
        **others,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            if content is not None:
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, content)


BOOK = """<?xml version="1.0" encoding="{}"?>
<FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0"
 xmlns:l="http://www.w3.org/1999/xlink"><description><title-info><book-title>Имя</book-title>
<annotation><p>annotation</p></annotation></title-info></description>
<body><title><p>Книга</p></title>
<section><title><p>Глава 1</p></title><p>Первый
  абзац с <emphasis>курсивом</emphasis><a l:href="#n1" type="note">[1]</a>.</p><empty-line/>
<poem><stanza><v>Стих один</v><v>Стих два</v></stanza></poem></section>
<section><p>Глава 2</p></section></body>
<body name="notes"><section id="n1"><p>note</p></section></body>
<binary id="c" content-type="image/png">{}</binary></FictionBook>"""


def write_page(path, *paragraphs):
    path.write_text("".join(f"<p>{paragraph}</p>" for paragraph in paragraphs), "utf-8")


def write_fb2(path, *paragraphs):
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    path.write_text(f"<FictionBook><body>{body}</body></FictionBook>", "utf-8")


# tables


def write_parquet(path, *paragraphs):
    parquet.write_table(pa.table({"text": list(paragraphs)}), path)


# chats

NOON = 1_577_880_000  # 2020-01-01 12:00 UTC


def said(author, text, minutes, **more):
    return {
        "id": minutes,
        "type": "message",
        "date": "2020-01-01T00:00:00",
        "date_unixtime": str(NOON + 60 * minutes),
        "from": author,
        "from_id": f"user{ord(author[0])}",
        "text": text,
        **more,
    }


def chat(*messages, name="Bob", kind="personal_chat"):
    return {"name": name, "type": kind, "id": 7, "messages": list(messages)}


def export(path, *chats, **more):
    """Write what Telegram Desktop exports: one chat by itself, several in a list."""
    single = len(chats) == 1
    whole = chats[0] if single else {"about": "x", **more, "chats": {"about": "y", "list": chats}}
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=1))


IOS = """\u200e[31.12.20, 09:00:00] Bob: \u200eMessages and calls are end-to-end encrypted.
[31.12.20, 23:58:00] Bob: hi: how are you?
a second line

[and a third]
[31.12.20, 23:59:59] Ann: fine
\u200e[31.12.20, 23:59:59] Ann: \u200eimage omitted
[01.01.21, 00:00:10] Ann: happy new year! \u200e<This message was edited>
\u200e[01.01.21, 00:00:20] Bob: \u200e<attached: 00000012-PHOTO.jpg>
[01.01.21, 00:01:00] Bob: you too
"""


def write_telegram(path, *paragraphs):
    export(path, chat(*[said("Ann", paragraph, n) for n, paragraph in enumerate(paragraphs)]))


def write_whatsapp(path, *paragraphs):
    lines = [f"31.12.20, 10:{n:02} - Ann: {paragraph}" for n, paragraph in enumerate(paragraphs)]
    path.write_text("\n".join(lines), "utf-8")


WRITE = {
    "docx": write_docx,
    "epub": lambda path, *paragraphs: write_epub(path, one="<p>".join(paragraphs), two=""),
    "fb2": write_fb2,
    "html": write_page,
    "odt": write_odt,
    "parquet": write_parquet,
    "pdf": write_pdf,
    "rtf": write_rtf,
    "telegram": write_telegram,
    "whatsapp": write_whatsapp,
}
"""How a file of each kind comes to hold paragraphs."""
