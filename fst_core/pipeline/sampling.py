"""Samples during training, by the pipeline's engine and samplers, whose settings may be changed meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fst_core.documents import Message
from fst_core.errors import FstError, one_line
from fst_core.generation import Request
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch

    from fst_core.chat import ChatTemplate
    from fst_core.interfaces import Engine, Model, Tokenizer
    from fst_core.pipeline.pipeline import Part, Pipeline

__all__ = ["SAMPLERS", "SampledRun", "Sampling", "write_samplers"]

SAMPLERS: Final = "samplers.toml"
"""The file of a run that says how the next samples are drawn."""
_TOKENS: Final = 64
"""How many ids a sample has at the most."""
_HEAD: Final = """\
# How samples are drawn while the model trains: read again each time. The model does not depend on it.

"""


def write_samplers(pipeline: Pipeline, directory: Path) -> None:
    """Write the samplers of a pipeline, with all their settings, for a person to change."""
    import tomli_w

    entries = [{"use": part.offer.address, **_written(part)} for part in pipeline.samplers]
    text = _HEAD + tomli_w.dumps({"sampler": entries})
    (directory / SAMPLERS).write_text(text, "utf-8", newline="\n")


def _written(part: Part) -> dict[str, object]:
    """Return the settings of a part as TOML has them, which knows no null."""
    values = {} if part.settings is None else part.settings.model_dump(mode="json")
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SampledRun(Run):
    """A run as its trainer has it: the steps that it is told of are those of its samples."""

    run: Run
    """Whom observers know."""
    sampling: Sampling

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell observers the figures of an optimizer step."""
        self.sampling.step = step
        self.run.metrics(step, metrics)

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call every observer of a hook."""
        self.run.tell(hook, **arguments)


class Sampling:
    """Continues prompts with a module as it is when called.

    Where the model learns conversations, a prompt is a user's turn, and what follows is the answer.
    What is drawn depends on the run's seed, on `step` and on the prompt's place, and on nothing else.
    The run's `samplers.toml` is read each time it has changed; what is wrong in it is told, and the
    samplers stay as they were.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        trained: tuple[Model, torch.nn.Module, Tokenizer],
        run: Run,
        tell: Callable[[str], None],
        chat: ChatTemplate | None = None,
    ) -> None:
        """Take what samples are drawn with.

        Args:
            pipeline: its engine and samplers.
            trained: the model, its module and its tokenizer.
            run: whose seed and directory it is.
            tell: gets lines for the user.
            chat: the template that the model learns conversations by, if it does.
        """
        self.step = 0
        """The last step that the trainer has told of."""
        self._pipeline = pipeline
        self._trained = trained
        self._seed = run.seed
        self._file = run.directory / SAMPLERS
        self._tell = tell
        self._chat = chat
        self._read = b""
        self._engine = self._with(pipeline.samplers)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return what follows each prompt."""
        self._look()
        return asyncio.run(self._texts(prompts))

    async def _texts(self, prompts: Sequence[str]) -> list[str]:
        requests = [
            Request(
                prompt=self._begun(prompt),
                max_new_tokens=_TOKENS,
                min_new_tokens=1,
                seed=self._drawn(index),
            )
            for index, prompt in enumerate(prompts)
        ]
        generations = await asyncio.gather(
            *(self._engine.generate(request) for request in requests)
        )
        texts = [generation.text for generation in generations]
        return texts if self._chat is None else [text.strip() for text in texts]

    def _begun(self, prompt: str) -> str | tuple[int, ...]:
        """Return what a sample goes on from."""
        if self._chat is None:
            return prompt
        # As ids: an engine over a module in training does not know the template.
        return tuple(self._chat.encode((Message("user", prompt),), self._trained[2]))

    def _drawn(self, index: int) -> int:
        """Return the seed of a prompt at this step."""
        place = f"{self._seed}/{self.step}/{index}".encode()
        return int.from_bytes(hashlib.blake2b(place, digest_size=7).digest())

    def _look(self) -> None:
        """Take the samplers that the file says, if it has changed."""
        try:
            content = self._file.read_bytes()
            if content == self._read:
                return
            self._read = content
            tables = tomllib.loads(content.decode())
            self._engine = self._with(check_pipeline(str(self._file), tables).samplers)
        except FileNotFoundError:
            return
        except FstError as error:
            self._tell(f"{error}\nThe samplers stay as they were.")
        except (OSError, ValueError) as error:
            self._tell(f"{self._file}: {one_line(error)}. The samplers stay as they were.")

    def _with(self, samplers: Sequence[Part]) -> Engine:
        assert self._pipeline.engine is not None
        model, module, tokenizer = self._trained
        engine: Engine = self._pipeline.engine.build()
        return engine.for_module(
            module,
            tokenizer,
            [(part.build(), part.settings) for part in samplers],
            model.context_length,
            supports_cache=model.supports_cache,
        )
