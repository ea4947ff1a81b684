import random
from pathlib import Path

from fst_core import Document, Reader, Settings
from fst_core.artefacts.digests import digest_fields, digest_files
from fst_core.documents import ReadReport


class GoodReader(Reader):
    class Settings(Settings):
        folder: str
        """Where the documents are."""

    def __init__(self, settings):
        self.folder = Path(settings.folder)

    def splits(self):
        return ("train",)

    def files(self):
        return sorted(self.folder.glob("*.txt"))

    def read(self, split):
        for path in self.files():
            yield Document(text=path.read_text("utf-8"), source=str(path))

    def fingerprint(self, split):
        return digest_files(self.files())


class EmptyReader(GoodReader):
    def read(self, split):
        return iter(())


class ShufflingReader(GoodReader):
    def read(self, split):
        documents = list(super().read(split))
        random.shuffle(documents)
        return iter(documents)


class ForgetfulReader(GoodReader):
    _unread = None

    def read(self, split):
        if not self._unread:
            self._unread = list(super().read(split))
        while self._unread:
            yield self._unread.pop(0)


class BlankReader(GoodReader):
    def read(self, split):
        yield from super().read(split)
        yield Document(text=" \n", source="nowhere")


class SourcelessReader(GoodReader):
    def read(self, split):
        yield from (Document(text=document.text) for document in super().read(split))


class SurrogateReader(GoodReader):
    def read(self, split):
        yield Document(text="\ud83d", source="half an emoji")


class AddingReader(GoodReader):
    dropped = 0

    def read(self, split):
        self.dropped += 1
        yield from super().read(split)

    def report(self):
        return ReadReport({"files": self.dropped})


class CountingFingerprintReader(GoodReader):
    count = 0

    def fingerprint(self, split):
        self.count += 1
        return str(self.count)


class PathFingerprintReader(GoodReader):
    def fingerprint(self, split):
        return digest_fields([str(path.resolve()) for path in self.files()]) + super().fingerprint(
            split
        )


class ConstantFingerprintReader(GoodReader):
    def fingerprint(self, split):
        return "the same"
