"""`fst doctor`: what would keep FST from working on this machine."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEEDED = 2**30
"""Bytes of free disk, below which a longer run may fail."""

# In a process of its own: a torch that is broken may end the process that imports it.
_TORCH = """
import json, torch
cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
device = torch.cuda.get_device_name() if cuda else "mps" if mps else "cpu"
bf16 = torch.cuda.is_bf16_supported() if cuda else not mps
print(json.dumps([torch.__version__, device, bool(bf16), torch.get_num_threads()]))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    told: str
    state: str = "ok"
    """`ok`, `note`, or `broken`."""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(*, as_json: bool) -> None:
    """Look at Python, the device, the installed plugins, the disk and the working directory.

    Ends with status 1 if something is broken; what is only not installed is a note.
    """
    from fst_core.cli import printable
    from fst_core.cli.columns import columns

    findings = [*_system(), *_torch(), *_plugins(), *_disk()]
    if as_json:
        rows = [{"subject": f.subject, "state": f.state, "told": f.told} for f in findings]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        for line in columns([(f.state, f.subject, f.told) for f in findings]):
            click.echo(printable(line))
    if any(finding.state == "broken" for finding in findings):
        click.get_current_context().exit(1)


def _system() -> Iterator[Finding]:
    from fst_core.plugins import DISTRIBUTION, version_of

    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    yield Finding("platform", platform.platform())
    version = version_of(DISTRIBUTION)
    if version is None:
        yield Finding("fst", f"pip install {DISTRIBUTION}: its plugins are not found", "broken")
    else:
        yield Finding("fst", version)


def _torch() -> Iterator[Finding]:
    from fst_core.plugins import version_of

    if version_of("torch") is None:
        yield Finding("torch", "not installed: preparing datasets works, training does not", "note")
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding("torch", "cannot be imported within two minutes", "broken")
        return
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        yield Finding("torch", f"cannot be imported: {reason}", "broken")
        return
    version, device, bf16, threads = json.loads(done.stdout)
    yield Finding("torch", f"{version}, {threads} threads")
    yield Finding("device", f"{device}, {'with' if bf16 else 'without'} bf16")


def _plugins() -> Iterator[Finding]:
    from fst_core.cli.health import broken, clashes, missing
    from fst_core.plugins import registry

    found = registry()
    ready = sum(not offer.missing() for offer in found.offers)
    yield Finding("plugins", f"{ready} of {len(found.offers)} components are ready")
    yield from (Finding("plugins", line, "broken") for line in broken(found))
    yield from (Finding("plugins", line, "note") for line in clashes(found, found.offers))
    yield from (Finding("plugins", line, "note") for line in missing(found.offers))


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(".").free
    told = f"{free / 2**30:.1f} GiB are free here"
    yield Finding("disk", told, "ok" if free >= _NEEDED else "note")
    try:
        with tempfile.TemporaryFile(dir="."):
            pass
    except OSError as error:
        yield Finding("directory", f"cannot be written: {error.strerror}", "broken")
    else:
        yield Finding("directory", "can be written")
