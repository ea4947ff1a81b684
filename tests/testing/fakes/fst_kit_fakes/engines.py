import asyncio
import itertools

import torch

from fst_core import Chunk, Engine, Rows
from fst_core.chance import uniform
from fst_core.errors import FstError, UnsupportedParameter, UserError
from fst_core.generation import Detokenizer, Logprob
from fst_core.settings import validate


class GoodEngine(Engine):
    """Generates for one request after another, a forward pass over the whole text for each id."""

    module = None
    closed = False

    def for_artefact(self, directory, samplers):
        raise NotImplementedError

    def for_module(self, module, tokenizer, samplers, context_length, *, supports_cache=True):
        engine = type(self)()
        engine.module, engine.tokenizer, engine.context_length = module, tokenizer, context_length
        [(engine.sampler, engine.settings)] = samplers
        return engine

    def describe(self):
        return {"name": type(self).__name__, "context_length": self.context_length}

    async def close(self):
        self.closed = True

    def prompt(self, request):
        prompt = request.prompt
        return list(self.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt)

    def parameters(self, request):
        for name in request.parameters:
            if name not in type(self.settings).model_fields:
                raise UnsupportedParameter(name)
        try:
            return validate(
                type(self.settings), self.settings.model_dump() | dict(request.parameters)
            )
        except ValueError as error:
            raise UserError(str(error)) from None

    def seed(self, request):
        return request.seed

    def room(self, request, prompt):
        room = self.context_length - len(prompt)
        if room < 1:
            raise UserError("the prompt is too long")
        return room if request.max_new_tokens is None else min(room, request.max_new_tokens)

    @torch.no_grad()
    def logits(self, ids):
        training = self.module.training
        try:
            return self.module.eval()(input_ids=torch.tensor([ids])).logits[:, -1].float()
        finally:
            self.module.train(training)

    def choose(self, logits, rows):
        return int(self.sampler.draw(self.sampler.adjust(logits, rows), rows))

    def logprob(self, logits, chosen, count):
        logprobs = logits[0].log_softmax(-1)
        best = logprobs.topk(count)
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Logprob(chosen, logprobs[chosen].item(), top)

    async def stream(self, request):
        if self.closed:
            raise FstError("the engine is closed")
        prompt, parameters = self.prompt(request), self.parameters(request)
        room = self.room(request, prompt)
        detokenizer = Detokenizer(self.tokenizer, prompt, request.stop)
        ids = list(prompt)
        for index in range(room):
            await asyncio.sleep(0)
            if self.closed:
                raise FstError("the engine was closed")
            logits = self.logits(ids)
            number = torch.tensor([uniform(self.seed(request), index)], dtype=torch.float64)
            chosen = self.choose(logits.clone(), Rows([parameters], [ids], number, [len(prompt)]))
            ids.append(chosen)
            ended = chosen == self.tokenizer.end_id
            last = ended or index + 1 == room
            text = detokenizer.push([chosen]) + (detokenizer.finish() if last else "")
            last = last or detokenizer.stopped
            logprobs = None
            if request.logprobs is not None:
                logprobs = (self.logprob(logits, chosen, request.logprobs),)
            reason = "stop" if ended or detokenizer.stopped else "length"
            yield Chunk(text, (chosen,), logprobs, reason if last else None)
            if last:
                return


class UndescribedEngine(GoodEngine):
    def describe(self):
        return {}


class CountingEngine(GoodEngine):
    """Numbers its requests, and draws by the number: what comes first draws otherwise."""

    def for_module(self, *arguments, **named):
        engine = super().for_module(*arguments, **named)
        engine.numbers = itertools.count()
        engine.by_request = {}
        return engine

    def prompt(self, request):
        self.by_request[id(request)] = next(self.numbers)
        return super().prompt(request)

    def seed(self, request):
        return self.by_request[id(request)]


class _NoCache:
    def update(self, keys, values, layer_idx):
        return keys, values

    def get_seq_length(self):
        return 0


class CachingEngine(GoodEngine):
    """Passes a cache to a module that takes none."""

    @torch.no_grad()
    def logits(self, ids):
        output = self.module(input_ids=torch.tensor([ids]), past_key_values=_NoCache())
        return output.logits[:, -1]


class SeedlessEngine(GoodEngine):
    def seed(self, request):
        return 0


class SecondBestEngine(GoodEngine):
    def choose(self, logits, rows):
        return int(logits[0].topk(2).indices[1])


class BoslessEngine(GoodEngine):
    def prompt(self, request):
        is_text = isinstance(request.prompt, str)
        return (
            (self.tokenizer.encode(request.prompt) or [97]) if is_text else super().prompt(request)
        )


class BosAddingEngine(GoodEngine):
    def prompt(self, request):
        prompt = super().prompt(request)
        bos = self.tokenizer.bos_id
        return prompt if prompt[:1] == [bos] else [bos, *prompt]


class _Rewriting(GoodEngine):
    """Changes the chunks of a good engine."""

    async def stream(self, request):
        async for chunk in super().stream(request):
            yield self.rewritten(chunk)


class ByteByByteEngine(_Rewriting):
    def rewritten(self, chunk):
        return Chunk(self.tokenizer.decode(chunk.ids), chunk.ids, None, chunk.finish_reason)


class ReasonedEngine(_Rewriting):
    def rewritten(self, chunk):
        return Chunk(chunk.text, chunk.ids, chunk.logprobs, chunk.finish_reason or "length")


class AtOnceEngine(GoodEngine):
    async def stream(self, request):
        chunks = [chunk async for chunk in super().stream(request)]
        yield Chunk(
            "".join(chunk.text for chunk in chunks),
            tuple(i for chunk in chunks for i in chunk.ids),
            finish_reason=chunks[-1].finish_reason,
        )


class LeakingEngine(GoodEngine):
    """Looks for stop strings in what it has shown already."""

    async def stream(self, request):
        shown = ""
        unstopped = type(request)(
            request.prompt, request.max_new_tokens, request.seed, (), request.parameters
        )
        async for chunk in super().stream(unstopped):
            shown += chunk.text
            if any(stop in shown for stop in request.stop):
                yield Chunk(chunk.text, chunk.ids, None, "stop")
                return
            yield chunk


class UnstoppableEngine(GoodEngine):
    async def stream(self, request):
        unstopped = type(request)(
            request.prompt, request.max_new_tokens, request.seed, (), request.parameters
        )
        async for chunk in super().stream(unstopped):
            yield chunk


class EndlessEngine(GoodEngine):
    @torch.no_grad()
    def logits(self, ids):
        logits = super().logits(ids)
        logits[:, self.tokenizer.end_id] = -1e9
        return logits


class GenerousEngine(GoodEngine):
    def room(self, request, prompt):
        room = super().room(request, prompt)
        return min(room + 1, self.context_length - len(prompt))


class TruncatingEngine(GoodEngine):
    def prompt(self, request):
        return super().prompt(request)[: self.context_length - 1]


class LenientEngine(GoodEngine):
    def parameters(self, request):
        known = {n: v for n, v in request.parameters.items() if n == "greedy"}
        return super().parameters(type(request)(parameters=known))


class FragileEngine(GoodEngine):
    broken = False

    def logits(self, ids):
        if self.broken:
            raise FstError("another request broke it")
        try:
            return super().logits(ids)
        except Exception:
            self.broken = True
            raise


class DiligentEngine(GoodEngine):
    """Works on when nobody listens."""

    async def stream(self, request):
        chunks = asyncio.Queue()
        background = super().stream(request)

        async def work():
            try:
                async for chunk in background:
                    await chunks.put(chunk)
            except FstError as error:
                await chunks.put(error)

        self.working = asyncio.create_task(work())
        while True:
            chunk = await chunks.get()
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
            if chunk.finish_reason:
                return


class CertainEngine(GoodEngine):
    def logprob(self, logits, chosen, count):
        return Logprob(chosen, 0.0, ((chosen, 0.0),) * count)


class ModestEngine(GoodEngine):
    def parameters(self, request):
        if request.logprobs is not None:
            raise UnsupportedParameter("logprobs")
        return super().parameters(request)


class EvaluatingEngine(GoodEngine):
    def logits(self, ids):
        logits = super().logits(ids)
        self.module.eval()
        return logits


class GamblingEngine(GoodEngine):
    def choose(self, logits, rows):
        torch.rand(())
        return super().choose(logits, rows)


class ImmortalEngine(GoodEngine):
    async def close(self):
        pass
