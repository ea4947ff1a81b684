"""`fst plan`: what a run will take, before it begins."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from fst_core.cli.options import overrides_option, pipeline_argument, tell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.pipeline.forecast import Forecast

_ENOUGH: Final = 20
"""Tokens per parameter that make best use of the work (Hoffmann et al. 2022)."""


@click.command("plan")
@pipeline_argument
@overrides_option
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
    help="How long to measure; longer is more exact.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    pipeline: Path | None, overrides: tuple[str, ...], seconds: float, *, as_json: bool
) -> None:
    """Say what a run of PIPELINE will take: parameters, memory, epochs, time.

    The model is built and trained for a few steps, of which nothing is kept. Where no dataset is
    prepared, the first documents stand for all of them.
    """
    from fst_core.pipeline.forecast import forecast
    from fst_core.pipeline.pipeline import load_pipeline

    found = forecast(load_pipeline(pipeline, overrides), tell, seconds)
    if as_json:
        derived = {
            "tokens_per_parameter": found.tokens_per_parameter,
            "seconds": found.seconds,
        }
        click.echo(json.dumps({**asdict(found), **derived}, indent=1))
        return
    from fst_core.cli.columns import columns

    for line in columns(list(_rows(found))):
        click.echo(line)


def _rows(found: Forecast) -> Iterator[tuple[str, str]]:
    trained = (
        "" if found.trained == found.parameters else f", of which {found.trained:,} are trained"
    )
    yield "parameters", f"{found.parameters:,}{trained}"
    about = "about " if found.estimated else ""
    guess = ", judged by the first documents: nothing is prepared yet" if found.estimated else ""
    yield "corpus", f"{about}{found.tokens:,} tokens{guess}"
    each = found.tokens_per_parameter
    advice = (
        f"; about {_ENOUGH} make best use of a model trained from nothing (Hoffmann et al. 2022)"
    )
    yield "tokens per parameter", f"{each:,.2g}{advice if each < _ENOUGH else ''}"
    if found.epochs is not None:
        yield "epochs", f"{found.epochs:,.2g}"
    if found.memory is not None:
        yield "memory", f"{found.memory / 1e9:.2f} GB at the most"
    speed = found.tokens_per_second
    fast = f", {speed:,.0f} tokens/s" if speed else ""
    yield (
        "step",
        f"{found.seconds_per_step:.3g} s{fast}, measured in {found.measured_steps:,} steps",
    )
    yield "time", _time(found)


def _time(found: Forecast) -> str:
    from fst_core.report.card import duration

    if found.seconds is not None:
        aside = ""
        if found.validations:
            validations = (
                "1 validation" if found.validations == 1 else f"{found.validations:,} validations"
            )
            aside = f" and {validations}, which take {duration(found.seconds_of_validations)} of it"
        return f"{duration(found.seconds)} for {found.steps:,} steps{aside}"
    if found.tokens_per_second:
        return f"{duration(found.tokens / found.tokens_per_second)} for an epoch"
    return "unknown: the trainer does not say how many steps it will make"
