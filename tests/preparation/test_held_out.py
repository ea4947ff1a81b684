"""Which documents are held out: as when all are counted, by reading a few."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from fst_core.chance import uniform
from fst_core.documents import held_out
from fst_core.preparation.held_out import HeldOut, chances


@pytest.mark.parametrize("seed", [0, 1, 228, 2**53 + 1, 2**64 - 1, 2**70, -1])
def test_chances_at_once_are_those_one_by_one(seed):
    expected = [uniform(seed, index) for index in range(990, 1_010)]
    assert chances(seed, 990, 20).tolist() == expected


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.97, 0.9999])
def test_the_choice_is_that_of_all_documents(share):
    for seed in range(40):
        for count in (1, 2, 3, 10, 300):
            held = HeldOut(range(count), share, seed)
            expected = held_out(count, share, seed)
            assert list(islice(held, count)) == expected.tolist()
            assert held.single == (count == 1)


def test_few_documents_are_read_to_know_it():
    read = 0

    def documents():
        nonlocal read
        for number in range(100_000):
            read += 1
            yield number

    held = HeldOut(documents(), 0.05, 228)
    assert read < 500
    chosen = np.fromiter(islice(held, 100_000), bool)
    assert np.array_equal(chosen, held_out(100_000, 0.05, 228))
