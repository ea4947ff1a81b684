import itertools
import pickle
import random
import unicodedata

import numpy as np

from fst_core import Settings, Tokenizer
from fst_core.testing.toys import ToyTokenizer

_count = itertools.count()


class GoodTokenizer(ToyTokenizer):
    pass


class LossyTokenizer(ToyTokenizer):
    lossy = True

    def encode(self, text):
        return super().encode(text.lower())


class ControlTokenizer(ToyTokenizer):
    def encode(self, text):
        before, found, after = text.partition("[DOC_END]")
        return [
            *super().encode(before),
            *([self.end_id] if found else []),
            *super().encode(after),
        ]


class SmallVocabularyTokenizer(ToyTokenizer):
    vocab_size = 200


class NumpyIdsTokenizer(ToyTokenizer):
    def encode(self, text):
        return list(np.array(super().encode(text), np.int64))


class SpaceForNothingTokenizer(ToyTokenizer):
    def encode(self, text):
        return super().encode(text or " ")


class StrippingTokenizer(ToyTokenizer):
    def encode(self, text):
        return super().encode(text.rstrip())


class NormalisingTokenizer(ToyTokenizer):
    def encode(self, text):
        return super().encode(unicodedata.normalize("NFC", text))


class StrictTokenizer(ToyTokenizer):
    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode()


class SurrogateTokenizer(ToyTokenizer):
    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode(errors="surrogateescape")


class ShowingTokenizer(ToyTokenizer):
    def decode(self, ids):
        return super().decode(ids) + "[DOC_END]" * list(ids).count(self.end_id)


class Int64BatchTokenizer(ToyTokenizer):
    def encode_batch(self, texts):
        ids, offsets = super().encode_batch(texts)
        return ids.astype(np.int64), offsets


class ListOffsetsTokenizer(ToyTokenizer):
    def encode_batch(self, texts):
        ids, offsets = super().encode_batch(texts)
        return ids, offsets[:-1]


class JoiningBatchTokenizer(ToyTokenizer):
    def encode_batch(self, texts):
        ids, offsets = super().encode_batch(texts)
        return np.roll(ids, 1), offsets


class UnframedTokenizer(ToyTokenizer):
    def encode_documents(self, texts):
        return self.encode_batch(texts)


class BoslessPromptTokenizer(ToyTokenizer):
    def encode_prompt(self, text):
        return self.encode(text)


class EndedPromptTokenizer(ToyTokenizer):
    def encode_prompt(self, text):
        return [*super().encode_prompt(text), self.end_id]


class SpacedDocumentsTokenizer(ToyTokenizer):
    def encode_documents(self, texts):
        return super().encode_documents([f" {text} " for text in texts])


class ForgetfulTokenizer(ToyTokenizer):
    shift = 0

    def fit(self, texts):
        self.shift = len(list(texts))

    def encode(self, text):
        return [(i + self.shift) % 256 for i in super().encode(text)]

    def decode(self, ids):
        return super().decode([(i - self.shift) % 256 for i in ids if i < 256])


class AbsoluteTokenizer(ToyTokenizer):
    def save(self, directory):
        super().save(directory)
        self.directory = directory

    @classmethod
    def load(cls, directory):
        loaded = super().load(directory)
        loaded.directory = directory
        return loaded

    def encode(self, text):
        if hasattr(self, "directory"):
            self.load(self.directory)
        return super().encode(text)


class CountingTokenizer(ToyTokenizer):
    def save(self, directory):
        super().save(directory)
        (directory / "saved").write_text(str(next(_count)))


class PicklingTokenizer(ToyTokenizer):
    def save(self, directory):
        super().save(directory)
        (directory / "more.bin").write_bytes(pickle.dumps({"a": [1, 2]}))


class CrashingTokenizer(ToyTokenizer):
    @classmethod
    def load(cls, directory):
        (directory / "toy.json").read_text()
        return cls()


class RandomTokenizer(ToyTokenizer):
    def fit(self, texts):
        self.merges = random.random()

    def save(self, directory):
        super().save(directory)
        (directory / "merges").write_text(str(self.merges))

    @classmethod
    def load(cls, directory):
        loaded = super().load(directory)
        loaded.merges = (directory / "merges").read_text()
        return loaded


class ZeroFormatTokenizer(ToyTokenizer):
    format = 0


class AbstractTokenizer(Tokenizer):
    pass


class StrangeTokenizer:
    format = 1


class WordyTokenizer(ToyTokenizer):
    pass


class LaxTokenizer(ToyTokenizer):
    class Settings(Settings, extra="ignore"):
        """Takes everything."""

    def __init__(self, settings=None):
        pass


class SilentTokenizer(ToyTokenizer):
    class Settings(Settings):
        size: int = 1

    def __init__(self, settings=None):
        pass


class InfiniteTokenizer(ToyTokenizer):
    class Settings(Settings):
        size: float = float("inf")
        """Larger than JSON."""

    def __init__(self, settings=None):
        pass
