"""What a run leaves for people: TensorBoard's events, and generated samples."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from fst_core.artefacts.publish import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fst_lightning.checkpoints import State

__all__ = ["Record"]


class Record:
    """Writes `tensorboard/` and `samples.jsonl` of a run.

    What a killed run wrote after the state that it goes on from is dropped: it is written again.
    """

    def __init__(self, directory: Path, state: State) -> None:
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=state.step + 1)
        self._samples = directory / "samples.jsonl"
        if self._samples.is_file():
            write_whole(self._samples, b"".join(_before(self._samples, state)))

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of a step."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def samples(self, step: int, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Write what the model makes of each prompt at a step."""
        with self._samples.open("a", encoding="utf-8", newline="\n") as file:
            for index, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
                line = {"step": step, "prompt": prompt, "text": text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._writer.add_text(f"sample_{index}", _apart(prompt, text), step)
            file.flush()
            os.fsync(file.fileno())  # before a checkpoint says that they are written

    def flush(self) -> None:
        """Write out what is buffered."""
        self._writer.flush()

    def close(self) -> None:
        """Write out what is buffered, and end."""
        self._writer.close()


def _apart(prompt: str, text: str) -> str:
    """Return a prompt and what was written from it as TensorBoard's Markdown, each verbatim."""
    parts = [("prompt", prompt), ("what it wrote", text)] if prompt else [("what it wrote", text)]
    verbatim = (
        (name, "\n".join("    " + line for line in content.split("\n"))) for name, content in parts
    )
    return "\n\n".join(f"**{name}**\n\n{content}" for name, content in verbatim)


def _before(path: Path, state: State) -> list[bytes]:
    """Return the lines of the steps that are done; a killed process may have cut the last line."""
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        step = json.loads(line)["step"]
        if step > state.step or (step == state.step and not state.validated):
            break
        kept.append(line)
    return kept
