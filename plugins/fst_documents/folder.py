"""The reader `folder`: files of mixed kinds, each by the reader that knows its suffix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fst_core.artefacts.digests import digest_fields
from fst_core.errors import AmbiguousComponent, DocumentError, SettingsError
from fst_core.plugins import registry
from fst_core.reading.patterns import find
from fst_core.reading.reader import FileReader
from fst_core.settings import problems, validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core import Document, Reader, Split
    from fst_core.plugins import Offer
    from fst_core.reading.tally import Tally
    from fst_core.settings import Settings
    from fst_documents.settings import FolderSettings

__all__ = ["FolderReader"]

UNKNOWN = "files of unknown kinds"
"""The reason under which files are counted that no reader knows."""


class FolderReader(FileReader):
    """Reads every file by the reader whose suffix its name ends in, the longest one that fits.

    Any reader may be among them, of other plugins too, that says its suffixes and takes the path of a
    file as `train`. Files that none of them knows are told and counted.
    """

    settings: FolderSettings

    def __init__(self, settings: FolderSettings) -> None:
        super().__init__(settings)
        find_reader = registry().find
        self._chosen = {
            suffix.lower(): find_reader("reader", name)
            for suffix, name in settings.suffixes.items()
        }
        shared = {"on_error", "encoding", "encoding_errors"} & settings.model_fields_set
        self._shared = settings.model_dump(include=shared)
        named = {name: find_reader("reader", name) for name in settings.readers}
        self._further = {named[name].address: table for name, table in settings.readers.items()}
        for offer in named.values():
            self._settings(offer, "train")  # a mistake must not surface after a thousand files
        self._known: dict[str, list[Offer]] = {}
        for offer in registry().of_kind("reader"):
            for suffix in offer.component.suffixes:
                self._known.setdefault(suffix.lower(), []).append(offer)

    def files(self, split: Split) -> dict[str, Path]:
        """Return the files that the settings name; hidden ones of a folder are left out."""
        return find(self.settings.patterns(split), suffixes=None)

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the documents of one file."""
        offer = self._offer(path)
        if offer is None:
            tally.count(UNKNOWN)
            tally.problem(f"{name}: no reader knows its suffix; name one in `suffixes`")
            return
        reader = self._reader(offer, path)
        yield from reader.read("train")
        tally.add(reader.report())

    def fingerprint(self, split: Split) -> str:
        """Return the sha256 over what each file's reader says of it; unknown files do not count."""
        fields: list[Any] = []
        for path in self.files(split).values():
            if offer := self._offer(path):
                reader = self._reader(offer, path)
                fields.append([offer.address, reader.format, reader.fingerprint("train")])
        return digest_fields(fields)

    def _offer(self, path: Path) -> Offer | None:
        """Return the reader of a file; None if there is none.

        Raises:
            AmbiguousComponent: two plugins offer one.
        """
        name = path.name.lower()
        endings = [suffix for suffix in (*self._chosen, *self._known) if name.endswith(suffix)]
        longest = max(endings, key=len, default=None)
        if longest is None:
            return None
        if longest in self._chosen:
            return self._chosen[longest]
        offer, *others = self._known[longest]
        if others:
            named = " and ".join(
                f"'{each.address}' of {each.provider}" for each in (offer, *others)
            )
            raise AmbiguousComponent(
                f"{path}: {named} read {longest} files. Choose one: "
                f'suffixes = {{"{longest}" = "{offer.address}"}}'
            )
        return offer

    def _reader(self, offer: Offer, path: Path) -> Reader:
        reader: Reader = offer.build(self._settings(offer, str(path)))
        return reader

    def _settings(self, offer: Offer, train: str) -> Settings:
        """Return the settings of a reader of one file.

        Raises:
            SettingsError: some of them are wrong.
            DocumentError: it takes no files.
        """
        cls = offer.settings_class()
        if cls is None or "train" not in cls.model_fields:
            raise DocumentError(
                f"{train}: reader '{offer.address}' does not take a file as `train`"
            )
        table = {
            **{key: value for key, value in self._shared.items() if key in cls.model_fields},
            **self._further.get(offer.address, {}),
            "train": train,
        }
        try:
            return validate(cls, table)
        except ValidationError as error:
            place = f"[documents.readers.{offer.name}]"
            raise SettingsError(place, list(problems(error, cls, place, table))) from None
