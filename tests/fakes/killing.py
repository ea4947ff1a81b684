"""Kills a child at every operation on files, then at random moments; for a process of its own, which forks.

It finds this file by `env=environment_of(["."])`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

FILES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"}


def kill_everywhere(make, check, before=lambda: None):
    """Print at how many operations a child was killed, how often its result was there, and how many in time.

    `make` is what a child does, when `before` has been done. `check` looks at what is left, takes it
    away, and says whether it was a result. What has to be imported, `make` has imported once before.
    """
    begun = time.perf_counter()
    make()
    took = time.perf_counter() - begun
    check()
    operations, published = 0, 0
    while _killed(make, before, operation=operations + 1):
        operations += 1
        published += check()
    check()
    rng = random.Random(228)
    timed = 0
    for _ in range(8):
        timed += _killed(make, before, wait=rng.uniform(0, took))
        check()
    print(json.dumps([operations, published, timed]))


def produced(directory):
    """Return the bytes of every file but the manifest, which tells the time."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "fst.json"
    }


def _killed(make, before, *, wait=None, operation=None):
    """Return whether a child was killed, after some seconds or at an operation, before it was done."""
    before()
    pid = os.fork()
    if not pid:
        counted = 0

        def audit(event, arguments):
            nonlocal counted
            counted += event in FILES
            if event in FILES and counted == operation:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        make()
        os._exit(0)
    if wait is not None:
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL
