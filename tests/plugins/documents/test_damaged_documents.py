"""Whatever was done to a file, its reader gives documents or a line about it, and nothing else happens."""

from __future__ import annotations

import random

import pytest
from document_files import WRITE, reader

from fst_core.errors import DocumentError

SETTINGS = {"telegram": {"me": "Ann"}, "whatsapp": {"me": "Ann"}, "html": {"encoding": "utf-8"}}
PARAGRAPHS = ("The first paragraph.", "The second (one).", "the third")


def damaged(rng, data):
    """Change, remove, insert and repeat some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        place = rng.randrange(len(data) + 1)
        change = rng.randrange(4)
        if change == 0 and place < len(data):
            data[place] = rng.randrange(256)
        elif change == 1:
            del data[place : place + rng.randrange(50)]
        elif change == 2:
            data[place:place] = rng.randbytes(rng.randrange(8))
        else:
            data[place:place] = data[max(0, place - 30) : place]
    return bytes(data)


@pytest.mark.parametrize("kind", sorted(WRITE))
def test_damage_gives_documents_or_one_line_about_the_file(work, kind):
    path = work / f"file.{kind}"
    WRITE[kind](path, *PARAGRAPHS)
    good, rng = path.read_bytes(), random.Random(228)
    built = reader(kind, train=path.name, **SETTINGS.get(kind, {}))
    texts, lines = [], []
    for _ in range(100):
        path.write_bytes(damaged(rng, good))
        try:
            for document in built.read("train"):
                texts += [document.text or "", *(m.content for m in document.messages or ())]
        except DocumentError as error:
            lines.append(str(error))
    assert all(line.startswith(path.name) and "\n" not in line for line in lines)
    "".join(texts).encode()
    assert lines
    assert texts


@pytest.mark.parametrize("kind", sorted(WRITE))
def test_damage_changes_nothing_for_the_other_files(work, kind):
    for name in ("a", "b", "c"):
        WRITE[kind](work / f"{name}.{kind}", *PARAGRAPHS)
    (work / f"b.{kind}").write_bytes(b"\x89nothing that any reader knows\xff")
    built = reader(kind, train=f"*.{kind}", on_error="skip", **SETTINGS.get(kind, {}))
    sources = {document.source[:1] for document in built.read("train")}
    assert sources == {"a", "c"}
    assert built.report().dropped == {"broken files": 1}
    [problem] = built.report().problems
    assert problem.startswith("b")
    assert "set on_error" not in problem  # it is set already
