"""What the components build; enough to see with which settings."""

from fst_core import Document


class Toy:
    format = 1

    def __init__(self, settings):
        self.settings = settings

    def splits(self):
        return ("train",)

    def read(self, split):
        yield Document(text="a toy", source=split)


class Plain:
    format = 1
