"""Texts that come in many pieces: the whole is what joining them gives, in whatever way it was kept."""

from __future__ import annotations

import pytest

from fst_core.plugins import registry


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
