"""A model of FST as the Language Model Evaluation Harness asks for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from fst_core import Request
from fst_core.pipeline.evaluate import engine_over

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fst_core.artefacts import LoadedModel

__all__ = ["HarnessModel"]

_NEW_TOKENS: Final = 256
"""The most ids of an answer where a task does not say; the harness's own models have this too."""

Pair = tuple[list[int], list[int]]
"""The ids before, and the ids whose chances are asked for."""


class HarnessModel(TemplateLM):  # type: ignore[misc]  # shipped without types
    """Answers the harness: how likely a continuation is, and how the model goes on."""

    def __init__(self, model: LoadedModel, batch_size: int, device: torch.device) -> None:
        super().__init__()
        self._loaded = model
        self._tokenizer = model.tokenizer
        self._batch_size = batch_size
        self._module = model.module.to(device)
        self._device = device

    @property
    def eot_token_id(self) -> int:
        """The id that ends a document."""
        return self._tokenizer.end_id

    @property
    def prefix_token_id(self) -> int:
        """The id before a text that nothing precedes."""
        bos = self._tokenizer.bos_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        **_: Any,
    ) -> list[int]:
        """Encode a text as a prompt, or without control ids."""
        if add_special_tokens is False:
            return self._tokenizer.encode(string)
        return self._tokenizer.encode_prompt(string)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """Return the log probability of each continuation, and whether it is the likeliest throughout."""
        return self._chances([(context, continuation) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """Return the log probability of each whole text, in windows as long as the model takes."""
        totals = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._loaded.context_length - 1,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            totals.append(sum(chance for chance, _ in self._chances(pairs)))
        return totals

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """Return what the model writes after each prompt, up to the strings that end it."""
        return asyncio.run(self._generated([request.args for request in requests]))

    async def _generated(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        engine = engine_over(self._loaded)
        texts: list[str] = []
        known = engine.describe().get("sampling", {})
        try:
            for first in range(0, len(asked), self._batch_size):
                some = [
                    self._request(prompt, options, known)
                    for prompt, options in asked[first : first + self._batch_size]
                ]
                texts += [g.text for g in await asyncio.gather(*map(engine.generate, some))]
        finally:
            await engine.close()
        return texts

    def _request(
        self, prompt: str, options: Mapping[str, Any], known: Mapping[str, Any]
    ) -> Request:
        """Return the request of a task; a prompt that leaves no room loses its beginning."""
        until = options.get("until") or ()
        length = self._loaded.context_length
        new = min(int(options.get("max_gen_toks", _NEW_TOKENS)), length - 1)
        sampled = {
            name: options[name] for name in ("temperature", "top_p", "top_k") if name in options
        }
        if not options.get("do_sample"):
            sampled = {"temperature": 0.0}
        ids = self.tok_encode(prompt) or [self.prefix_token_id]
        return Request(
            prompt=tuple(ids[new - length :]),
            max_new_tokens=new,
            stop=tuple(filter(None, [until] if isinstance(until, str) else until)),
            parameters={name: value for name, value in sampled.items() if name in known},
        )

    def _chances(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Return log probabilities and greediness, in the order of the pairs."""
        longest_first = sorted(range(len(pairs)), key=lambda i: -sum(map(len, pairs[i])))
        found: dict[int, tuple[float, bool]] = {}
        for first in range(0, len(pairs), self._batch_size):
            places = longest_first[first : first + self._batch_size]
            measured = self._measured([pairs[place] for place in places])
            found.update(zip(places, measured, strict=True))
        return [found[place] for place in range(len(pairs))]

    @torch.inference_mode()
    def _measured(self, pairs: Sequence[Pair]) -> Iterator[tuple[float, bool]]:
        """Yield the answer to each pair; one that is too long loses its beginning."""
        length = self._loaded.context_length
        rows = [(context + continuation)[-length - 1 :] for context, continuation in pairs]
        longest = max(map(len, rows)) - 1
        ids = torch.zeros((len(rows), longest), dtype=torch.int64)
        for row, whole in enumerate(rows):
            ids[row, : len(whole) - 1] = torch.tensor(
                whole[:-1]
            )  # what the last id leads to is not asked
        logits = self._module(input_ids=ids.to(self._device)).logits.float().cpu()  # (B, T, V)
        for row, (whole, (_, continuation)) in enumerate(zip(rows, pairs, strict=True)):
            end = len(whole) - 1
            asked = torch.tensor(continuation[-end:])
            chances = logits[row, end - len(asked) : end].log_softmax(-1)
            greedy = bool((chances.argmax(-1) == asked).all())
            yield float(chances.gather(-1, asked[:, None]).double().sum()), greedy
