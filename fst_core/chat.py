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

__all__ = ["DEFAULT", "SECONDS", "ChatTemplate"]

DEFAULT: Final = """\
{%- for message in messages %}
{{- message.role | capitalize }}: {{ message.content | trim }}
{% endfor %}
{%- if add_generation_prompt %}
{{- 'Assistant:' }}
{%- endif %}
"""
"""For models that learned no conversations: a text like a play's, as many stand in their documents."""

SECONDS: Final = 1.0
"""How long a template may take, once its process runs."""

_LARGEST: Final = 256 * 1024
"""Characters of a template; those in use have some 10,000."""
_ROLES: Final = ("system", "user", "assistant")
_TOKENS: Final = ("bos_token", "eos_token", "pad_token", "unk_token")


class ChatTemplate:
    """Turns conversations into ids; `kind` says whether the model learned it ("trained").

    Thread-safe. The default template needs no process, as it is known.
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
        self._control = dict(control or {})
        self._renderer = None if source is None else _Renderer(source, dict(variables or {}))

    @classmethod
    def read(cls, directory: Path, *, trained: bool) -> ChatTemplate:
        """Read the template of a directory that a tokenizer or a model was saved in.

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
        fields = read_json(directory / CONFIG) if (directory / CONFIG).is_file() else {}
        named = {name: _content(fields.get(name)) for name in _TOKENS}
        variables = {name: token for name, token in named.items() if token is not None}
        return cls(source, _control_tokens(directory / TOKENIZER), variables)

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
        turns = [_turn(message) for message in messages]
        if self._renderer is None:
            return tokenizer.encode_prompt(_default(turns))
        mark = _unused("".join(turn["content"] for turn in turns))
        marked = [turn | {"content": self._harmless(turn["content"], mark)} for turn in turns]
        text = self._renderer.render(marked)
        ids: list[int] = []
        for piece in self._pieces(text):
            if piece in self._control:
                ids.append(self._control[piece])
            else:
                ids.extend(tokenizer.encode(piece.replace(mark, "")))
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

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return what the template writes; if it fails badly, the next call begins anew.

        Raises:
            FstError: it raises an error, takes too long or too much memory.
            MissingDependency: jinja2 is not installed.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self._begin()
            answer = _ask(self._process, json.dumps(messages), SECONDS)
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


def _default(turns: Sequence[Mapping[str, str]]) -> str:
    """Return what the default template renders."""
    lines = (f"{turn['role'].capitalize()}: {turn['content'].strip()}\n" for turn in turns)
    return "".join(lines) + "Assistant:"


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
