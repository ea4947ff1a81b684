"""The tokenizer `pretrained`: that of a model which somebody trained already."""

from __future__ import annotations

import os
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from fst_core import Tokenizer
from fst_core.artefacts.digests import digest_files
from fst_core.errors import ArtefactError, MissingDependency, one_line
from fst_core.tokenizer_json import (
    CONFIG,
    TEMPLATE,
    TOKENIZER,
    TokenizerJson,
    read_json,
    read_small,
)
from fst_transformers.hub import fetch
from fst_transformers.tokenizer_settings import PretrainedTokenizerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from fst_core.interfaces.tokenizer import FlatIds

__all__ = ["PretrainedTokenizer"]

_TOKENS: Final = ("bos_token", "eos_token", "pad_token", "unk_token")
_MAP: Final = "special_tokens_map.json"
_ENDS: Final = ("generation_config.json", "config.json")
_BESIDE: Final = (CONFIG, TEMPLATE, _MAP, *_ENDS)
_FILES: Final = (
    TOKENIZER, *_BESIDE, "added_tokens.json", "vocab.json", "merges.txt",
    "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip
"""The files of a directory that may decide what its tokenizer does."""

_REMEDY: Final = "Name a directory, a tokenizer.json, a .gguf file or a hub name."

_PROBE: Final = " It's  A\tprobe:\r\n 1234 é e\u0301 ﬁ жΩ漢😀\n"
"""Text of which a tokenizer that loses something loses something."""


class PretrainedTokenizer(Tokenizer):
    """A model's own tokenizer: prompts have the ids that `transformers` gives them.

    `end_id` is its end-of-sequence token, and `bos_id` what it puts before a text by itself; an end
    that it puts behind every text is left out of a prompt, which a generation would never follow.
    No code of a model's directory is run.

    Raises:
        ArtefactError: there is no such tokenizer, or it does not fit the rules of a Tokenizer.
    """

    def __init__(self, settings: PretrainedTokenizerSettings) -> None:
        self._path = settings.path
        path = Path(settings.path).expanduser()
        if path.is_file() and path.suffix.lower() == ".gguf":
            self._sources = [path]
            found = _open(path.parent, str(path), gguf_file=path.name)
        elif path.is_file():
            self._sources = _present(path, *(path.parent / name for name in _BESIDE))
            found = _read(path)
        else:
            directory = path if path.is_dir() else fetch(settings.path, _FILES, _REMEDY)
            self._sources = _present(*(directory / name for name in _FILES))
            for source in self._sources:
                read_small(source)  # refused here before anybody else opens it
            found = _open(directory, settings.path)
        self._file, self._tokens, self._template = found
        if settings.end_token is not None:
            self._tokens["eos_token"] = settings.end_token
        elif "eos_token" not in self._tokens:
            self._tokens["eos_token"] = self._named_end()
        self._set_control_ids()
        came_back = self._file.decode(self._file.encode(_PROBE))
        self.lossy = came_back != _PROBE

    def fingerprint(self) -> str:
        """Return the sha256 over the tokenizer's files."""
        return digest_files(self._sources)

    def encode(self, text: str) -> list[int]:
        """Encode a text, without control ids."""
        return self._file.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> FlatIds:
        """Encode texts as `encode` does, one after another."""
        return self._file.encode_batch(texts)

    def encode_long(self, text: str) -> Iterator[NDArray[np.uint32]]:
        """Yield what `encode_documents` gives of one text, some ids at a time."""
        if self.bos_id is not None:
            yield np.array([self.bos_id], np.uint32)
        yield from self._file.encode_long(text)
        yield np.array([self.end_id], np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids; control ids decode to nothing."""
        return self._file.decode(ids)

    def save(self, directory: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and, where there is one, chat_template.jinja."""
        self._file.save(directory, self._tokens, chat_template=self._template)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote; `transformers` is not needed."""
        path = directory / TOKENIZER
        if not path.is_file():
            raise ArtefactError(f"{path}: missing")
        return cls(PretrainedTokenizerSettings(path=str(path)))

    def _set_control_ids(self) -> None:
        try:
            begin = self._file.begin()
            end = self._known("eos_token")
            # Some pad with the unknown token, which text may well yield.
            pads = self._tokens.get("pad_token") not in {None, self._tokens.get("unk_token")}
            pad = self._known("pad_token") if pads else end
            control = [self._file.token(i) for i in {*begin, end, pad}]
            self._file.reserve(token for token in control if token is not None)
        except ValueError as error:
            raise ArtefactError(f"{self._path}: {error}") from None
        if len(begin) > 1:
            raise ArtefactError(f"{self._path}: it begins a text with {len(begin)} control tokens")
        self.vocab_size = self._file.vocab_size
        self.bos_id = begin[0] if begin else None
        self.end_id, self.pad_id = end, pad

    def _known(self, name: str) -> int:
        token_id = self._file.token_id(self._tokens[name])
        if token_id is None:
            raise ValueError(f"its {name} {self._tokens[name]!r} is not in its vocabulary")
        return token_id

    def _named_end(self) -> str:
        """Return the end token that the model's configs name by its id."""
        for source in (source for source in self._sources if source.name in _ENDS):
            named = read_json(source).get("eos_token_id")
            first = named[0] if isinstance(named, list) and named else named
            if isinstance(first, int) and (token := self._file.token(first)) is not None:
                return token
        raise ArtefactError(
            f"{self._path}: it does not say which token ends a document. Set end_token."
        )


Found = tuple[TokenizerJson, dict[str, str], str | None]
"""A tokenizer, its control tokens by the names of `transformers`, its chat template."""


def _read(path: Path) -> Found:
    """Read a tokenizer.json, with the configs beside it, if any."""
    file = TokenizerJson.read(path)
    fields: dict[str, Any] = {}
    for source in _present(path.parent / _MAP, path.parent / CONFIG):
        fields |= read_json(source)
    template = fields.get("chat_template")
    if (beside := path.parent / TEMPLATE).is_file():
        template = read_small(beside).decode("utf-8", "replace")
    tokens = {name: _content(fields.get(name)) for name in _TOKENS}
    found = {name: token for name, token in tokens.items() if token is not None}
    return file, found, template if isinstance(template, str) else None


def _content(token: object) -> str | None:
    """Return a token that a config writes as a string or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _open(directory: Path, name: str, gguf_file: str | None = None) -> Found:
    """Open a directory or a GGUF file as `transformers` does."""
    import tokenizers
    from transformers import AutoTokenizer

    from fst_transformers.gguf_reader import reading_once
    from fst_transformers.quiet import quiet

    options = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        with quiet(), nullcontext() if gguf_file is None else reading_once():
            opened = AutoTokenizer.from_pretrained(
                os.fspath(directory), local_files_only=True, trust_remote_code=False, **options
            )
    except ImportError as error:
        raise MissingDependency(f"{name}: {one_line(error)}") from None
    except Exception as error:  # noqa: BLE001  # damaged files make transformers raise anything
        if gguf_file is not None and isinstance(error, (struct.error, IndexError, EOFError)):
            raise ArtefactError(f"{name}: damaged or incomplete: get the file again") from None
        own_code = "trust_remote_code" in str(error)
        reason = "it has code of its own, which is never run" if own_code else one_line(error)
        raise ArtefactError(f"{name}: not a tokenizer that can be used: {reason}") from None
    pipeline = getattr(opened, "backend_tokenizer", None)
    if not isinstance(pipeline, tokenizers.Tokenizer):
        raise ArtefactError(
            f"{name}: {type(opened).__name__} is Python code; only a tokenizer.json is supported"
        )
    tokens = {key: str(token) for key in _TOKENS if (token := getattr(opened, key, None))}
    template = opened.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return TokenizerJson(pipeline), tokens, template


def _present(*paths: Path) -> list[Path]:
    return [path for path in paths if path.is_file()]
