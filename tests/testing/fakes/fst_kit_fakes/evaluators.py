import random

import torch
from torch.nn.functional import cross_entropy

from fst_core import Evaluator
from fst_core.dataset import IGNORED, ordered_batches


class GoodEvaluator(Evaluator):
    @torch.no_grad()
    def evaluate(self, model, dataset):
        total = 0.0
        for batch in ordered_batches(dataset.valid, 4):
            logits = model.module(input_ids=torch.from_numpy(batch.ids)).logits[:, :-1]
            labels = torch.from_numpy(batch.labels)[:, 1:].flatten()
            total += cross_entropy(
                logits.flatten(0, 1), labels, ignore_index=IGNORED, reduction="sum"
            ).item()
        lossy = model.tokenizer.lossy
        return {"loss": total, "per_byte": None if lossy else total / dataset.valid.text_bytes}


class NanEvaluator(GoodEvaluator):
    def evaluate(self, model, dataset):
        return {"loss": float("nan")}


class IntegerEvaluator(GoodEvaluator):
    def evaluate(self, model, dataset):
        return {"parameters": sum(p.numel() for p in model.module.parameters())}


class NothingEvaluator(GoodEvaluator):
    def evaluate(self, model, dataset):
        return {}


class RandomEvaluator(GoodEvaluator):
    def evaluate(self, model, dataset):
        return {"loss": random.random()}


class LosslessEvaluator(GoodEvaluator):
    def evaluate(self, model, dataset):
        figures = super().evaluate(model, dataset)
        return {name: figure for name, figure in figures.items() if figure is not None}


class TrainingEvaluator(GoodEvaluator):
    def evaluate(self, model, dataset):
        model.module.train()
        return super().evaluate(model, dataset)


class ScribblingEvaluator(GoodEvaluator):
    def evaluate(self, model, dataset):
        (model.directory / "evaluation.json").write_text("{}")
        return super().evaluate(model, dataset)
