"""`vllm serve` for benchmarks/serve.py, in the environment that vllm_peer.py describes.

Usage: ENVIRONMENT/bin/python benchmarks/vllm_server.py serve DIRECTORY --port PORT ...
"""

from __future__ import annotations

from vllm_peer import answer_to_its_name

answer_to_its_name()  # in the processes that vLLM begins as well: they import this file

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
