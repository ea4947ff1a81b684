"""An engine that does what the prompt says, at the speed it says, and writes down what it was asked.

`FST_FAKE_CLOCK` may give the process a clock that runs faster; see `clock`. `FST_FAKE_LOG` may let it
log from that level on.
"""

import logging
import os

from fst_core import Component, hookimpl
from fst_fake_scripted import clock

clock.install()
if level := os.environ.get("FST_FAKE_LOG"):
    logging.basicConfig(level=level)


@hookimpl
def fst_engines():
    yield Component(
        "scripted",
        f"{__name__}.engine:ScriptedEngine",
        "Answers as the prompt says.",
        settings=f"{__name__}.settings:ScriptedSettings",
    )
