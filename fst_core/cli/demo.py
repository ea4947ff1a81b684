"""`fst demo`: the main job on Shakespeare's plays."""

from __future__ import annotations

from pathlib import Path

import click

from fst_core.cli.options import overrides_option

_FILE = "pipeline.toml"


@click.command("demo")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default="fst-demo")
@overrides_option
def command(directory: Path, overrides: tuple[str, ...]) -> None:
    """Train a small model on Shakespeare's plays in DIRECTORY, in about two minutes on two cores.

    Everything that it makes lies in that directory; called again, it goes on where it was.
    """
    import os
    from importlib.resources import files

    from fst_core.cli.run import run

    directory.mkdir(parents=True, exist_ok=True)
    os.chdir(directory)
    if not Path(_FILE).exists():
        text = files("fst_core.templates").joinpath("shakespeare.toml").read_text("utf-8")
        Path(_FILE).write_text(text, "utf-8", newline="\n")
    click.echo(f"{directory / _FILE} says what is done; edit it and run `fst run` there.", err=True)
    run(Path(_FILE), overrides)
    click.echo(f"All of it from there: cd {directory}")
