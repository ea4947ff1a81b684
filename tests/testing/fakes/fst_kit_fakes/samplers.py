import math

import torch

from fst_core import Sampler, Settings


class GoodSampler(Sampler):
    class Settings(Settings):
        temperature: float = 1.0
        """Divides the logits."""

    def __init__(self, settings):
        self.settings = settings

    def adjust(self, logits, rows):
        temperatures = torch.tensor([each.temperature for each in rows.parameters])
        return logits / temperatures[:, None]


class HiddenSampler(GoodSampler):
    def draw(self, logits, rows):
        return torch.multinomial(logits.softmax(-1), 1).squeeze(1)


class NeighbourlySampler(GoodSampler):
    def adjust(self, logits, rows):
        return super().adjust(logits, rows).nan_to_num(neginf=-1e9) + logits.clamp(-9).mean(0)


class RevivingSampler(GoodSampler):
    def adjust(self, logits, rows):
        return super().adjust(logits, rows).clamp(min=-3.0)


class ProhibitiveSampler(GoodSampler):
    def adjust(self, logits, rows):
        return torch.full_like(logits, -math.inf)


class BeyondSampler(GoodSampler):
    def draw(self, logits, rows):
        return super().draw(logits, rows) + logits.shape[-1] // 2


class ProudSampler(GoodSampler):
    def adjust(self, logits, rows):
        for row, history in enumerate(rows.history):
            logits[row, history[-1]] -= 1
        return super().adjust(logits, rows)


class DeafSampler(GoodSampler):
    def adjust(self, logits, rows):
        return logits / self.settings.temperature
