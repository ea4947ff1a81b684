"""`fst runs`: the runs that there are, and how well each did."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = ("RUN", "STATE", "STEPS", "VALID LOSS", "BITS PER BYTE", "PARAMETERS", "BEGUN", "NOTES")


@click.command("runs")
@click.argument("name", required=False)
@click.option(
    "--root", type=click.Path(path_type=Path), default="runs", show_default=True,
    help="The directory of all runs.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(name: str | None, root: Path, *, as_json: bool) -> None:
    """List the runs below the root, or those of one NAME: the loss of the best validation, and more.

    A run is finished, running, failed (with an error, which is shown), or was interrupted; its steps
    are those that it has completed. `fst train` goes on with one that failed or was interrupted.
    """
    from fst_core.cli import printable
    from fst_core.cli.columns import columns
    from fst_core.pipeline.runs import past_runs
    from fst_core.report.state import states

    runs = [run for run in past_runs(root) if name in (None, run.name)]
    found = [
        {**run.summary(), "state": state.name, "error": state.error}
        for run, state in zip(runs, states(runs), strict=True)
    ]
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    if not found:
        click.echo(f"No runs{f' of {name}' if name else ''} below {root}.", err=True)
        return
    for line in columns([_HEADER, *map(_row, found)]):
        click.echo(printable(line))


def _row(said: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [*said["unmet"], *([" ".join(said["error"].split())] if said["error"] else [])]
    return (
        f"{said['name']}/{said['number']}",
        said["state"],
        _number(said["steps"], ",.0f"),
        _number(said["valid_loss"], ".4f"),
        _number(said["bits_per_byte"], ".4f"),
        _number(said["parameters"], ",.0f"),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(said["begun"])) if said["begun"] else "",
        "; ".join(notes),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
