"""Rows that share pages keep what they have, whatever becomes of the others."""

import random

import torch
from fst_engine.pages import PAGE, PagedCache, PageShape

SHAPE = PageShape(layers=2, heads=3, head_dim=4, dtype=torch.float32)


def held(cache, row):
    """What the pages of a row hold, (layers, 2, heads, length, head_dim)."""
    pages = cache._pages[row]
    assert len(pages) * PAGE >= cache.lengths[row]
    return torch.cat([torch.empty(2, 2, 3, 0, 4), *pages], 3)[:, :, :, : cache.lengths[row]]


def write(cache, slots, counts):
    """Compute new positions as layers do, and return what was written of each row."""
    positions = cache.place(slots, counts)
    assert cache.slots.tolist() == [
        slot for slot, n in zip(slots, counts, strict=True) for _ in range(n)
    ]
    pages = {page.data_ptr(): page for row in cache._pages for page in row}
    written = torch.randn(len(positions), 2, 2, 3, 4)
    for slot, position, new in zip(cache.slots, positions, written, strict=True):
        page = pages[int(cache.table[slot, position // PAGE])]
        page[:, :, :, position % PAGE] = new
    cache.commit(slots, counts)
    return written.movedim(0, 3).split(counts, 3)


def test_each_row_holds_what_was_written_of_it():
    rng, cache, expected, kept = random.Random(1), PagedCache(SHAPE), [], []
    torch.manual_seed(1)
    for _ in range(400):
        if not expected or (len(expected) < 6 and rng.random() < 0.3):
            source, row, length, begun = None, 0, 0, torch.empty(2, 2, 3, 0, 4)
            if kept and rng.random() < 0.7:  # one with a beginning that was kept
                source, begun = rng.choice(kept)
                length = rng.randint(0, begun.shape[3])
            elif expected and rng.random() < 0.7:  # or that another row has
                row = rng.randrange(len(expected))
                source, begun = cache, expected[row]
                length = rng.randint(0, begun.shape[3])
            cache.add(source, row, length)
            expected.append(begun[:, :, :, :length])
        elif rng.random() < 0.2:
            row = rng.randrange(len(expected))
            kept.append((cache.copy(row, cache.lengths[row]), expected[row]))
            if rng.random() < 0.5:
                cache.remove(row)
                expected[row] = expected[-1]
                expected.pop()
        if expected:
            slots = rng.sample(range(len(expected)), rng.randint(1, len(expected)))
            counts = [rng.randint(1, 60) for _ in slots]
            for slot, new in zip(slots, write(cache, slots, counts), strict=True):
                expected[slot] = torch.cat([expected[slot], new], 3)
            if rng.random() < 0.3:  # the guess was wrong
                lost = rng.randint(0, counts[0])
                cache.shorten(slots[0], cache.lengths[slots[0]] - lost)
                expected[slots[0]] = expected[slots[0]][:, :, :, : cache.lengths[slots[0]]]
        for row, wanted in enumerate(expected):
            assert torch.equal(held(cache, row), wanted)
        for copied, wanted in kept[-3:]:
            assert torch.equal(held(copied, 0), wanted)
        del kept[:-8]


def test_a_page_that_rows_share_is_there_once_and_what_they_write_is_not():
    cache = PagedCache(SHAPE)
    cache.add()
    write(cache, [0], [2 * PAGE + 5])
    cache.add(cache, 0, 2 * PAGE + 3)
    first, second = cache._pages
    assert [page.data_ptr() for page in first[:2]] == [page.data_ptr() for page in second[:2]]
    assert first[2].data_ptr() != second[2].data_ptr()
    assert cache.bytes_for([2 * PAGE, 1]) == 3 * first[0].numel() * 4


def test_a_row_that_grows_takes_a_page_and_moves_nothing():
    cache = PagedCache(SHAPE)
    cache.add()
    write(cache, [0], [PAGE])
    (page,) = cache._pages[0]
    write(cache, [0], [1])
    assert len(cache._pages[0]) == 2
    assert cache._pages[0][0] is page
