"""`fst telegram`: what a bot has collected."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("telegram")
def command() -> None:
    """Look into what a bot remembers."""


@command.command("export")
@click.argument("state", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
def export(state: Path, output: Path) -> None:
    """Write what people liked, from the bot's STATE, as JSON lines to OUTPUT.

    The reader `jsonl` prepares the file as it is.
    """
    from fst_core.errors import UserError
    from fst_telegram.export import liked

    if not state.is_file():
        raise UserError(f"{state}: no such file. It is the setting `state` of the frontend")
    count = 0
    beside = output.with_name(f".{output.name}.incomplete")
    try:
        with beside.open("w", encoding="utf-8") as file:
            for line in liked(state):
                file.write(line)
                count += 1
        beside.replace(output)
    except OSError as error:
        raise UserError(f"{output}: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)
    click.echo(f"telegram: {output}: {count} liked", err=True)
