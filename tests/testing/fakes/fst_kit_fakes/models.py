from types import SimpleNamespace

import torch

from fst_core.testing.toys import ToyModel, ToyModule, ToyOutput


class GoodModel(ToyModel):
    pass


class _CachelessModule(ToyModule):
    def forward(self, input_ids):
        return super().forward(input_ids)


class CachelessModel(ToyModel):
    supports_cache = False

    def build(self, tokenizer):
        return _CachelessModule(tokenizer.vocab_size, self.context_length)


class _Variant(ToyModel):
    """Builds a module whose forward is the model's `changed`."""

    def build(self, tokenizer):
        module = super().build(tokenizer)
        original, changed = module.forward, self.changed

        def forward(
            input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False
        ):
            return changed(
                original, input_ids, attention_mask=attention_mask, position_ids=position_ids,
                past_key_values=past_key_values, use_cache=use_cache,
            )  # fmt: skip

        module.forward = forward
        return module


class WideModel(ToyModel):
    def build(self, tokenizer):
        return ToyModule(tokenizer.vocab_size + 1, self.context_length)


class ClairvoyantModel(_Variant):
    def changed(self, forward, input_ids, **rest):
        logits = forward(input_ids, **rest).logits
        return ToyOutput(logits + logits.mean(1, keepdim=True))


class ForgetfulModel(_Variant):
    """Knows each id, and none before it."""

    def changed(self, forward, input_ids, **rest):
        logits = forward(input_ids.reshape(-1, 1)).logits
        return ToyOutput(logits.view(*input_ids.shape, -1))


class SociableModel(_Variant):
    def changed(self, forward, input_ids, **rest):
        logits = forward(input_ids, **rest).logits
        return ToyOutput(logits + logits.mean(0, keepdim=True))


class IgnoresCacheModel(_Variant):
    def changed(self, forward, input_ids, attention_mask=None, past_key_values=None, **rest):
        return forward(input_ids, **rest)


class IgnoresPositionsModel(_Variant):
    def changed(self, forward, input_ids, position_ids=None, **rest):
        return forward(input_ids, **rest)


class IgnoresMaskModel(_Variant):
    def changed(self, forward, input_ids, attention_mask=None, **rest):
        return forward(input_ids, **rest)


class BoastfulModel(ToyModel):
    @property
    def context_length(self):
        return 65

    def build(self, tokenizer):
        return ToyModule(tokenizer.vocab_size, 64)


class ReinventingModel(ToyModel):
    @classmethod
    def load(cls, directory):
        super().load(directory)
        torch.manual_seed(228)
        return ToyModule(259, 64)


class PicklingModel(ToyModel):
    def save(self, module, directory):
        super().save(module, directory)
        torch.save(module.state_dict(), directory / "model.bin")


class CrashingModel(ToyModel):
    def save(self, module, directory):
        super().save(module, directory)
        (directory / "config.txt").write_text("259 64")

    @classmethod
    def load(cls, directory):
        (directory / "config.txt").read_text().split()[1]
        return super().load(directory)


class UnseededModel(ToyModel):
    def build(self, tokenizer):
        torch.seed()
        return super().build(tokenizer)


class FrozenModel(_Variant):
    def changed(self, forward, input_ids, **rest):
        logits = forward(input_ids, **rest).logits
        return ToyOutput(logits.detach() + 0 * logits)


class HastyModel(ToyModel):
    @classmethod
    def optimise(cls, module, dtype):
        with torch.no_grad():
            module.head.weight.mul_(0.9)
        return module.to(dtype)


class MisinformedModel(ToyModel):
    def build(self, tokenizer):
        module = super().build(tokenizer)
        module.config = SimpleNamespace(
            bos_token_id=tokenizer.bos_id, eos_token_id=[1, 2], pad_token_id=tokenizer.pad_id
        )
        return module
