"""`fst dataset`: look into prepared datasets, check, join, export and import them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fst_core.cli.options import path_argument, tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fst_core.dataset import Dataset, Samples
    from fst_core.dataset.statistics import LengthBin
    from fst_core.interfaces import Tokenizer

_BAR: Final = 40
"""Characters of the longest bar."""


@click.group("dataset", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Look into a prepared dataset, check it, or move it."""


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


@command.command("join")
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
def join_command(target: Path, shards: tuple[Path, ...]) -> None:
    """Join SHARDS, which `fst prepare --shard` made, to the dataset TARGET, a new directory.

    It has the bytes that one run would have written.
    """
    from fst_core.pipeline.prepare import join_shards

    click.echo(join_shards(shards, target).directory)


@command.command("export")
@path_argument("directory")
@click.argument("prefix", type=click.Path(path_type=Path))
def export_command(directory: Path, prefix: Path) -> None:
    """Write the dataset in DIRECTORY in Megatron's format: PREFIX_train.bin and .idx, PREFIX_valid likewise.

    A sequence is a document, as far as it is in samples.
    """
    from fst_core.artefacts.model import load_tokenizer
    from fst_core.dataset import Dataset
    from fst_core.dataset.megatron import document_starts, write_megatron

    dataset = Dataset.open(directory)
    tokenizer = load_tokenizer(directory, dataset.manifest)
    for split, samples in (("train", dataset.train), ("valid", dataset.valid)):
        starts = document_starts(
            samples, dataset.max_sample_length, tokenizer.bos_id, tokenizer.end_id
        )
        write_megatron(prefix.with_name(f"{prefix.name}_{split}"), samples, starts)
        click.echo(f"{prefix}_{split}: {len(starts):,} documents of {samples.tokens:,} ids")
        if samples.loss is not None:
            tell(f"{split}: the format cannot say which ids carry no loss; all will.")


@command.command("import")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--train", required=True, type=click.Path(path_type=Path), help="Of the files to train on."
)
@click.option(
    "--valid", type=click.Path(path_type=Path),
    help="Of the files to validate on; without, a share of the documents is held out.",
)  # fmt: skip
@click.option(
    "--tokenizer", required=True, type=click.Path(path_type=Path),
    help="A dataset or a model that has it, or a directory that `pretrained` opens.",
)  # fmt: skip
@click.option("--max-sample-length", default=256, show_default=True, type=click.IntRange(2))
@click.option("--min-sample-length", default=8, show_default=True, type=click.IntRange(1))
@click.option(
    "--valid-share", default=0.05, show_default=True, type=click.FloatRange(0, 1, True, True)
)
@click.option("--seed", default=228, show_default=True, type=click.IntRange(0))
def import_command(
    *, target: Path, train: Path, valid: Path | None, tokenizer: Path, seed: int, **settings: Any
) -> None:
    """Make the dataset TARGET, a new directory, of a corpus in Megatron's format.

    Its two files are named by their path without .bin and .idx.
    """
    from fst_core.pipeline.pipeline import DatasetSettings
    from fst_core.preparation.imported import import_megatron

    dataset = import_megatron(
        target,
        train=train,
        valid=valid,
        tokenizer=tokenizer,
        settings=DatasetSettings(**settings),
        seed=seed,
    )
    click.echo(dataset.directory)


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
            text = _text(tokenizer, samples[index].tolist())
            yield from (f"  | {line}" for line in text.split("\n"))


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of ids in which control ids, which decode to nothing, can be seen."""
    names = {tokenizer.pad_id: "pad", tokenizer.bos_id: "begin", tokenizer.end_id: "end"}
    hidden = {each for each in set(ids) if each in names or not tokenizer.decode([each])}
    parts = [
        "".join(f"⟨{names.get(each, each)}⟩" for each in run)
        if is_hidden
        else tokenizer.decode(list(run))
        for is_hidden, run in groupby(ids, hidden.__contains__)
    ]
    return "".join(parts)


def _figures(samples: Samples, documents: object) -> list[tuple[str, str]]:
    lengths = samples.lengths()
    masked = samples.loss is not None
    tokens = samples.tokens if samples.loss is None else int((samples.loss[:] > 0).sum())
    return [
        ("documents", f"{documents:,}" if isinstance(documents, int) else "unknown"),
        ("samples", f"{len(samples):,}"),
        ("tokens", f"{samples.tokens:,}"),
        *[("tokens with loss", f"{tokens:,}")] * masked,
        (f"bytes of text{' with loss' * masked}", f"{samples.text_bytes:,}"),
        (f"bytes a token{' with loss' * masked}", f"{samples.text_bytes / max(tokens, 1):.2f}"),
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
