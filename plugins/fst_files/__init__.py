"""Readers of files: delimited text, text and Markdown, JSON lines, a distribution's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_readers() -> Iterator[Component]:
    """Offer the readers."""
    yield Component(
        "delimited",
        f"{__name__}.delimited:DelimitedReader",
        "Text files that hold many documents, each ended by a line of its own.",
        settings=f"{__name__}.settings:DelimitedSettings",
    )
    yield Component(
        "text",
        f"{__name__}.text:TextReader",
        "A folder of text and Markdown files, one document a file.",
        settings=f"{__name__}.settings:TextSettings",
        suffixes=(".txt", ".txt.gz", ".txt.zst", ".md", ".md.gz", ".md.zst"),
    )
    yield Component(
        "jsonl",
        f"{__name__}.jsonl:JsonlReader",
        "JSON lines: a text or a conversation a line.",
        settings=f"{__name__}.settings:JsonlSettings",
        suffixes=(".jsonl", ".jsonl.gz", ".jsonl.zst"),
    )
    yield Component(
        "package",
        f"{__name__}.package:PackageReader",
        "Text files that an installed distribution ships.",
        settings=f"{__name__}.settings:PackageSettings",
    )
