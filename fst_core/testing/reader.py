"""The contract of readers."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, ClassVar

import pytest

from fst_core.testing.component import ComponentContract

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core import Document, Reader

__all__ = ["ReaderContract"]


class ReaderContract(ComponentContract):
    """What every reader does. A subclass names it and writes something to read.

        class TestPoems(ReaderContract):
            use = "poems"
            settings = {"folder": "poems"}  # relative to the folder that `write` fills

            def write(self, folder):
                (folder / "poems").mkdir()
                (folder / "poems" / "rose.txt").write_text("Roses are red")

            def change(self, folder):  # if left out, one test is skipped
                (folder / "poems" / "rose.txt").write_text("Roses are blue")

    It asserts that every split has documents; that they are the same ones in the same order each
    time; that each has content, says where it was read, and can be written as UTF-8; that a reading
    is reported, the same each time; that the fingerprint depends neither on the instance nor on
    where the files lie, and changes with what they hold.
    """

    kind: ClassVar[str] = "reader"

    def write(self, folder: Path) -> None:
        """Write what the reader reads; the folder is empty and the working directory."""

    def change(self, folder: Path) -> None:  # noqa: ARG002  # for those that override it
        """Change the training documents that `write` wrote."""
        pytest.skip("this contract has no `change`")

    @pytest.fixture
    def reader(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
        """The reader, over what `write` wrote."""
        monkeypatch.chdir(tmp_path)
        self.write(tmp_path)
        return self._reader()

    def test_every_split_has_documents(self, reader: Reader) -> None:
        """There is a split "train", maybe "valid", and each has documents."""
        assert reader.splits() in (("train",), ("train", "valid"))
        for split in reader.splits():
            assert next(reader.read(split), None) is not None

    def test_documents_are_the_same_each_time(self, reader: Reader) -> None:
        """A second reading, and another instance, give equal documents in the same order."""
        first = _documents(reader)
        assert _documents(reader) == first
        assert _documents(self._reader()) == first

    def test_a_reading_may_be_left_halfway(self, reader: Reader) -> None:
        """A reading that was not finished changes nothing for the next one."""
        first = _documents(reader)
        next(reader.read("train"))
        assert _documents(reader) == first

    def test_no_document_is_empty(self, reader: Reader) -> None:
        """Each document has more than white space; those that have not are dropped and counted."""
        for document in _documents(reader):
            assert any(text.strip() for text in _texts(document)), document.source

    def test_a_reading_is_reported(self, reader: Reader) -> None:
        """The report counts what was left out, is the same after each reading, and is plain data."""
        for split in reader.splits():
            list(reader.read(split))
            first = reader.report()
            assert all(count > 0 for count in first.dropped.values())
            assert len(first.problems) <= 100
            list(reader.read(split))
            assert reader.report() == first
            json.dumps(dataclasses.asdict(first), allow_nan=False)

    def test_every_document_says_where_it_was_read(self, reader: Reader) -> None:
        """`source` is what messages show to the user."""
        assert all(document.source for document in _documents(reader))

    def test_every_document_can_be_written_as_utf8(self, reader: Reader) -> None:
        """No text holds half of a surrogate pair."""
        for document in _documents(reader):
            for text in _texts(document):
                text.encode()

    def test_the_fingerprint_is_stable(self, reader: Reader) -> None:
        """Reading does not change it, and another instance has the same."""
        for split in reader.splits():
            first = reader.fingerprint(split)
            list(reader.read(split))
            assert first
            assert reader.fingerprint(split) == first
            assert self._reader().fingerprint(split) == first

    def test_the_fingerprint_does_not_depend_on_the_place(
        self, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same content in another folder, written at another time, has the same fingerprint."""
        first = [reader.fingerprint(split) for split in reader.splits()]
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        self.write(elsewhere)
        moved = self._reader()
        assert [moved.fingerprint(split) for split in moved.splits()] == first

    def test_the_fingerprint_changes_with_the_content(self, reader: Reader, tmp_path: Path) -> None:
        """Other documents, another fingerprint."""
        documents, first = _documents(reader), reader.fingerprint("train")
        self.change(tmp_path)
        changed = self._reader()
        assert _documents(changed) != documents
        assert changed.fingerprint("train") != first

    def _reader(self) -> Reader:
        reader: Reader = self.build()
        return reader


def _documents(reader: Reader) -> list[Document]:
    return [document for split in reader.splits() for document in reader.read(split)]


def _texts(document: Document) -> list[str]:
    if document.text is not None:
        return [document.text]
    return [message.content for message in document.messages or ()]
