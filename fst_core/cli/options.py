"""Arguments and options that commands share, and lines for the user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["overrides_option", "path_argument", "pipeline_argument", "tell"]

PIPELINE = Path("pipeline.toml")

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def overrides_option(function: _Function) -> _Function:
    """Add `-s key=value`, which may be given again and again, as `overrides: tuple[str, ...]`."""
    return click.option(
        "-s",
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        is_eager=True,  # `pipeline_argument` looks at it
        help="Set a key of the pipeline, such as trainer.batch_size=8 or serve.0.port=8000. "
        "Another component, by TABLE.use=NAME, keeps the settings that it has too.",
    )(function)


def path_argument(name: str) -> Callable[[_Function], _Function]:
    """Add a path that has to be given, as `name: Path`."""
    return click.argument(name, type=click.Path(path_type=Path))


def pipeline_argument(function: _Function) -> _Function:
    """Add the pipeline's path as `pipeline: Path | None`: pipeline.toml unless another is given.

    None means that there is no file and that the overrides are the pipeline.
    """
    return click.argument(
        "pipeline",
        type=click.Path(path_type=Path),
        required=False,
        metavar="[PIPELINE]",
        callback=_pipeline,
    )(function)


def _pipeline(
    context: click.Context, _parameter: click.Parameter, given: Path | None
) -> Path | None:
    if given is None and context.params.get("overrides") and not PIPELINE.exists():
        return None
    return given or PIPELINE


def tell(line: str) -> None:
    """Write a line for the user to the error stream: the output is the command's result alone."""
    click.echo(line, err=True)
