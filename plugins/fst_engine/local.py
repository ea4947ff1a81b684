"""The engine `local`: a module in this process, its scheduler, and a thread around them."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fst_core import Engine
from fst_core.artefacts import load_model
from fst_core.chat import ChatTemplate
from fst_core.errors import FstError
from fst_core.generation import Detokenizer
from fst_engine.admission import Admission
from fst_engine.ends import Ends
from fst_engine.forward import Forward, attention_limits
from fst_engine.parameters import Parameters
from fst_engine.precision import choose_device, choose_dtype
from fst_engine.prefixes import Prefixes
from fst_engine.preparing import Preparing
from fst_engine.prompts import Prompts, check_ids, is_conversation
from fst_engine.sampling import Sampling
from fst_engine.scheduler import Scheduler
from fst_engine.worker import Job, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    import torch

    from fst_core import Chunk, Message, Request, Tokenizer
    from fst_core.interfaces.engine import Samplers
    from fst_engine.settings import LocalSettings

__all__ = ["LocalEngine"]


@dataclass(frozen=True, slots=True)
class _Served:
    """What an engine is made of, once it has a model."""

    name: str | None
    """Of a saved model."""
    tokenizer: Tokenizer
    context_length: int
    chat: ChatTemplate
    parameters: Parameters
    preparing: Preparing
    forward: Forward
    prompts: Prompts
    ends: Ends
    admission: Admission
    worker: Worker


class LocalEngine(Engine):
    """Generates for many requests at once, which join and leave a running batch.

    In float32 a request's logits are, within rounding, those that it would have alone, and its ids
    are the same unless two choices are as near as that; in bf16 the rounding is some thousand times
    coarser. Control ids are never generated, but for those that end the text: such a one ends the
    generation, and is the last of its ids.
    """

    def __init__(self, settings: LocalSettings, served: _Served | None = None) -> None:
        self.settings = settings
        self._served = served

    def for_module(
        self,
        module: torch.nn.Module,
        tokenizer: Tokenizer,
        samplers: Samplers,
        context_length: int,
        *,
        supports_cache: bool = True,
    ) -> Self:
        """Return an engine over a module as it is at each step, on the device and in the dtype it has.

        The module is in evaluation mode during a step alone.

        Raises:
            UserError: two of the samplers have a field of the same name.
        """
        context_length, supports_cache = attention_limits(
            module, context_length, supports_cache=supports_cache
        )
        forward = Forward(module, tokenizer.vocab_size, supports_cache=supports_cache)
        return self._over(forward, tokenizer, samplers, context_length, ChatTemplate())

    def for_artefact(self, directory: Path, samplers: Samplers) -> Self:
        """Return an engine over a saved model, on the device and in the precision of the settings.

        Raises:
            ArtefactError: the directory is no model, or is damaged.
            UserError: there is no such device, or two of the samplers have a field of the same name.
        """
        device = choose_device(self.settings.device)
        dtype = choose_dtype(self.settings.precision, device)
        model = load_model(directory)
        module = model.model_class.optimise(model.module.to(device), dtype).eval()
        context_length, supports_cache = attention_limits(
            module, model.context_length, supports_cache=model.model_class.supports_cache
        )
        forward = Forward(
            module,
            model.tokenizer.vocab_size,
            supports_cache=supports_cache,
            in_training=False,
            pack=self.settings.pack,
        )
        prefixes = Prefixes(self.settings.prefix_gb * 1e9)
        # On a CPU a product of two rows takes twice as long as of one, unless weights are packed.
        few_are_cheap = self.settings.pack or device.type != "cpu"
        return self._over(
            forward,
            model.tokenizer,
            samplers,
            context_length,
            model.chat,
            prefixes=prefixes,
            lookup=self.settings.lookup if few_are_cheap else 0,
            name=model.name,
        )

    def _over(
        self,
        forward: Forward,
        tokenizer: Tokenizer,
        samplers: Samplers,
        context_length: int,
        chat: ChatTemplate,
        *,
        prefixes: Prefixes | None = None,
        lookup: int = 0,
        name: str | None = None,
    ) -> Self:
        never = {i for i in (tokenizer.bos_id, tokenizer.pad_id) if i is not None}
        scheduler = Scheduler(
            forward,
            Sampling(samplers, never - {tokenizer.end_id}, tokenizer),
            max_running=self.settings.max_running,
            prefill_chunk=self.settings.prefill_chunk,
            cache_bytes=self.settings.cache_gb * 1e9,
            prefixes=prefixes,
            lookup=lookup,
        )
        worker = Worker(
            scheduler,
            self.settings.max_running + self.settings.max_waiting,
            waiting_seconds=self.settings.waiting_seconds,
            stall_seconds=self.settings.stall_seconds,
        )
        parameters = Parameters(samplers)
        served = _Served(
            name,
            tokenizer,
            context_length,
            chat,
            parameters,
            Preparing(samplers, tokenizer),
            forward,
            Prompts(tokenizer, chat),
            Ends(forward.module, tokenizer, chat),
            Admission(tokenizer, parameters, context_length),
            worker,
        )
        engine = type(self)(self.settings, served)
        # Nobody needs to close an engine that took samples: its thread ends with it.
        weakref.finalize(engine, worker.close)
        return engine

    def describe(self) -> Mapping[str, Any]:
        """Return what frontends show of the model, and how many requests are running and waiting."""
        served = self._model()
        return {
            "name": "local",
            **({"model": served.name} if served.name else {}),
            "alive": served.worker.alive,
            "context_length": served.context_length,
            "device": str(served.forward.device),
            "dtype": str(served.forward.dtype).removeprefix("torch."),
            "parameters": sum(p.numel() for p in served.forward.module.parameters()),
            "cache": served.forward.supports_cache,
            "chat": served.chat.kind,
            "sampling": served.parameters.schema(),
            "max_running": self.settings.max_running,
            "running": served.worker.running,
            "waiting": served.worker.waiting,
        }

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield a request's chunks, a token each; closing the generator frees its place within a step.

        An empty prompt begins a document: it goes on from `bos_id`, or, where the tokenizer has none,
        from the `end_id` of the document before. A conversation goes on with the assistant's turn.

        Raises:
            UnsupportedParameter: a field of the request cannot be honoured.
            UserError: a value is wrong, or the prompt leaves no room.
            EngineBusy: too many requests are waiting, or this one has waited too long.
            FstError: the model, a sampler, the chat template or the engine failed.
        """
        served = self._model()
        ids = await served.prompts.encode(request.prompt, request.meta)
        ends = await served.ends.of(request.prompt)
        row = served.admission.row(request, ids, ends)
        await served.preparing(request.parameters, row.parameters)
        chat = is_conversation(request.prompt)
        stop = (*request.stop, *served.chat.stop) if chat else request.stop
        job = Job(row, Detokenizer(served.tokenizer, row.ids, stop, strip=chat))
        served.worker.submit(job)
        try:
            while True:
                message = await job.chunks.get()
                if isinstance(message, FstError):
                    raise message
                yield message
                if message.finish_reason:
                    return
        finally:
            served.worker.cancel(job)

    async def encode(self, prompt: str | tuple[int, ...] | tuple[Message, ...]) -> tuple[int, ...]:
        """Return the ids that a generation from this prompt goes on from.

        Raises:
            UserError: an id is not in the vocabulary, or the prompt is no prompt.
            FstError: the chat template failed.
        """
        return tuple(await self._model().prompts.encode(prompt))

    async def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        tokenizer = self._model().tokenizer
        return tokenizer.decode(check_ids(ids, tokenizer.vocab_size, "ids"))

    async def close(self) -> None:
        """Fail what is running, and end the thread; further requests are refused."""
        if self._served is not None:
            self._served.worker.close()
            await asyncio.to_thread(self._served.worker.join)

    def _model(self) -> _Served:
        if self._served is None:
            raise FstError(
                "the engine has no model yet: use what for_module or for_artefact returns"
            )
        return self._served
