"""The clock of the fake Bot API; see `bot_api`."""

from __future__ import annotations

import time


class Clock:
    """Seconds that pass `scale` times faster than real ones, the same in every process that knows `told`."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.origin, self.wall_origin = time.monotonic(), time.time()

    def now(self):
        """Return the seconds since something long ago."""
        return self.at(time.monotonic())

    def at(self, real):
        """Return when something was, of which the machine's monotonic clock is known."""
        return self.origin + (real - self.origin) * self.scale

    def wall(self, now):
        """Return the time of day, in seconds since 1970, of a time of this clock."""
        return self.wall_origin + now - self.origin

    @property
    def told(self):
        """What another process needs, to have the same clock."""
        return f"{self.scale!r},{self.origin!r},{self.wall_origin!r}"
