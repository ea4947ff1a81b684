"""`fst dataset`: look into a prepared dataset, and check that it is what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from fst_core.cli.options import path_argument

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.dataset import Dataset, Samples
    from fst_core.dataset.statistics import LengthBin
    from fst_core.interfaces import Tokenizer

_BAR: Final = 40
"""Characters of the longest bar."""


@click.group("dataset", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Look into a prepared dataset."""


@command.command("verify")
@path_argument("directory")
def verify_command(directory: Path) -> None:
    """Compare the sha256 of every file of the dataset in DIRECTORY with its manifest."""
    from fst_core.artefacts.manifest import verify
    from fst_core.dataset import Dataset

    Dataset.open(directory)
    files = verify(directory)["files"]
    total = sum(file["bytes"] for file in files.values())
    click.echo(f"{directory}: all {len(files)} files, {total:,} bytes, are as they were written.")


@command.command("show")
@path_argument("directory")
@click.option(
    "--samples", default=2, show_default=True, type=click.IntRange(0), help="Of each split."
)
def show_command(directory: Path, samples: int) -> None:
    """Show figures, lengths and decoded samples of the dataset in DIRECTORY."""
    from fst_core.artefacts.model import load_tokenizer
    from fst_core.cli import printable
    from fst_core.dataset import Dataset

    dataset = Dataset.open(directory)
    tokenizer = load_tokenizer(directory, dataset.manifest)
    for line in _lines(dataset, tokenizer, samples):
        click.echo(printable(line))


def _lines(dataset: Dataset, tokenizer: Tokenizer, shown: int) -> Iterator[str]:
    from fst_core.cli.columns import columns
    from fst_core.dataset.statistics import length_bins, spread

    counts = dataset.manifest["counts"]
    yield f"dataset {dataset.directory}"
    encoder = dataset.manifest.get("encoder")
    facts = [
        ("vocabulary", f"{tokenizer.vocab_size:,} ids"),
        ("dtype", str(dataset.train.corpus.dtype)),
    ]
    if isinstance(encoder, dict):
        facts += [(f"encoder {name}", str(value)) for name, value in encoder.items()]
    yield from (f"  {line}" for line in columns(facts))
    for split, samples in (("train", dataset.train), ("valid", dataset.valid)):
        yield f"\n{split}"
        figures = _figures(samples, counts.get(f"number_of_{split}_documents"))
        yield from (f"  {line}" for line in columns(figures))
        yield "\n  samples by length"
        yield from _histogram(length_bins(samples, dataset.max_sample_length))
        for index in spread(samples, shown):
            yield f"\n  sample {index:,}, {len(samples[index])} ids"
            text = tokenizer.decode(samples[index].tolist())
            yield from (f"  | {line}" for line in text.split("\n"))


def _figures(samples: Samples, documents: object) -> list[tuple[str, str]]:
    lengths = samples.lengths()
    return [
        ("documents", f"{documents:,}" if isinstance(documents, int) else "unknown"),
        ("samples", f"{len(samples):,}"),
        ("tokens", f"{samples.tokens:,}"),
        ("bytes of text", f"{samples.text_bytes:,}"),
        ("bytes a token", f"{samples.text_bytes / max(samples.tokens, 1):.2f}"),
        ("tokens a sample", f"{lengths.mean() if len(lengths) else 0:.1f}"),
    ]


def _histogram(bins: list[LengthBin]) -> Iterator[str]:
    from fst_core.cli.columns import columns

    most = max((each.samples for each in bins), default=1)
    rows = [
        (
            f"{each.shortest}"
            if each.shortest == each.longest
            else f"{each.shortest}-{each.longest}",
            f"{each.samples:,}",
            "#" * -(-_BAR * each.samples // most),
        )
        for each in bins
    ]
    yield from (f"  {line}" for line in columns(rows) if rows)
