"""The worker: a thread that runs the scheduler and tells event loops what came of it."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fst_core.errors import EngineBusy, FstError
from fst_core.generation import Chunk
from fst_engine.row import Fault, Token
from fst_engine.sampling import failure

if TYPE_CHECKING:
    from fst_core.generation import Detokenizer
    from fst_engine.row import Row
    from fst_engine.scheduler import Scheduler

__all__ = ["Job", "Worker"]


@dataclass(eq=False, slots=True)
class Job:
    """A request on its way: its row for the scheduler, its text for the one who waits."""

    row: Row
    detokenizer: Detokenizer
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    chunks: asyncio.Queue[Chunk | FstError] = field(default_factory=asyncio.Queue)
    """Ends with a chunk that has a finish reason, or with an error."""
    since: float = field(default_factory=time.monotonic)
    told: bool = False
    """Whether a chunk was handed over."""


class Worker:
    """Runs a scheduler in a thread of its own, which begins with the first job.

    What a step brings is handed over with one call a step and event loop. If the thread fails,
    every job gets the error, and so does every later one.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        capacity: int,
        *,
        waiting_seconds: float,
        stall_seconds: float,
    ) -> None:
        self._scheduler = scheduler
        self._capacity = capacity
        self._waiting_seconds = waiting_seconds
        self._stall_seconds = stall_seconds
        self._jobs: dict[Row, Job] = {}
        self._new: list[Row] = []
        self._cancelled: list[Row] = []
        self._beat = 0.0
        """When there was progress last: a step ended, or work came after a rest."""
        self._ended: FstError | None = None
        """Why no job is taken any more."""
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        """Guards everything above but the scheduler, which is the thread's alone."""
        _WORKERS.add(self)

    @property
    def running(self) -> int:
        """How many requests are in the batch."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """How many requests are not in the batch yet."""
        return max(0, len(self._jobs) - self.running)

    @property
    def alive(self) -> bool:
        """Whether the thread takes jobs, and gets on with those that it has."""
        with self._changed:
            stalled = self._jobs and time.monotonic() - self._beat > self._stall_seconds
            return not (self._ended or stalled)

    def submit(self, job: Job) -> None:
        """Put a job in line; its chunks come to its queue.

        Raises:
            EngineBusy: too many are in line.
            FstError: the worker has ended.
        """
        with self._changed:
            if self._ended:
                raise FstError(str(self._ended))
            if len(self._jobs) >= self._capacity:
                raise EngineBusy(
                    f"{len(self._jobs)} requests are running or waiting already: try again later"
                )
            if not self._jobs:
                self._beat = time.monotonic()
            self._jobs[job.row] = job
            self._new.append(job.row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fst-engine", daemon=True)
                self._thread.start()
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take a job out, before the next step; nothing happens if it is complete."""
        with self._changed:
            if self._jobs.pop(job.row, None):
                self._cancelled.append(job.row)
                self._changed.notify()

    def close(self) -> None:
        """Fail all jobs, and end the thread after its step."""
        self._end(FstError("the engine is closed"))

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended, or for so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while self._receive():
                self._deliver(self._scheduler.step())
                self._beat = time.monotonic()
                self._refuse_late()
        except BaseException as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
            self._end(FstError(f"the engine stopped: {type(error).__name__}: {error}"))

    def _receive(self) -> bool:
        """Hand the scheduler what came in; wait while there is nothing to do. False: it is over."""
        with self._changed:
            while not (self._ended or self._new or self._cancelled) and self._scheduler.idle:
                self._changed.wait()
            for row in self._new:
                self._scheduler.submit(row)
            for row in self._cancelled:
                self._scheduler.cancel(row)
            self._new.clear()
            self._cancelled.clear()
            return self._ended is None

    def _deliver(self, outcomes: list[Token | Fault]) -> None:
        """Turn a step's outcomes into text, and hand each event loop its own."""
        told: dict[asyncio.AbstractEventLoop, list[tuple[Job, Chunk | FstError]]]
        told = defaultdict(list)
        for outcome in outcomes:
            with self._changed:
                job = self._jobs.get(outcome.row)
            if job is None:  # cancelled during the step, or ended by a stop string in it
                continue
            message = _message(job, outcome)
            if isinstance(message, FstError) or message.finish_reason:
                self._finish(job)
            told[job.loop].append((job, message))
        for loop, messages in told.items():
            if not _tell(loop, messages):  # nobody waits there any more
                for job, _ in messages:
                    self._finish(job)

    def _refuse_late(self) -> None:
        """Refuse those that have waited too long for a place."""
        latest = time.monotonic() - self._waiting_seconds
        for row in [row for row in self._scheduler.waiting if not row.begun]:
            job = self._jobs.get(row)
            if job is not None and job.since < latest:
                self._finish(job)
                seconds = f"{self._waiting_seconds:g}"
                error = EngineBusy(f"waited {seconds} s for a place: try again later")
                _tell(job.loop, [(job, error)])

    def _finish(self, job: Job) -> None:
        """Forget a job; the scheduler too, if a stop string ended it."""
        with self._changed:
            self._jobs.pop(job.row, None)
        self._scheduler.cancel(job.row)

    def _end(self, error: FstError) -> None:
        """Take no more jobs, and fail those that there are."""
        with self._changed:
            self._ended = self._ended or error
            jobs = list(self._jobs.values())
            self._jobs.clear()
            self._changed.notify()
        for job in jobs:
            _tell(job.loop, [(job, FstError(str(error)))])


_WORKERS: weakref.WeakSet[Worker] = weakref.WeakSet()
_LAST_STEP: Final = 5.0
"""Seconds that a process waits for a step before it exits."""


@atexit.register
def _end_all() -> None:
    """End every thread before the interpreter does: within a computation of torch, that aborts the process."""
    workers = list(_WORKERS)
    for worker in workers:
        worker.close()
    for worker in workers:
        worker.join(_LAST_STEP)


def _message(job: Job, outcome: Token | Fault) -> Chunk | FstError:
    """Return the chunk that tells of an outcome."""
    if isinstance(outcome, Fault):
        return outcome.error
    reason = outcome.finish_reason
    ids = () if outcome.id is None else (outcome.id,)
    try:
        # An id that ends the text has none.
        text = "" if reason == "stop" else job.detokenizer.push(ids)
        if reason:
            text += job.detokenizer.finish()
    except Exception as error:  # noqa: BLE001  # a stranger's tokenizer may raise anything
        return failure("the tokenizer failed", error)
    first, job.told = not job.told, True
    return Chunk(
        text=text,
        ids=ids,
        logprobs=None if outcome.logprob is None else (outcome.logprob,),
        finish_reason="stop" if job.detokenizer.stopped else reason,
        prompt_tokens=job.row.prompt_length if first else None,
        prompt_logprobs=outcome.prompt_logprobs,
    )


def _tell(loop: asyncio.AbstractEventLoop, messages: list[tuple[Job, Chunk | FstError]]) -> bool:
    """Put messages into the queues of their jobs; False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(_put, messages)
    except RuntimeError:
        return False
    return True


def _put(messages: list[tuple[Job, Chunk | FstError]]) -> None:
    for job, message in messages:
        job.chunks.put_nowait(message)
