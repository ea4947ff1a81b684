"""How often the Bot API may be called, in a chat and by a bot; see `bot_api`."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from math import ceil

from bot_api_texts import Refused


@dataclass(frozen=True)
class Limits:
    """Calls a second and a minute; Telegram tells of these, and bears short bursts."""

    burst: int = 3
    """How many messages a chat takes at once, after a pause; from then on one a second."""
    group_minute: int = 20
    """How many a group takes in a minute."""
    bot_second: int = 30
    """How many a bot sends in a second, to all chats."""
    slack: float = 0.1
    """By how many seconds a call may come early: those that a network takes from the time between two."""


class Pace:
    """Counts the calls of a bot, and refuses what comes too fast, longer each time it is not heeded."""

    def __init__(self, limits, now):
        self.limits, self.now = limits, now
        self.until = {}
        """By chat: when its refusal ends."""
        self.waits = {}
        """By chat: how long the current refusal was, in whole."""
        self.violations = []
        """(chat, at): calls within a refusal."""
        self._levels = {}
        """By chat: (messages in its bucket, when it was so); one leaves it each second."""
        self._sent = defaultdict(lambda: deque(maxlen=limits.group_minute))
        self._all = deque(maxlen=limits.bot_second)

    def refuse(self, chat, seconds):
        """Refuse a chat's calls for so many seconds, as after a flood."""
        self.until[chat] = self.now() + seconds
        self.waits[chat] = seconds

    def count(self, chat, *, group):
        """Count a call to a chat.

        Raises:
            Refused: it comes too fast (429 with retry_after).
        """
        now = self.now()
        left = self.until.get(chat, 0) - now
        if left > self.limits.slack:
            self.violations.append((chat, now))
            self.refuse(chat, min(self.waits[chat] * 4, 600))
            raise _too_many(self.waits[chat])
        level, at = self._levels.get(chat, (0.0, now))
        level = max(0.0, level - (now - at)) + 1
        wait = max(level - self.limits.burst, _early(self._all, now, 1))
        if group:
            wait = max(wait, _early(self._sent[chat], now, 60))
        if wait > self.limits.slack:
            self.refuse(chat, ceil(wait))
            raise _too_many(ceil(wait))
        self._levels[chat] = level, now
        self._sent[chat].append(now)
        self._all.append(now)


def _early(sent, now, seconds):
    """Return how long it is until the oldest of a full row of calls is so many seconds ago."""
    return sent[0] + seconds - now if len(sent) == sent.maxlen else 0.0


def _too_many(seconds):
    return Refused(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
