"""The reader `parquet`: a document a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import pyarrow as pa  # type: ignore[import-untyped]  # shipped without type information
from pyarrow import parquet

from fst_core import Document
from fst_core.errors import DocumentError
from fst_core.reading.reader import FileReader
from fst_core.reading.records import document_of
from fst_documents.damage import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally
    from fst_documents.settings import ParquetSettings

__all__ = ["ParquetReader"]

_BUFFER: Final = 2**20
"""Bytes of a column that are read at a time."""
_ROWS: Final = 512
"""Rows that are held at a time."""


class ParquetReader(FileReader):
    """Reads the columns that the settings name, row group by row group, and nothing else of a file."""

    suffixes: ClassVar = (".parquet",)
    settings: ParquetSettings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:  # noqa: ARG002  # an interface
        """Yield a document for each row; a row without any content is an empty one."""
        with reading(name, "a Parquet file"):
            file = parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        with file:
            columns = self._columns(file.schema_arrow, name)
            number = 1
            for batch in _batches(file, columns, name):
                with reading(name, "a Parquet file"):
                    documents = self._documents(batch, f"{name}:", number)
                yield from documents
                number += batch.num_rows

    def _columns(self, schema: Any, name: str) -> list[str]:
        """Return the columns to read.

        Raises:
            DocumentError: the file has none with documents, or they are of another type.
        """
        settings = self.settings
        fields = (settings.text_field, settings.messages_field, settings.meta_field)
        columns = [field for field in fields if field in schema.names]
        if not set(columns) - {settings.meta_field}:
            raise DocumentError(
                f"{name}: neither of the columns '{settings.text_field}' and "
                f"'{settings.messages_field}' among {', '.join(schema.names) or 'none'}; "
                "set text_field or messages_field"
            )
        for column in set(columns) - {settings.messages_field}:
            kind = schema.field(column).type
            value = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not _is_text(value):
                raise DocumentError(f"{name}: the column '{column}' holds {kind}, not text")
        return columns

    def _documents(self, batch: Any, place: str, first: int) -> list[Document]:
        settings = self.settings
        rows = range(first, first + batch.num_rows)
        if batch.schema.names == [settings.text_field]:
            texts = batch.column(0).to_pylist()
            return [
                Document(text=text or "", source=f"{place}{row}")
                for text, row in zip(texts, rows, strict=True)
            ]
        return [
            document_of(record, settings, f"{place}{row}")
            if any(
                record.get(f) is not None for f in (settings.text_field, settings.messages_field)
            )
            else Document(text="", source=f"{place}{row}")
            for record, row in zip(batch.to_pylist(), rows, strict=True)
        ]


def _batches(file: Any, columns: list[str], name: str) -> Iterator[Any]:
    batches = file.iter_batches(_ROWS, columns=columns, use_threads=False)
    while True:
        with reading(name, "a Parquet file"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
