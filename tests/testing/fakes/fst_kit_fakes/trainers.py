import copy

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fst_core import Settings, Trainer
from fst_core.dataset import epoch_batches


class GoodTrainer(Trainer):
    class Settings(Settings):
        epochs: int = 2
        """How many times each sample is seen."""

    epochs = 2

    def __init__(self, settings=None):
        if settings is not None:
            self.epochs = settings.epochs

    def seed(self, run):
        return run.seed

    def fit(self, module, dataset, tokenizer, run, sample):
        optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
        step = 0
        for epoch in range(self.epochs):
            for batch in epoch_batches(dataset.train, 16, self.seed(run), epoch):
                logits = module(input_ids=torch.from_numpy(batch.ids)).logits[:, :-1]
                labels = torch.from_numpy(batch.labels)[:, 1:]
                loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                self.report(run, step, loss.item())
                step += 1
        return {"loss": loss.item()}

    def report(self, run, step, loss):
        run.metrics(step, {"loss": loss})


class IdleTrainer(GoodTrainer):
    def fit(self, module, dataset, tokenizer, run, sample):
        run.metrics(0, {"loss": 1.0})
        return {"loss": 1.0}


class CopyingTrainer(GoodTrainer):
    def fit(self, module, *rest):
        return super().fit(copy.deepcopy(module), *rest)


class SilentTrainer(GoodTrainer):
    def report(self, run, step, loss):
        pass


class NanTrainer(GoodTrainer):
    def fit(self, *arguments):
        return {**super().fit(*arguments), "valid_loss": float("nan")}


class BackwardsTrainer(GoodTrainer):
    def report(self, run, step, loss):
        run.metrics(1000 - step, {"loss": loss})


class UnseededTrainer(GoodTrainer):
    def seed(self, run):
        return int(np.random.default_rng().integers(2**31))


class TirelessTrainer(GoodTrainer):
    def fit(self, module, dataset, tokenizer, run, sample):
        checkpoint = run.directory / "runs"
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        checkpoint.write_text(str(done + 1))
        self.epochs += done
        return super().fit(module, dataset, tokenizer, run, sample)


class ScribblingTrainer(GoodTrainer):
    def fit(self, module, dataset, *rest):
        (dataset.directory / "seen").write_text("yes")
        return super().fit(module, dataset, *rest)
