"""The dataset: samples of ids in memory-mapped files. Needs numpy alone."""

from fst_core.dataset.batches import IGNORED, Batch, epoch_batches, ordered_batches
from fst_core.dataset.samples import Dataset, Samples, token_dtype
from fst_core.dataset.writer import SplitWriter, cut

__all__ = [
    "IGNORED",
    "Batch",
    "Dataset",
    "Samples",
    "SplitWriter",
    "cut",
    "epoch_batches",
    "ordered_batches",
    "token_dtype",
]
