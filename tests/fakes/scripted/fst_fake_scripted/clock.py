"""A clock for the whole process that runs faster, so that waits are short.

`FST_FAKE_CLOCK="scale,monotonic,wall"`: what reads `time.monotonic` and `time.time`, as event loops
do, sees `scale` seconds pass in one; the two other numbers are the times at which it began, so that
processes agree. Where the event loop waits for its next timer, it waits `scale` times shorter.
Threads that wait with a limit, and the times of files, are not concerned.
"""

import os
import selectors
import time


def install():
    told = os.environ.get("FST_FAKE_CLOCK")
    if not told:
        return
    scale, origin, wall = map(float, told.split(","))
    real, select = time.monotonic, selectors.DefaultSelector.select
    time.monotonic = lambda: origin + (real() - origin) * scale
    time.time = lambda: wall + (real() - origin) * scale
    selectors.DefaultSelector.select = lambda self, timeout=None: select(
        self, timeout / scale if timeout else timeout
    )
