"""Compare `myrussian` with plain `bpe` and `gpt2` on Russian text: the same documents, model and steps.

Usage: python compare.py FOLDER [--steps 500] [--out DIR]

FOLDER holds text files. For each tokenizer a dataset is prepared and a small GPT-2 trained for as
many steps of as many tokens, which is the same work but for the size of the vocabulary. A table in
Markdown says how many bytes of text a token stands for in the held-out documents, and how many bits
the model needs for one of these bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fst_core.dataset import Dataset
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.stages import run_stages

TOKENIZERS = {
    "gpt2": {},
    "bpe": {"vocab_size": 8192},
    "myrussian": {"vocab_size": 8192},
}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--steps", default=500, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="comparison", show_default=True)
def main(folder: str, steps: int, out: Path) -> None:
    """Train with each tokenizer in turn and print the table."""
    print("| tokenizer | vocabulary | bytes a token | bits a byte |")
    print("|---|---|---|---|")
    for name, settings in TOKENIZERS.items():
        pipeline = check_pipeline(
            "compare.py",
            {
                "run": {"name": name, "root": str(out / "runs")},
                "documents": {"use": "text", "train": folder},
                "tokenizer": {"use": name, **settings},
                "dataset": {"root": str(out / "datasets"), "max_sample_length": 128},
                "model": {"use": "gpt2", "n_positions": 128, "n_embd": 256, "n_layer": 4},
                "trainer": {
                    "use": "lightning",
                    "batch_size": 16,
                    "learning_rate": 1e-3,
                    "log_text_samples": False,
                    "lightning": {"max_steps": steps},
                },
            },
        )
        outcome = run_stages(pipeline, "evaluate", lambda line: print(line, file=sys.stderr))
        assert outcome.figures is not None
        dataset = Dataset.open(outcome.dataset)
        size = dataset.valid.text_bytes / dataset.valid.tokens
        bits = outcome.figures["perplexity"]["bits_per_byte"]
        vocabulary = dataset.manifest["counts"]["vocab_size"]
        print(f"| `{name}` | {vocabulary:,} | {size:.2f} | {bits:.3f} |", flush=True)


if __name__ == "__main__":
    main()
