"""The dataset: samples of ids in memory-mapped files. Needs numpy alone."""

from fst_core.dataset.batches import (
    Batch,
    Batching,
    collate,
    epoch_batches,
    longest_first,
    ordered_batches,
)
from fst_core.dataset.samples import IGNORED, TEMPLATE, Dataset, Samples, open_split, token_dtype
from fst_core.dataset.writer import SplitWriter, cut

__all__ = [
    "IGNORED",
    "TEMPLATE",
    "Batch",
    "Batching",
    "Dataset",
    "Samples",
    "SplitWriter",
    "collate",
    "cut",
    "epoch_batches",
    "longest_first",
    "open_split",
    "ordered_batches",
    "token_dtype",
]
