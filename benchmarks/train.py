"""Training beside others: tokens a second on the same module and samples, in the same run.

Usage: python benchmarks/train.py [--repeat 3] [--steps 20] [--only whole|ragged] [--checkpoint]

A GPT-2 of 4 layers and 256 channels with a vocabulary of 16,384; 8 samples a batch. The first table
has samples of 128 ids each: FST's trainer beside a bare PyTorch loop of the same precision and
optimizer. The second has samples as long as documents are, 8 to 512 ids: defaults against the
defaults of the `transformers` Trainer, counting ids that are not padding. The rows take turns, so
that whatever else the machine does meets all of them; the tables have medians. `--checkpoint`
measures instead how long a checkpoint of GPT-2 124M holds up training.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch  # noqa: TID253  # a script, whose whole work is with these
import transformers  # noqa: TID253  # the same
from torch.nn import functional as F  # noqa: N812, TID253  # its customary name; the same
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments  # noqa: TID253  # the same

from fst_core.artefacts import write_manifest
from fst_core.dataset import Batching, Dataset, SplitWriter, collate, token_dtype
from fst_core.pipeline.run import Run
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing.toys import ToyTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VOCABULARY = 16_384
BATCH = 8
WARM = 4
"""Steps that are not counted."""


@click.command()
@click.option("--repeat", default=3, show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--only", type=click.Choice(["whole", "ragged"]), default=None)
@click.option("--checkpoint", is_flag=True)
def main(repeat: int, steps: int, only: str | None, checkpoint: bool) -> None:
    """Measure and print the tables."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if checkpoint:
            measure_checkpoint(folder, steps)
            return
        count = BATCH * (steps + WARM)
        if only != "ragged":
            whole = write_dataset(folder / "whole", [128] * count)
            compare(
                "tokens/s, samples of 128 ids",
                {
                    "bare PyTorch, bf16, fused AdamW": lambda _: bare(whole),
                    "FST, bf16": lambda n: fst(whole, folder / f"a{n}"),
                },
                repeat,
            )
        if only != "whole":
            ragged = write_dataset(folder / "ragged", lengths(count))
            compare(
                "tokens/s without padding, samples of 8 to 512 ids",
                {
                    "`transformers` Trainer, defaults": lambda n: peer(ragged, folder / f"p{n}"),
                    "FST, defaults": lambda n: fst(ragged, folder / f"b{n}", precision="auto"),
                },
                repeat,
            )


def compare(title: str, rows: dict[str, Callable[[int], float]], repeat: int) -> None:
    """Print a row for each, and its ratio to the first."""
    figures: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(repeat):
        for name, measure in rows.items():
            figures[name].append(measure(turn))
    first = median(figures[next(iter(rows))])
    click.echo(f"\n| training | {title} | ratio |\n|---|---|---|")
    for name, found in figures.items():
        click.echo(f"| {name} | {median(found):.0f} | {median(found) / first:.2f} |")


def lengths(count: int) -> list[int]:
    """Return the lengths of documents: many short ones, few long ones."""
    drawn = np.random.default_rng(228).lognormal(4.5, 0.8, count).astype(int)
    return [int(length) for length in drawn.clip(8, 512)]


def write_dataset(directory: Path, sizes: Sequence[int]) -> Dataset:
    """Write samples of random ids."""
    ids = np.random.default_rng(228).integers(0, VOCABULARY, sum(sizes)).astype(np.uint32)
    ends = np.cumsum(sizes)
    counts = {"max_sample_length": max(sizes)}
    for split in ("train", "valid"):
        with SplitWriter(directory / split, token_dtype(VOCABULARY)) as writer:
            if split == "train":
                writer.write(ids, ends - sizes, ends)
        counts |= {
            f"number_of_{split}_tokens": writer.tokens,
            f"number_of_{split}_samples": writer.samples,
            f"number_of_{split}_bytes": writer.tokens,
        }
    write_manifest(directory, "dataset", counts=counts, fingerprint=directory.name)
    return Dataset.open(directory)


def new_module(**sizes: int) -> GPT2LMHeadModel:
    """Return the module, with random weights and without dropout."""
    torch.manual_seed(228)
    shape = {"n_layer": 4, "n_embd": 256, "n_head": 4, "vocab_size": VOCABULARY} | sizes
    nothing = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**shape, **nothing))


def speed(steps: list[tuple[float, int]]) -> float:
    """Return ids a second from when each step ended and how many ids it had."""
    seconds = steps[-1][0] - steps[WARM - 1][0]
    return sum(tokens for _, tokens in steps[WARM:]) / seconds


def bare(dataset: Dataset) -> float:
    """Train by the few lines that everybody would write."""
    module = new_module().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)
    steps: list[tuple[float, int]] = []
    for (indices,) in Batching(dataset.train, BATCH).steps(228, 0):
        batch = collate(dataset.train, indices)
        ids, labels = torch.from_numpy(batch.ids), torch.from_numpy(batch.labels)
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(input_ids=ids, use_cache=False).logits
        targets = labels[:, 1:].flatten()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        steps.append((time.perf_counter(), batch.tokens))
    return speed(steps)


class Timed(Run):
    """A run that notes when each step ended."""

    def __init__(self, directory: Path) -> None:
        super().__init__("benchmark", directory, 228)
        self.times: list[float]
        object.__setattr__(self, "times", [])

    def metrics(self, step: int, metrics: Any) -> None:  # noqa: ARG002  # a run's
        """Note the time."""
        if "loss" in metrics:
            self.times.append(time.perf_counter())


def fst(dataset: Dataset, directory: Path, **settings: Any) -> float:
    """Train by FST."""
    run = Timed(directory)
    train(run, dataset, new_module(), {"max_epochs": 1}, **{"precision": "bf16"} | settings)
    order = Batching(dataset.train, BATCH).steps(228, 0)
    tokens = [collate(dataset.train, indices).tokens for (indices,) in order]
    return speed(list(zip(run.times, tokens, strict=True)))


def train(
    run: Timed, dataset: Dataset, module: Any, arguments: dict[str, Any], **settings: Any
) -> None:
    """Call the trainer `lightning`."""
    offer = registry().find("trainer", "lightning")
    common = {"batch_size": BATCH, "device": "cpu", "lightning": arguments}
    trainer = offer.build(validate(offer.settings_class(), common | settings))
    run.directory.mkdir(parents=True, exist_ok=True)
    trainer.fit(module, dataset, ToyTokenizer(), run, lambda prompts: [""] * len(prompts))


def peer(dataset: Dataset, directory: Path) -> float:
    """Train by the Trainer of `transformers` as it is, with its padding to the longest of a batch."""
    samples = [{"input_ids": dataset.train[i].astype(np.int64)} for i in range(len(dataset.train))]
    steps: list[tuple[float, int]] = []

    def pad(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, sample in enumerate(rows):
            length = len(sample["input_ids"])
            ids[row, :length] = torch.from_numpy(sample["input_ids"])
            mask[row, :length] = 1
        steps.append((0.0, int(mask.sum())))
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": ids.masked_fill(mask == 0, -100),
        }

    times: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]  # without types
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Trainer(
        new_module(), arguments, data_collator=pad, train_dataset=samples, callbacks=[Clock()]
    ).train()
    return speed([(at, tokens) for at, (_, tokens) in zip(times, steps, strict=False)])


def measure_checkpoint(folder: Path, steps: int) -> None:
    """Print how much longer training takes by a checkpoint, in steps of GPT-2 124M."""
    dataset = write_dataset(folder / "data", [128] * BATCH * 2)
    sizes = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50_257}
    run = Timed(folder / "run")
    half = steps // 2
    train(run, dataset, new_module(**sizes), {"max_steps": steps}, checkpoint_every=half)
    each = np.diff(run.times)
    usual = float(np.median(each))
    during = each[half - 1 : half + 3]  # the step that copies, and those while it is written
    click.echo(
        f"\na step: {usual:.2f} s; with a checkpoint: {', '.join(f'{s:.2f}' for s in during)} s"
    )
    click.echo(
        f"held up by {max(0.0, float(during.sum()) - len(during) * usual) / usual:.2f} steps"
    )


if __name__ == "__main__":
    main()
