"""Ctrl-C, SIGTERM, and SIGUSR1 of a cluster: training stops between two batches, where it can go on later."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Interrupted", "Signals"]


class Interrupted(BaseException):
    """A signal asked training to stop.

    Lightning turns KeyboardInterrupt into exit status 1; it lets this pass.
    """

    def __init__(self, number: int, *, at_once: bool = False) -> None:
        self.number = number
        self.at_once = at_once
        super().__init__(signal.Signals(number).name)

    def ending(self) -> BaseException:
        """Return what Python itself raises for Ctrl-C, and status 143 for SIGTERM, 138 for SIGUSR1."""
        if self.number == signal.SIGINT:
            return KeyboardInterrupt()
        return SystemExit(128 + self.number)


class Signals:
    """Remembers the first signal until `check`; a second one leaves at once.

    Handlers belong to the main thread; in another one this does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that has come."""
        self.hurried = False
        """Whether a second one has."""
        self._before = {number: signal.getsignal(number) for number in _NUMBERS}

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *error: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def install(self) -> None:
        """Take the signals, from whoever has them."""
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                signal.signal(number, self._receive)

    def check(self) -> None:
        """Stop if a signal has come.

        Raises:
            Interrupted: one has.
        """
        if self.received is not None:
            raise Interrupted(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a handler's arguments
        if self.received is not None:
            self.hurried = True
            raise Interrupted(number, at_once=True)
        self.received = number


_NUMBERS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""SIGUSR1 is what SLURM is mostly asked to send before a job's time is over; Windows has none."""
