"""Engines generate text with a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fst_core.errors import UnsupportedParameter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    import torch

    from fst_core.documents import Message
    from fst_core.generation import Chunk, Generation, Request
    from fst_core.interfaces.sampler import Sampler
    from fst_core.interfaces.tokenizer import Tokenizer

    Samplers = Sequence[tuple[Sampler, Any]]
    """The pipeline's samplers in order, each with its Settings (None if it has none)."""

__all__ = ["Engine"]


class Engine(ABC):
    """Generates text over a module in training (`for_module`) or a saved model (`for_artefact`).

    An engine serves any number of requests at once; a request's result does not depend on the
    others. `generate` is `stream`, gathered. An author writes a component (see `Tokenizer` for the
    two modules) whose class is, in short:

        class EchoEngine(Engine):
            def for_artefact(self, directory, samplers):
                return self

            def for_module(self, module, tokenizer, samplers, context_length, *, supports_cache=True):
                return self

            def describe(self):
                return {"name": "echo"}

            async def stream(self, request):
                yield Chunk(text=request.prompt, finish_reason="stop")
    """

    format: ClassVar[int] = 1
    """Raised when the same model and request begin to give other ids."""

    @abstractmethod
    def for_module(
        self,
        module: torch.nn.Module,
        tokenizer: Tokenizer,
        samplers: Samplers,
        context_length: int,
        *,
        supports_cache: bool = True,
    ) -> Self:
        """Return this engine over a module as it is now, on the device and in the dtype it has.

        Args:
            module: forward as described by `Model`.
            tokenizer: the module's tokenizer.
            samplers: the pipeline's samplers in order, each with its Settings (None if it has none).
            context_length: the longest sequence of ids that the module takes.
            supports_cache: whether the module takes `past_key_values`, as its Model says.

        Raises:
            UserError: this engine has no module of its own (it is `remote`).
        """

    @abstractmethod
    def for_artefact(self, directory: Path, samplers: Samplers) -> Self:
        """Return this engine over a saved model.

        Raises:
            ArtefactError: the directory is no model, or is damaged.
        """

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """Return what frontends show, as JSON holds it; what an engine does not know is absent.

        name: of the engine; model, context_length, device, dtype: the model's, the first its name.
        alive: False when the engine has died, or hangs; absent means that it lives.
        chat: "trained" if the model learned its chat template, "default" if it got one.
        sampling: the parameters that a request may override, each a JSON Schema whose default is
            the pipeline's value.
        """

    @abstractmethod
    def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield a request's chunks as they are made; closing the generator cancels the request.

        Raises:
            UnsupportedParameter: a field of the request cannot be honoured.
            PromptTooLong: the prompt leaves no room.
            UserError: a value is wrong.
            EngineBusy: too many requests are waiting.
        """

    async def encode(
        self,
        prompt: str | tuple[int, ...] | tuple[Message, ...],  # noqa: ARG002  # for those that override it
    ) -> tuple[int, ...]:
        """Return the ids that a generation from this prompt goes on from.

        Raises:
            UnsupportedParameter: this engine has no tokenizer, or takes no such prompt.
            UserError: the prompt is wrong.
        """
        raise UnsupportedParameter("prompt", "this engine has no tokenizer")

    async def decode(self, ids: Sequence[int]) -> str:  # noqa: ARG002  # the same
        """Return the text of ids; control ids have none, cut characters are U+FFFD.

        Raises:
            UnsupportedParameter: this engine has no tokenizer.
            UserError: an id is not in the vocabulary.
        """
        raise UnsupportedParameter("ids", "this engine has no tokenizer")

    async def generate(self, request: Request) -> Generation:
        """Return a request's whole result."""
        from fst_core.generation import gather

        return await gather(self.stream(request))

    async def close(self) -> None:  # noqa: B027  # nothing to end, unless an engine says so
        """End the engine's threads and connections; further requests are refused."""
