"""The command line `fst`: `main`, and how a command ends.

Exit status: 0 done; 2 what the user wrote or named is wrong; 1 the work failed; 130 and 143 after
SIGINT and SIGTERM. Results go to the output, everything else to the error stream.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import click

from fst_core.cli.group import Commands

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "printable"]


@click.group(
    "fst",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`fst COMMAND --help` tells more. Begin with `fst demo`, or with `fst init`.",
)
@click.version_option(package_name="full-stack-transformer", message="%(prog)s %(version)s")
def commands() -> None:
    """From your documents to your own language model, by plugins."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `fst` with the arguments, those of the process by default, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # On Windows a pipe or a file gets an old encoding by default; elsewhere the locale's stays.
            stream.reconfigure(encoding="utf-8" if os.name == "nt" else None, errors="replace")
    # Threads of a matrix product that wait by spinning bring it to a tenth of its speed as soon as
    # another program wants a core; torch's OpenMP reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    sys.exit(_status(arguments))


def _terminated(*_: object) -> NoReturn:
    """Unwind the stack on SIGTERM, so that nothing half-written stays behind."""
    sys.exit(128 + signal.SIGTERM)


def _status(arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit status, once what went wrong is told."""
    from fst_core.errors import FstError, SettingsError

    try:
        status = commands.main(arguments, prog_name="fst", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except SettingsError as error:
        return _fail(str(error), error.exit_status)
    except FstError as error:
        return _fail(f"error: {error}", error.exit_status)
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  # until the process ends
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        return _fail(f"error: {place}{error.strerror or error}", 1)
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    click.echo(printable(message), err=True)
    return status


def printable(text: str) -> str:
    """Return a text with every control character but the line feed written out.

    What a file or an artefact says must not move the cursor.
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
