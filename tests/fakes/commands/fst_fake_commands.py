"""Commands of a plugin; importing this module is noticed."""

import errno
import os
import time
from pathlib import Path

import click

from fst_core.errors import FstError, UnknownComponent

if mark := os.environ.get("FST_FAKE_MARK"):
    Path(mark).touch()

NOT_A_COMMAND = 3


@click.command()
@click.argument("name")
def hello(name):
    """Greet."""
    click.echo(f"hello {name}")


@click.command()
@click.argument("mark", type=Path)
def wait(mark):
    """Write a file, wait, and remove it however the waiting ends."""
    try:
        mark.touch()
        click.echo("waiting")
        time.sleep(60)
    finally:
        mark.unlink()


@click.command()
@click.argument("how")
def fail(how):
    """Fail in a way of your choice."""
    match how:
        case "user":
            raise UnknownComponent("no such thing")
        case "work":
            raise FstError("the work failed")
        case "control":
            raise FstError("red \x1b[31m and \u202e back")
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device", "a/file")
        case "interrupt":
            raise KeyboardInterrupt
        case "pipe":
            raise BrokenPipeError
        case "exit":
            click.get_current_context().exit(7)
        case _:
            raise RuntimeError("a mistake in a program")
