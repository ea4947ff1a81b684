"""Chance that can be repeated."""

from __future__ import annotations

import itertools
import statistics

import pytest

from fst_core.chance import _splitmix64, uniform


def test_it_is_splitmix64():
    """The first outputs for the state 0, as its authors' program prints them."""
    state, gamma, mask = 0, 0x9E3779B97F4A7C15, 2**64 - 1
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    for output in published:
        assert _splitmix64(state) == output >> 11
        state = (state + gamma) & mask


def test_a_number_depends_on_its_seed_and_its_index_alone():
    forwards = [uniform(7, index) for index in range(100)]
    backwards = [uniform(7, index) for index in reversed(range(100))]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 100


@pytest.mark.parametrize("seed", [0, 1, 228, 2**31, 2**32, 2**63 - 1, 2**64 - 1])
def test_numbers_are_spread_evenly(seed):
    count, bins = 20_000, 20
    numbers = [uniform(seed, index) for index in range(count)]
    assert all(0 <= number < 1 for number in numbers)
    filled = [0] * bins
    for number in numbers:
        filled[int(number * bins)] += 1
    chi_squared = sum((n - count / bins) ** 2 / (count / bins) for n in filled)
    assert chi_squared < 60  # of 19 degrees of freedom: one in a million is above
    follows = statistics.correlation(numbers[:-1], numbers[1:])
    assert abs(follows) < 5 / count**0.5


def test_neighbouring_seeds_have_nothing_in_common():
    numbers = [[uniform(seed, index) for index in range(2_000)] for seed in range(6)]
    for one, other in itertools.pairwise(numbers):
        assert abs(statistics.correlation(one, other)) < 5 / 2_000**0.5
        assert not set(one) & set(other)


def test_all_64_bits_of_a_seed_count():
    assert len({uniform(1 << bit, 0) for bit in range(64)}) == 64
