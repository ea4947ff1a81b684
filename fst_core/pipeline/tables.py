"""The tables of a pipeline.toml, with what the command line overrides in them."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from fst_core.errors import FstError, SettingsError, UserError
from fst_core.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

__all__ = ["override", "read_tables"]

_LARGEST = 2**18
"""Bytes; nobody writes a longer pipeline by hand."""
_DEEPEST = 32
"""Levels of tables and arrays inside each other."""
_CHOOSES = re.compile(r"\s*[\w.-]+\.use\s*=")
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_DOTTED = re.compile(r"(?<![\w-])(?:[\w-]+[ \t]*\.[ \t]*){100}")
"""A key of a hundred parts, on which the parser would take long before its depth could be seen."""


def read_tables(path: Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a pipeline file, if there is one, and set each `key=value` of the overrides in it.

    Raises:
        UserError: the file is missing, too long, not UTF-8 or not TOML; the message names the place.
        SettingsError: an override leads nowhere.
    """
    tables = {} if path is None else _parse(path)
    override(tables, overrides)
    if wrong := _impossible(tables):
        raise UserError(f"{path or 'the command line'}: {wrong}")
    return tables


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file. `fst init` writes a pipeline to begin with."
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise UserError(f"{path}: longer than {_LARGEST} bytes: not a pipeline")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
    try:
        tables = None if _DOTTED.search(text) else tomllib.loads(text)
    except RecursionError:
        tables = None
    except ValueError as error:  # also of an integer with thousands of digits
        raise UserError(f"{path}: not TOML: {_brief(str(error))}") from None
    if tables is None:
        raise UserError(f"{path}: nested too deeply")
    return tables


def _brief(text: str) -> str:
    """Return a message of the parser as one line, whose end says where; it may quote a whole file."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:120]} ... {line[-70:]}"


def _impossible(tables: dict[str, Any]) -> str | None:
    """Return what no setting can hold and yet is valid TOML, or None."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(tables, ())]
    while waiting:
        value, path = waiting.pop()
        if len(path) > _DEEPEST:
            return "nested too deeply"
        if isinstance(value, dict):
            waiting.extend((inner, (*path, key)) for key, inner in value.items())
        elif isinstance(value, list):
            waiting.extend((inner, (*path, str(index))) for index, inner in enumerate(value))
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"{'.'.join(path)}: an integer of more than 64 bits"
        elif isinstance(value, str) and _UNWRITABLE.search(value):
            return f"{'.'.join(path)}: a string with a NUL, or not UTF-8"
    return None


def override(tables: dict[str, Any], texts: Sequence[str], option: str = "-s") -> None:
    """Set each dotted `key=value` in the tables; those that choose a component by `use` come first.

    A value is a TOML value; what is not one is taken as a string, so that a shell needs no quotes.
    Where another component is chosen than the one that is written, settings stay that both have.

    Raises:
        SettingsError: one leads nowhere; the message names the option that it was given by.
    """
    chosen_first = sorted(texts, key=lambda text: not _CHOOSES.match(text))
    problems = [wrong for text in chosen_first if (wrong := _set(tables, text, option))]
    if problems:
        raise SettingsError("the command line", problems)


def _set(tables: dict[str, Any], text: str, option: str) -> str | None:
    """Set one `key=value`; return what is wrong with it, if something is."""
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        return f"{option} {text}: not of the form key=value"
    at: Any = tables
    for depth, name in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(at, list):
            if not name.isdecimal():
                meant = ".".join([*path[:depth], "0", *path[depth:]])
                return f"{option} {key}: there may be several: name one by its number, as {meant}"
            if int(name) > len(at) or (last and int(name) == len(at)):
                return f"{option} {key}: '{name}' is no entry of an array of {len(at)}"
            if int(name) == len(at):  # the entry after the last begins a new one
                at.append({})
            if last:
                at[int(name)] = _value(value)
            at = at[int(name)]
        elif isinstance(at, dict):
            if last:
                _put(at, path, _value(value))
            elif name not in at:
                at[name] = [] if path[depth + 1].isdecimal() else {}
            at = at[name]
        else:
            return f"{option} {key}: '{'.'.join(path[:depth])}' is a value, not a table"
    return None


def _put(table: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the key that a path ends with in its table."""
    if path[-1] == "use" and table.get("use", value) != value:
        for other in table.keys() - _settings(path, value):
            del table[other]
    table[path[-1]] = value


def _settings(path: Sequence[str], use: object) -> Collection[str]:
    """Return the names of the settings of the component that is to be chosen; none if there is no such."""
    from fst_core.pipeline.pipeline import TABLES  # which itself needs this module

    kind = "executor" if list(path[:2]) == ["dataset", "executor"] else TABLES.get(path[0])
    if kind is None or not isinstance(use, str):
        return ()
    try:
        cls = registry().find(kind, use).settings_class()
    except FstError:  # it is told where the pipeline is checked
        return ()
    return () if cls is None else set(cls.model_fields)


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text
