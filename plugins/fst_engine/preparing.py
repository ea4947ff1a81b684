"""Preparing: what samplers do for a request's parameters away from the engine's thread."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from fst_core import Sampler
from fst_core.errors import EngineBusy, UserError
from fst_engine.sampling import failure

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fst_core import Tokenizer
    from fst_core.interfaces.engine import Samplers

__all__ = ["Preparing"]

_AT_ONCE: Final = 2
"""Threads: nobody can end one that takes too long, and the model needs the other cores."""
_SECONDS: Final = 10.0
"""How long a request may be prepared, its wait for a thread included."""


class Preparing:
    """Has samplers prepare: the pipeline's parameters at once, and those of requests in threads.

    A request that overrides no field of a sampler that prepares something waits for nobody.

    Raises:
        UserError: a value of the pipeline cannot be used.
        FstError: a sampler failed.
    """

    def __init__(
        self, samplers: Samplers, tokenizer: Tokenizer, *, seconds: float = _SECONDS
    ) -> None:
        self._tokenizer = tokenizer
        self._seconds = seconds
        self._samplers = [
            (number, sampler, settings)
            for number, (sampler, settings) in enumerate(samplers)
            if type(sampler).prepare is not Sampler.prepare
        ]
        self._threads = ThreadPoolExecutor(_AT_ONCE, "fst-prepare")
        for _, sampler, settings in self._samplers:
            self._prepare(sampler, settings)

    async def __call__(self, overrides: Collection[str], parameters: Sequence[Any]) -> None:
        """Return when the samplers have prepared a request's parameters.

        Raises:
            UserError: a value cannot be used, or takes too long.
            EngineBusy: others took too long.
            FstError: a sampler failed.
        """
        for number, sampler, settings in self._samplers:
            own = parameters[number]
            if own is settings:
                continue
            work = self._threads.submit(self._prepare, sampler, own)
            try:
                await asyncio.wait_for(asyncio.wrap_future(work), self._seconds)
            except TimeoutError:
                if work.cancel():  # it had not begun
                    raise EngineBusy("too much is being prepared: try again later") from None
                name = next(name for name in overrides if name in type(own).model_fields)
                raise UserError(f"{name}: not prepared within {self._seconds:g} s") from None

    def _prepare(self, sampler: Sampler, parameters: Any) -> None:
        try:
            sampler.prepare(parameters, self._tokenizer)
        except UserError:
            raise
        except Exception as error:  # a stranger's sampler may raise anything
            raise failure(f"the sampler {type(sampler).__name__} failed", error) from error
