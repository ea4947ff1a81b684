"""The tokenizer `bytes`: the 256 bytes, and three control ids after them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from fst_core import Tokenizer
from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fst_core.interfaces.tokenizer import FlatIds

__all__ = ["BytesTokenizer"]

BYTES: Final = 256
"""Ids below are bytes, the others control ids."""
CONTROL_TOKENS: Final = {"[DOC_START]": BYTES, "[DOC_END]": BYTES + 1, "[PAD]": BYTES + 2}
FILE: Final = "bytes.json"


class BytesTokenizer(Tokenizer):
    """Encodes a text as its UTF-8 bytes.

    A control id is not a byte, so no text ever yields one; ids that are not UTF-8, such as a
    character cut in two, decode to U+FFFD.
    """

    vocab_size = BYTES + len(CONTROL_TOKENS)
    bos_id = CONTROL_TOKENS["[DOC_START]"]
    end_id = CONTROL_TOKENS["[DOC_END]"]
    pad_id = CONTROL_TOKENS["[PAD]"]

    def encode(self, text: str) -> list[int]:
        """Encode a text, without control ids."""
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> FlatIds:
        """Encode texts as `encode` does, one after another, without an object a byte.

        Returns:
            ids: (total,) uint32; offsets: (len(texts) + 1,) int64.
        """
        encoded = [text.encode() for text in texts]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=offsets[1:])
        return np.frombuffer(b"".join(encoded), np.uint8).astype(np.uint32), offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids; control ids decode to nothing, what is not UTF-8 to U+FFFD."""
        return bytes(i for i in ids if i < BYTES).decode(errors="replace")

    def save(self, directory: Path) -> None:
        """Write the control tokens, which is all there is to say."""
        text = json.dumps({"control_tokens": CONTROL_TOKENS}, indent=1) + "\n"
        (directory / FILE).write_text(text, "utf-8", newline="\n")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a tokenizer that `save` wrote.

        Raises:
            ArtefactError: the file is missing or damaged, or another version wrote it.
        """
        path = directory / FILE
        try:
            said = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{path}: not a saved tokenizer: {error}") from None
        if said != {"control_tokens": CONTROL_TOKENS}:
            raise ArtefactError(f"{path}: does not hold the control tokens of this tokenizer")
        return cls()
