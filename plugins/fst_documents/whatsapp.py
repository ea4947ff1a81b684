"""The reader `whatsapp`: the `_chat.txt` that WhatsApp exports."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from fst_core.errors import DocumentError
from fst_core.reading.reader import TextFileReader
from fst_documents.conversation import SERVICE, WITHOUT_TEXT, Said, check_author, conversations
from fst_documents.whatsapp_lines import entries, moments

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from fst_core import Document
    from fst_core.reading.tally import Tally
    from fst_documents.settings import WhatsappSettings
    from fst_documents.whatsapp_lines import Entry

__all__ = ["WhatsappReader"]

_LRM: Final = "\u200e"
"""Stands before what the program wrote in a person's place."""
_MEDIA: Final = re.compile(
    rf"{_LRM}?<[^<>\n]+>|{_LRM}?\S+\.\w{{2,4}} \([^()\n]+\)|null", re.IGNORECASE
)
"""All that is left of a picture or a recording: `<Media omitted>`, `IMG-1.jpg (file attached)`."""
_OMITTED: Final = re.compile(rf"{_LRM}[^\s.:]+(?: [^\s.:]+){{1,3}}")
"""The same in iOS, a few words of its language: `image omitted`, `Bild weggelassen`, `Missed voice call`."""
_EDITED: Final = re.compile(rf"\s*{_LRM}<[^<>\n]+>\Z|\s*<This message was edited>\Z")
_DELETED: Final = {
    *("this message was deleted", "you deleted this message", "сообщение удалено"),
    *("данное сообщение удалено", "вы удалили это сообщение", "diese nachricht wurde gelöscht"),
    *("du hast diese nachricht gelöscht", "eliminaste este mensaje", "se eliminó este mensaje"),
    *("ce message a été supprimé", "vous avez supprimé ce message", "questo messaggio è stato eliminato"),
    *("hai eliminato questo messaggio", "mensagem apagada", "você apagou esta mensagem"),
}  # fmt: skip  # sentences
"""What stands in the place of a message that was deleted."""


class WhatsappReader(TextFileReader):
    """Reads the messages of a chat; what nobody wrote is left out. Forwards are not marked in a file."""

    settings: WhatsappSettings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the conversations of one chat."""
        found = list(entries("".join(self.pieces(name, path, tally))))
        if not found:
            raise DocumentError(f"{name}: no messages here, as WhatsApp exports them")
        authors = Counter(
            entry.author for entry in found if entry.author and not _is_service(entry)
        )
        check_author(authors, self.settings.me, name)
        messages = self._messages(found, authors, name, tally)
        return conversations(messages, self.settings, tally, group=len(authors) > 2)

    def _messages(
        self, found: list[Entry], authors: Collection[str], name: str, tally: Tally
    ) -> Iterator[Said]:
        for entry, seconds in zip(found, moments(found, self.settings.dates), strict=True):
            text = _EDITED.sub("", entry.text).strip(f"{_LRM} \t\n")
            if entry.author and (not text or _is_media(entry, authors)):
                tally.count(WITHOUT_TEXT)
            elif not entry.author or _is_service(entry):
                tally.count(SERVICE)
            else:
                mine = entry.author == self.settings.me
                yield Said(entry.author, mine, seconds, text, f"{name}:{entry.line}")


def _is_service(entry: Entry) -> bool:
    """Return whether the program wrote an entry in an author's place."""
    return entry.text.startswith(_LRM)


def _is_media(entry: Entry, authors: Collection[str]) -> bool:
    """Return whether what an author sent is no text, or is deleted.

    In iOS the program's own messages have the group's name, or that of whom they are about.
    """
    text = entry.text
    if _MEDIA.fullmatch(text) or text.strip(f"{_LRM} .").lower() in _DELETED:
        return True
    about = text.startswith(f"{_LRM}{entry.author} ") or entry.author not in authors
    return not about and _OMITTED.fullmatch(text) is not None
