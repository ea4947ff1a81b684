"""Texts that come in many pieces: the whole is what joining them gives, in whatever way it was kept."""

from __future__ import annotations

import random

import pytest

from fst_core.plugins import registry
from fst_core.reading.long_text import LongText

LETTERS = ["a", "é", "я", "日", "😀", "\n", " "]


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 66, 130, 1_000])
def test_the_whole_is_what_joining_gives_and_the_next_begins_anew(count):
    rng = random.Random(count)
    long = LongText()
    for _ in range(3):
        pieces = ["".join(rng.choices(LETTERS, k=rng.randint(0, 9))) for _ in range(count)]
        for piece in pieces:
            long.add(piece)
        assert long.take("end") == "".join(pieces) + "end"
        assert long.take() == ""


@pytest.mark.parametrize("lines", [1, 63, 64, 65, 66, 200])
def test_documents_of_many_pieces_end_where_they_do(tmp_path, lines):
    """A line a piece: the one that ends a document begins a piece of its own."""
    documents = ["\n".join(f"{n} {word}" for n in range(lines)) for word in ("яблоко", "pear", "é")]
    path = tmp_path / "train.txt"
    path.write_text("\n[END_OF_DOCUMENT]\n".join(documents), "utf-8")
    for use, expected in (
        ("delimited", documents),
        ("text", ["\n[END_OF_DOCUMENT]\n".join(documents)]),
    ):
        offer = registry().find("reader", use)
        reader = offer.build(offer.settings_class()(train=(str(path),)))
        for chunk_bytes in (1, 7, 2**16):
            reader.chunk_bytes = chunk_bytes
            assert [document.text for document in reader.read("train")] == expected
