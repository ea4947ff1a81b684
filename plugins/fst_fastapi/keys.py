"""Keys: who may ask, and how much."""

from __future__ import annotations

import hmac
import os
import re
import stat
import sys
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from fst_core.errors import UserError
from fst_fastapi.errors import ApiError

if TYPE_CHECKING:
    from fst_fastapi.settings import FastapiSettings

__all__ = ["Holder", "Keys", "read_keys"]

_SHORTEST: Final = 16
_LINE: Final = re.compile(r"(?:([A-Za-z0-9._-]{1,64}):)?(\S+)")
_LARGEST: Final = 1 << 20


@dataclass(eq=False, slots=True)
class Holder:
    """The holder of a key, and what it has asked for lately."""

    name: str
    digest: bytes
    running: int = 0
    _allowance: float | None = field(default=None)
    _since: float = field(default_factory=time.monotonic)

    def begin(self, per_minute: int | None, at_once: int | None) -> None:
        """Count a request.

        Raises:
            ApiError: the holder has too many.
        """
        if at_once is not None and self.running >= at_once:
            raise _too_many(f"at most {at_once} requests at the same time", 1)
        if per_minute is not None:
            now = time.monotonic()
            allowance = per_minute if self._allowance is None else self._allowance
            allowance = min(per_minute, allowance + (now - self._since) * per_minute / 60)
            self._allowance, self._since = allowance, now
            if allowance < 1:
                seconds = (1 - allowance) * 60 / per_minute
                raise _too_many(f"at most {per_minute} requests in a minute", seconds)
            self._allowance -= 1
        self.running += 1


class Keys:
    """The keys of a server; without any, everybody may ask."""

    def __init__(self, holders: tuple[Holder, ...] = ()) -> None:
        self._holders = holders

    def __bool__(self) -> bool:
        """Say whether a key is needed."""
        return bool(self._holders)

    def holder(self, authorization: bytes | None) -> Holder | None:
        """Return the holder of a request's key; None if everybody may ask.

        Every key is compared, in a time that does not depend on what is alike.

        Raises:
            ApiError: there is no such key.
        """
        if not self._holders:
            return None
        scheme, _, key = (authorization or b"").partition(b" ")
        presented = sha256(key.strip()).digest()
        found: Holder | None = None
        for holder in self._holders:
            if hmac.compare_digest(holder.digest, presented):
                found = holder
        if found is None or scheme.lower() != b"bearer":
            raise ApiError(
                401,
                "send a key of this server, as in 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return found


def read_keys(settings: FastapiSettings) -> Keys:
    """Read the keys that the settings name.

    Raises:
        UserError: a variable or a file lacks, or holds no good key; keys are never part of messages.
    """
    holders: list[Holder] = []
    if settings.key_env is not None:
        text = os.environ.get(settings.key_env, "")
        if not text.strip():
            raise UserError(f"key_env: the variable {settings.key_env} is not set")
        holders += _holders(text, f"the variable {settings.key_env}")
    if settings.key_file is not None:
        try:
            with settings.key_file.open("rb") as file:
                content = file.read(_LARGEST + 1)
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = content.decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise UserError(f"key_file: {settings.key_file}: {reason}") from None
        if len(content) > _LARGEST:
            raise UserError(f"key_file: {settings.key_file}: longer than {_LARGEST} bytes")
        holders += _holders(text, str(settings.key_file))
        if os.name == "posix" and mode & 0o077:
            print(  # noqa: T201  # for who started the server
                f"key_file: {settings.key_file}: others can reach it (mode {mode:o}): chmod 600",
                file=sys.stderr,
            )
    names = [holder.name for holder in holders]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two keys have the name {min(twice)!r}: give each its own, as name:key")
    return Keys(tuple(holders))


def _holders(text: str, place: str) -> list[Holder]:
    holders: list[Holder] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise UserError(f"{place}: line {number} is neither a key nor name:key")
        name, key = found[1] or "default", found[2]
        if len(key) < _SHORTEST or not key.isascii():
            raise UserError(
                f"{place}: the key of line {number} is shorter than {_SHORTEST} characters, or not "
                "ASCII. Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        holders.append(Holder(name, sha256(key.encode()).digest()))
    if not holders:
        raise UserError(f"{place}: there is no key in it")
    return holders


def _too_many(what: str, seconds: float) -> ApiError:
    wait = str(min(60, max(1, round(seconds + 0.5))))
    return ApiError(
        429,
        f"this key may have {what}: try again in {wait} s",
        code="rate_limit_exceeded",
        headers={"retry-after": wait},
    )
