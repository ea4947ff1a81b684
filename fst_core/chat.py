"""Chat: conversations become ids by the template that lies beside a model.

A template is a stranger's program, so it runs in a process of its own (`chat_process`), within
limits. Its control tokens become ids; what people say never yields one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from fst_core.errors import ArtefactError, FstError, MissingDependency, UserError
from fst_core.tokenizer_json import CONFIG, TEMPLATE, TOKENIZER, read_json, read_small

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fst_core.documents import Message
    from fst_core.interfaces.tokenizer import Tokenizer

__all__ = ["DEFAULT", "LEARNED", "SECONDS", "ChatTemplate"]

DEFAULT: Final = """\
{%- for message in messages %}
{{- message.role | capitalize }}: {{ message.content | trim }}
{% endfor %}
{%- if add_generation_prompt %}
{{- 'Assistant:' }}
{%- endif %}
"""
"""For models that learned no conversations: a text like a play's, as many stand in their documents."""

LEARNED: Final = """\
{{- bos_token }}
{%- for message in messages %}
{{- message.role | capitalize }}: {{ message.content | trim }}
{%- if message.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
"""
"""What conversations are learned by where the tokenizer has no template of its own: each answer is ended."""

SECONDS: Final = 1.0
"""How long a template may take, once its process runs."""

_LARGEST: Final = 256 * 1024
"""Characters of a template; those in use have some 10,000."""
_ROLES: Final = ("system", "user", "assistant")
_TOKENS: Final = ("bos_token", "eos_token", "pad_token", "unk_token")
_BEGIN, _END = "[DOC_START]", "[DOC_END]"
"""How a tokenizer's control ids are spelled in `LEARNED` where it has no spelling of its own."""


class ChatTemplate:
    """Turns conversations into ids; `kind` says whether the model learned it ("trained").

    Thread-safe. The templates that are known here need no process.
    """

    def __init__(
        self,
        source: str | None = None,
        control: Mapping[str, int] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Take a template, None for the default one.

        Args:
            source: Jinja, written for `apply_chat_template` of `transformers`.
            control: the control tokens that it may write, with their ids.
            variables: what it may name, as `bos_token`.
        """
        self.kind = "default" if source is None else "trained"
        self.source = DEFAULT if source is None else source
        self._control = dict(control or {})
        self._variables = dict(variables or {})
        known = self.source in {DEFAULT, LEARNED}
        self._renderer = None if known else _Renderer(self.source, self._variables)

    @classmethod
    def read(
        cls, directory: Path, *, trained: bool, tokenizer: Tokenizer | None = None
    ) -> ChatTemplate:
        """Read the template of a directory that a tokenizer or a model was saved in.

        Args:
            directory: where it lies, beside the files of the tokenizer.
            trained: whether the model learned it; if not, it is the default one.
            tokenizer: whose control ids stand for tokens that no file spells.

        Raises:
            ArtefactError: it is missing, damaged or too large.
        """
        if not trained:
            return cls()
        path = directory / TEMPLATE
        try:
            source = read_small(path).decode()
        except UnicodeDecodeError as error:
            raise ArtefactError(f"{path}: not UTF-8 at byte {error.start}") from None
        if len(source) > _LARGEST:
            raise ArtefactError(f"{path}: longer than {_LARGEST} characters")
        return cls._of(source, directory, tokenizer)

    @classmethod
    def to_learn(cls, directory: Path, tokenizer: Tokenizer) -> ChatTemplate:
        """Return the template that conversations are learned by: that of a saved tokenizer, else `LEARNED`.

        Raises:
            ArtefactError: it is damaged or too large.
        """
        if (directory / TEMPLATE).is_file():
            return cls.read(directory, trained=True, tokenizer=tokenizer)
        return cls._of(LEARNED, directory, tokenizer)

    @classmethod
    def _of(cls, source: str, directory: Path, tokenizer: Tokenizer | None) -> ChatTemplate:
        fields = read_json(directory / CONFIG) if (directory / CONFIG).is_file() else {}
        named = {name: _content(fields.get(name)) for name in _TOKENS}
        variables = {name: token for name, token in named.items() if token is not None}
        control = _control_tokens(directory / TOKENIZER)
        if source == LEARNED and tokenizer is not None:
            if tokenizer.bos_id is not None:
                control[variables.setdefault("bos_token", _BEGIN)] = tokenizer.bos_id
            control[variables.setdefault("eos_token", _END)] = tokenizer.end_id
        return cls(source, control, variables)

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer: the next turn of the default template."""
        if self.kind == "trained":
            return ()
        return tuple(f"\n{role.capitalize()}:" for role in _ROLES)

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """Return the ids of a conversation, up to where the answer begins.

        Raises:
            UserError: a role is unknown, or a message is no message.
            FstError: the template fails, or takes too long.
            MissingDependency: it needs jinja2.
        """
        turns, mark = self._marked(messages)
        return self._ids(self._render(turns, to_answer=True), mark, tokenizer)

    def encode_turn(
        self, messages: Sequence[Message], tokenizer: Tokenizer
    ) -> tuple[list[int], list[int]]:
        """Return `encode` of all messages but the last, the assistant's, and what the model is to answer.

        What ends an answer is the control token that the template writes behind it, else the
        tokenizer's `end_id`.

        Raises:
            UserError: a role is unknown, or a message is no message.
            FstError: the template fails, or takes too long.
            MissingDependency: it needs jinja2.
        """
        turns, mark = self._marked(messages)
        content = turns[-1]["content"].strip()
        before = self._render(turns[:-1], to_answer=True)
        whole = self._render(turns, to_answer=False)
        if whole.startswith(before):
            answer = whole[len(before) :]
        else:  # a template may lead into an answer otherwise than it writes one
            at = whole.rfind(content)
            answer = whole[at:] if at >= 0 else content
        end = max(answer.find(content), 0) + len(content)
        behind = self._pieces(answer[end:])
        ended = next((n for n, piece in enumerate(behind, 1) if piece in self._control), 0)
        answer = answer[:end] + "".join(behind[:ended])
        prompt_ids = self._ids(before, mark, tokenizer)
        ids = self._ids(before + answer, mark, tokenizer)
        if ids[: len(prompt_ids)] == prompt_ids:
            ids = ids[len(prompt_ids) :]
        else:  # a token would stand across the border
            first, *rest = self._pieces(answer) or [""]
            ids = [] if first in self._control else tokenizer.encode(first.replace(mark, ""))
            ids += self._ids("".join(rest) if ids else answer, mark, tokenizer)
        return prompt_ids, ids if ended else [*ids, tokenizer.end_id]

    def _marked(self, messages: Sequence[Message]) -> tuple[list[dict[str, str]], str]:
        """Return turns whose contents hold no control token, thanks to a mark, and the mark."""
        turns = [_turn(message) for message in messages]
        mark = _unused("".join(turn["content"] for turn in turns))
        return [turn | {"content": self._harmless(turn["content"], mark)} for turn in turns], mark

    def _render(self, turns: Sequence[Mapping[str, str]], *, to_answer: bool) -> str:
        """Return a conversation's text; with `to_answer`, up to where the assistant's next turn begins."""
        if self._renderer is not None:
            return self._renderer.render(turns, to_answer=to_answer)
        begin, end = "", "\n"
        if self.kind == "trained":
            begin, end = (self._variables.get(name, "") for name in _TOKENS[:2])
        lines = (
            f"{turn['role'].capitalize()}: {turn['content'].strip()}"
            + (end if turn["role"] == "assistant" else "\n")
            for turn in turns
        )
        return begin + "".join(lines) + "Assistant:" * to_answer

    def _ids(self, text: str, mark: str, tokenizer: Tokenizer) -> list[int]:
        """Return the ids of a rendered text, of which what is no control token is encoded as a prompt is."""
        if self.kind == "default":
            return tokenizer.encode_prompt(text.replace(mark, ""))
        framed = int(tokenizer.bos_id is not None)
        ids: list[int] = []
        for piece in self._pieces(text):
            if piece in self._control:
                ids.append(self._control[piece])
            else:
                ids.extend(tokenizer.encode_prompt(piece.replace(mark, ""))[framed:])
        return ids

    def _pieces(self, text: str) -> list[str]:
        """Split a text before and behind its control tokens, the longest first."""
        if not self._control:
            return [text] if text else []
        longest_first = sorted(self._control, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        return [piece for piece in re.split(f"({pattern})", text) if piece]

    def _harmless(self, content: str, mark: str) -> str:
        """Break with a mark what is a control token, or what may become one beside other text."""
        for token in self._control:
            content = content.replace(token, f"{token[0]}{mark}{token[1:]}")
        parts = [(token[:n], token[n:]) for token in self._control for n in range(1, len(token))]
        if any(content.startswith(end) for _, end in parts):
            content = mark + content
        if any(content.endswith(begin) for begin, _ in parts):
            content += mark
        return content


class _Renderer:
    """The process that renders one template; it begins with the first conversation."""

    def __init__(self, source: str, variables: dict[str, str]) -> None:
        self._task = json.dumps({"template": source, "variables": variables})
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def render(self, messages: Sequence[Mapping[str, str]], *, to_answer: bool) -> str:
        """Return what the template writes; if it fails badly, the next call begins anew.

        Raises:
            FstError: it raises an error, takes too long or too much memory.
            MissingDependency: jinja2 is not installed.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self._begin()
            task = json.dumps({"messages": messages, "add_generation_prompt": to_answer})
            answer = _ask(self._process, task, SECONDS)
        if answer is None:
            raise FstError(f"{TEMPLATE}: took more than {SECONDS:g} s, or too much memory")
        if "error" in answer:
            raise FstError(f"{TEMPLATE}: {answer['error']}")
        return str(answer["text"])

    def _begin(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fst_core.chat_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",  # of JSON, which escapes the rest
        )
        weakref.finalize(self, _end, process)
        ready = _ask(process, self._task, 30.0)  # an interpreter may begin slowly
        if ready is None:
            raise FstError(f"{TEMPLATE}: its process cannot begin")
        if ready.get("missing"):
            raise MissingDependency(
                "a chat template needs jinja2. Install it: pip install 'full-stack-transformer[engine]'"
            )
        return process


def _ask(process: subprocess.Popen[str], line: str, seconds: float) -> dict[str, Any] | None:
    """Write a line and read one; None if there is no answer in time, and the process is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    deadline = threading.Timer(seconds, process.kill)
    deadline.start()
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except OSError:
        answer = ""
    finally:
        deadline.cancel()
    if answer.endswith("\n"):
        answered: dict[str, Any] = json.loads(answer)
        return answered
    _end(process)
    return None


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was written into it has no reader any more
                pipe.close()


def _turn(message: object) -> dict[str, str]:
    role, content = getattr(message, "role", None), getattr(message, "content", None)
    if not isinstance(content, str):
        raise UserError("prompt: a conversation has messages alone, each with a text")
    if role not in _ROLES:
        known = ", ".join(_ROLES)
        raise UserError(f"prompt: the role {role!r:.40} is not known. There are: {known}")
    return {"role": role, "content": content}


def _unused(text: str) -> str:
    """Return a character of the private use area that a text has not."""
    return next(c for c in map(chr, range(0xE000, 0xF900)) if c not in text)


def _control_tokens(path: Path) -> dict[str, int]:
    """Return the control tokens of a tokenizer.json; none if there is no such file."""
    if not path.is_file():
        return {}
    added = read_json(path).get("added_tokens", [])
    try:
        return {each["content"]: int(each["id"]) for each in added if each["special"]}
    except (KeyError, TypeError, ValueError):
        raise ArtefactError(f"{path}: damaged: a token lacks its content or id") from None


def _content(token: object) -> str | None:
    """Return a token that a config writes as a string or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
