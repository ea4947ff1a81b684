"""A `tokenizer.json`, the format that the tokenizers of Hugging Face share.

The file holds a whole tokenizer; `tokenizer_config.json` beside it says which of its tokens are
control tokens. `transformers` opens a directory of the two. The library `tokenizers` does the work.
"""

from __future__ import annotations

import json
import re
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self

from fst_core.encoding import current_bulk, encode_by_reference, surrounded
from fst_core.errors import ArtefactError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from fst_core.interfaces.tokenizer import FlatIds

__all__ = ["CONFIG", "TEMPLATE", "TOKENIZER", "TokenizerJson", "read_json", "read_small"]

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"

_LARGEST = 64 * 2**20
"""Bytes; the largest vocabularies in use take half of it."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A token that stands for one byte of a character that has no token of its own."""


class TokenizerJson:
    """A tokenizer of the library `tokenizers`, under the rules of `fst_core.Tokenizer`.

    Control tokens are those that the file calls special: no text encodes to them, they decode to
    nothing. What the file says about cutting, padding and dropout belongs to another use of it, and
    is left out.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # as text, that is
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        self._tokenizer = tokenizer
        self.vocab_size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        """The highest id and one: files leave gaps."""

    @classmethod
    def read(cls, path: Path, *, prefix: str = "") -> Self:
        """Read a file, without the `prefix` that it was saved with.

        Raises:
            ArtefactError: it is missing, damaged, too large, or has another prefix.
        """
        from tokenizers import Tokenizer
        from tokenizers.normalizers import Prepend

        content = read_small(path)
        try:
            tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # noqa: BLE001  # the library raises nothing narrower
            raise ArtefactError(f"{path}: not a tokenizer.json: {one_line(error)}") from None
        if prefix:
            normalizer = tokenizer.normalizer
            if not isinstance(normalizer, Prepend) or normalizer.prepend != prefix:
                raise ArtefactError(f"{path}: does not put {prefix!r} before a text")
            tokenizer.normalizer = None
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Encode a text, without control ids."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], *, before: str = "", after: str = "") -> FlatIds:
        """Encode texts one after another, each between `before` and `after`, on every core.

        Inside `bulk_encoding` it is as fast as can be, and a long text is cut where that is safe.

        Returns:
            ids: (total,) uint32; offsets: (len(texts) + 1,) int64.
        """
        bulk = current_bulk()
        if bulk is None:
            return encode_by_reference(self._tokenizer, surrounded(texts, before, after))
        return bulk.encode(self._tokenizer, texts, before, after)

    def encode_long(
        self, text: str, *, before: str = "", after: str = ""
    ) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of one text, some at a time where that is safe; inside `bulk_encoding` alone."""
        bulk = current_bulk()
        if bulk is None:
            yield encode_by_reference(self._tokenizer, surrounded([text], before, after))[0]
        else:
            yield from bulk.encode_long(self._tokenizer, text, before, after)

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids; control ids and ids that nothing has decode to nothing, cut characters to U+FFFD."""
        known = [i for i in ids if 0 <= i < self.vocab_size]
        text = self._tokenizer.decode(known, skip_special_tokens=True)
        if "\ufffd" in text and "ByteFallback" in repr(self._tokenizer.decoder):
            return self._decode_runs(known)
        return text

    def _decode_runs(self, ids: Iterable[int]) -> str:
        """Decode ids some of which are bytes, as Llama's.

        The library gives up all bytes that stand together if one character of theirs is cut, so what
        a stream has shown would change.
        """
        added = self._tokenizer.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special}
        named = (self.token(i) for i in ids if i not in special)
        tokens: list[str] = []
        for are_bytes, run in groupby(filter(None, named), lambda t: bool(_BYTE.fullmatch(t))):
            if are_bytes:
                tokens.append(bytes(int(t[3:5], 16) for t in run).decode("utf-8", "replace"))
            else:
                tokens.extend(run)
        text: str = self._tokenizer.decoder.decode(tokens)
        return text

    def token(self, token_id: int) -> str | None:
        """Return the token of an id; None if it has none."""
        return self._tokenizer.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None

    def token_id(self, token: str) -> int | None:
        """Return the id of a token; None if it is none of the vocabulary."""
        return self._tokenizer.token_to_id(token)

    def reserve(self, tokens: Iterable[str]) -> None:
        """Turn tokens of the vocabulary into control tokens.

        Raises:
            ValueError: text yields one of them all the same.
        """
        from tokenizers import AddedToken

        added = self._tokenizer.get_added_tokens_decoder()
        special = {token.content for token in added.values() if token.special}
        for token in tokens:
            if token not in special:
                added_token = AddedToken(token, normalized=False, special=True)
                self._tokenizer.add_special_tokens([added_token])
            if self.token_id(token) in self.encode(token):
                raise ValueError(f"the text {token!r} yields the control token of that name")

    def begin(self) -> list[int]:
        """Return the control ids that the file itself puts before a text.

        Raises:
            ValueError: the file names a token that it does not have.
        """
        try:
            encoding = self._tokenizer.encode("a", add_special_tokens=True)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # the library's, and not an Exception
                raise
            raise ValueError(f"its post-processor is damaged: {one_line(error)}") from None
        mask = [*encoding.special_tokens_mask, 0]
        return encoding.ids[: mask.index(0)]

    def save(
        self,
        directory: Path,
        tokens: Mapping[str, str],
        *,
        prefix: str = "",
        chat_template: str | None = None,
    ) -> None:
        """Write the files that `transformers` opens, the same bytes each time.

        Args:
            directory: Exists.
            tokens: Its control tokens, as `eos_token`, `bos_token`, `pad_token`.
            prefix: What the file puts before a text; what `encode` encodes has it already.
            chat_template: The Jinja template of a conversation.
        """
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **tokens,
            "clean_up_tokenization_spaces": False,
            # Without token_type_ids, which transformers 4 makes and GPT-2 adds to its input.
            "model_input_names": ["input_ids", "attention_mask"],
        }
        if chat_template is None:
            # As here: no text yields a control id. A template's text has to yield its own.
            config["split_special_tokens"] = True
        content = self._tokenizer.to_str()
        if prefix:
            # It stands there once, and before the vocabulary: inside a string its quotes are escaped.
            # To parse the whole takes ten times as long.
            fields = {"type": "Prepend", "prepend": prefix}
            normalizer = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
            content = content.replace('"normalizer":null', f'"normalizer":{normalizer}', 1)
        _write(directory / TOKENIZER, content)
        _write(directory / CONFIG, json.dumps(config, ensure_ascii=False, indent=1))
        if chat_template is not None:
            (directory / TEMPLATE).write_bytes(chat_template.encode())

    # A copy made for another process must know what the file has no word for.

    def __getstate__(self) -> str:
        return self._tokenizer.to_str()

    def __setstate__(self, state: str) -> None:
        from tokenizers import Tokenizer

        self.__init__(Tokenizer.from_str(state))  # type: ignore[misc]  # the object is new here


def read_json(path: Path) -> dict[str, Any]:
    """Read a small file of a JSON object.

    Raises:
        ArtefactError: it is missing, damaged or too large.
    """
    try:
        fields = json.loads(read_small(path))
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: damaged: {error}") from None
    if not isinstance(fields, dict):
        raise ArtefactError(f"{path}: not a JSON object")
    return fields


def read_small(path: Path) -> bytes:
    """Read a file of at most 64 MiB.

    Raises:
        ArtefactError: it is missing, too large or cannot be read.
    """
    try:
        if not path.is_file():
            raise ArtefactError(f"{path}: no such file")
        if path.stat().st_size > _LARGEST:
            raise ArtefactError(f"{path}: larger than {_LARGEST // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", "utf-8", newline="\n")
