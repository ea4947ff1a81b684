"""Training that is killed again and again, beside one that never is: what is lost, and what differs.

Usage: python benchmarks/kills.py [--kills 30] [--seed 228]

A small GPT-2 with dropout trains on ragged documents, two batches a step, a checkpoint each fifth step.
One run is left alone and keeps all its checkpoints. Others get SIGKILL (`kill -9`) at a random moment
within the writing of a checkpoint, over and over, until they come to their end or there have been enough
kills; a kill that comes a moment too late counts apart. After each, every checkpoint that is there must be
whole, and in each byte of weights, optimizer and generators that of the run that was left alone; so must
each loss, gradient norm and validation that was told. At last the newest checkpoint of a killed run is cut
short, which the next process has to say, and to pass over for the one before. Each run that comes to its
end must have the weights and texts of the one that was left alone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click

from fst_core.artefacts import verify
from fst_core.errors import ArtefactError

FST = str(Path(sys.executable).parent / "fst")
PIPELINE = """
[documents]
use = "delimited"
train = "documents.txt"
[tokenizer]
use = "bytes"
[dataset]
name = "documents"
valid_share = 0.05
max_sample_length = 64
[model]
use = "gpt2"
n_positions = 64
n_embd = 128
n_layer = 3
n_head = 4
[trainer]
use = "lightning"
batch_size = 8
dropout = 0.1
checkpoint_every = 5
sample_prompts = ["", "the "]
[trainer.lightning]
max_steps = 400
accumulate_grad_batches = 2
val_check_interval = 66
"""
WORDS = (
    "a",
    "the",
    "of",
    "and",
    "not",
    "with",
    "sea",
    "ship",
    "captain",
    "whale",
    "harbour",
    "storm",
)
TOLD = ("loss", "gradient_norm", "learning_rate", "valid_loss", "perplexity", "bits_per_byte")
"""Figures that depend on no clock."""
MOST_WRITES = 3
"""A process is killed within one of its first so many checkpoints."""


@click.command()
@click.option(
    "--kills", default=30, show_default=True, help="Kills within the writing of a checkpoint."
)
@click.option("--seed", default=228, show_default=True)
def main(kills: int, seed: int) -> None:
    """Train, kill, compare and print."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rng = random.Random(seed)
        write(folder, rng)
        begun = time.perf_counter()
        writing = leave_alone(folder)
        click.echo(
            f"left alone: {time.perf_counter() - begun:.0f} s; a checkpoint takes {writing:.3f} s to write"
        )
        Attack(folder, rng, writing).carry_out(kills)


def write(folder: Path, rng: random.Random) -> None:
    """Write documents, most of them short and a few long, with the pipeline."""
    documents = [
        " ".join(rng.choices(WORDS, k=max(2, int(rng.lognormvariate(2, 0.8))))) for _ in range(3000)
    ]
    (folder / "documents.txt").write_text("\n[END_OF_DOCUMENT]\n".join(documents), "utf-8")
    (folder / "pipeline.toml").write_text(PIPELINE, "utf-8")


def leave_alone(folder: Path) -> float:
    """Train without any kill, and return the seconds that a checkpoint takes to be written, in the median.

    Raises:
        ClickException: it failed.
    """
    run, took = folder / "runs/alone/1", []
    process = start(folder, "alone", "-s", "trainer.checkpoints_kept=1000")
    while wait(process, run, writing=True):
        begun = time.perf_counter()
        wait(process, run, writing=False)
        took.append(time.perf_counter() - begun)
    _, told = process.communicate()
    if process.returncode:
        raise click.ClickException(told)
    return median(took)


def start(folder: Path, name: str, *settings: str) -> subprocess.Popen[str]:
    """Begin a run, or go on with it."""
    line = [FST, "train", "pipeline.toml", "-s", f'run.name="{name}"', *settings]
    return subprocess.Popen(
        line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait(process: subprocess.Popen[str], run: Path, *, writing: bool) -> bool:
    """Wait until a checkpoint is being written or none is; return False if the process ends before."""
    while is_writing(run) != writing:
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    return True


def is_writing(run: Path) -> bool:
    """Return whether a checkpoint of a run is there in part."""
    return any((run / "checkpoints").glob(".step-*.partial"))


class Attack:
    """Runs that are killed, and what is found of them."""

    def __init__(self, folder: Path, rng: random.Random, writing: float) -> None:
        self.folder = folder
        self.rng = rng
        self.writing = writing
        """Seconds that a checkpoint takes to be written."""
        self.alone = folder / "runs/alone/1"
        self.expected = figures(self.alone)
        self.runs = 1
        self.within = self.late = self.checked = self.halves = 0

    @property
    def run(self) -> Path:
        """The run that is killed now."""
        return self.folder / f"runs/killed-{self.runs}/1"

    def carry_out(self, kills: int) -> None:
        """Kill so often, compare after each time, and at last cut a checkpoint short."""
        while self.within < kills:
            self.kill()
        click.echo(
            f"killed {self.within} times within the writing of a checkpoint and {self.late} times just "
            f"after it, in {self.runs} runs: {self.checked} checkpoints that were left are whole and the "
            f"same; {self.halves} older ones were being removed"
        )
        self.cut_short()

    def kill(self) -> None:
        """Go on with the run, kill it within one of its next checkpoints, and look at what is left.

        One that comes to its end before is compared, and the next one begins.
        """
        process = start(self.folder, self.run.parent.name)
        for _ in range(self.rng.randint(1, MOST_WRITES)):
            wait(process, self.run, writing=False)
            wait(process, self.run, writing=True)
        time.sleep(self.rng.uniform(0, self.writing))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            process.communicate()
            found = is_writing(self.run)
            self.within += found
            self.late += not found
            self.compare()
        else:
            self.end(process)
            self.runs += 1

    def compare(self) -> None:
        """Compare whatever a run has left with the run that was left alone.

        Raises:
            ClickException: something differs.
        """
        checkpoints = sorted((self.run / "checkpoints").glob("step-*"))
        for checkpoint in checkpoints:
            try:
                verify(checkpoint)
            except ArtefactError as error:
                if checkpoint == checkpoints[-1]:
                    raise click.ClickException(
                        f"the newest checkpoint is damaged: {error}"
                    ) from None
                self.halves += 1
                continue
            other = self.alone / "checkpoints" / checkpoint.name
            for name in ("model", "optimizer", "random"):
                file = checkpoint / f"{name}.safetensors"
                same(file.read_bytes(), (other / file.name).read_bytes(), file)
            same(state(checkpoint), state(other), checkpoint)
            self.checked += 1
        for key, value in figures(self.run).items():
            same(value, self.expected.get(key), f"{self.run}: {key}")

    def end(self, process: subprocess.Popen[str]) -> str:
        """Let a run come to its end, compare what it made, and return what it told.

        Raises:
            ClickException: it failed, or something differs.
        """
        _, told = process.communicate()
        if process.returncode:
            raise click.ClickException(told)
        self.compare()
        same(figures(self.run), self.expected, self.run)
        for name in ("model/model.safetensors", "samples.jsonl"):
            same((self.run / name).read_bytes(), (self.alone / name).read_bytes(), self.run / name)
        click.echo(f"{self.run.parent.name}: came to its end, all the same")
        return told

    def cut_short(self) -> None:
        """Cut the newest checkpoint short; the next process must go on from the one before."""
        while len(self.checkpoints()) < 2:
            self.kill()
        newest = self.checkpoints()[-1] / "model.safetensors"
        os.truncate(newest, newest.stat().st_size // 2)
        told = self.end(start(self.folder, self.run.parent.name))
        said = [line for line in told.splitlines() if "Going on from an earlier checkpoint" in line]
        if len(said) != 1:
            raise click.ClickException(f"a checkpoint that was cut short was not told:\n{told}")
        click.echo(f"cut short: {said[0].replace(str(self.folder), '')}")

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints of the run, if it is not finished."""
        if (self.run / "model").exists():
            return []
        return sorted((self.run / "checkpoints").glob("step-*"))


def state(checkpoint: Path) -> dict[str, object]:
    """Return what a checkpoint says of where training stood, without times."""
    said: dict[str, object] = json.loads((checkpoint / "state.json").read_bytes())["state"]
    return {name: value for name, value in said.items() if name not in {"seconds", "elapsed"}}


def figures(run: Path) -> dict[tuple[int, str], float]:
    """Return what was told of each step.

    Raises:
        ClickException: a step that was done twice was told differently.
    """
    found: dict[tuple[int, str], float] = {}
    path = run / "metrics.jsonl"
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        told = json.loads(line)
        for name in set(TOLD) & set(told["metrics"]):
            key = (told["step"], name)
            same(told["metrics"][name], found.setdefault(key, told["metrics"][name]), path)
    return found


def same(found: object, expected: object, place: object) -> None:
    """Compare.

    Raises:
        ClickException: they differ.
    """
    if found != expected:
        raise click.ClickException(f"{place}: differs from that of the run that was left alone")


if __name__ == "__main__":
    main()
