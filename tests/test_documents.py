"""Documents, and which of them are held out."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fst_core import Document, Message
from fst_core.documents import cut_last, held_out


def test_a_document_is_either_a_text_or_a_conversation():
    assert Document(text="").text == ""
    assert Document(messages=(Message("user", "Hi"),)).text is None
    for wrong in ({}, {"text": "a", "messages": (Message("user", "Hi"),)}):
        with pytest.raises(ValueError, match="either"):
            Document(**wrong)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.9])
def test_about_the_share_is_held_out(share):
    held = held_out(20_000, share, seed=228)
    assert held.shape == (20_000,)
    assert held.dtype == np.bool_
    deviation = (share * (1 - share) / 20_000) ** 0.5
    assert abs(held.mean() - share) < 5 * deviation


def test_another_seed_holds_out_others():
    first, second = held_out(1_000, 0.05, 1), held_out(1_000, 0.05, 2)
    assert (first & second).sum() < first.sum() / 2
    assert (held_out(1_000, 0.05, 1) == first).all()


def test_documents_added_at_the_end_change_nothing_before_them():
    many = held_out(2_000, 0.05, 228)
    assert (held_out(1_500, 0.05, 228) == many[:1_500]).all()


def test_a_larger_share_holds_out_what_a_smaller_one_did():
    assert not (held_out(500, 0.05, 3) & ~held_out(500, 0.1, 3)).any()


@pytest.mark.parametrize("share", [1e-9, 0.5, 1 - 1e-9])
def test_of_two_or_more_at_least_one_is_held_out_and_one_is_not(share):
    for count in (2, 3, 10):
        for seed in range(50):
            assert 0 < held_out(count, share, seed).sum() < count


def test_none_of_none_is_held_out():
    assert held_out(0, 0.05, 228).shape == (0,)


def test_a_text_is_cut_at_the_line_end_nearest_to_the_share():
    """Against every possible cut, tried one by one."""
    rng = random.Random(228)
    for _ in range(300):
        words = ["".join(rng.choices("abé😀", k=rng.randint(1, 9))) for _ in range(40)]
        text = "".join(word + rng.choice(" \n  ") for word in words).strip()
        share = rng.choice([0.02, 0.05, 0.2, 0.5])
        train, valid = cut_last(text, share)
        at = len(train)
        assert text == train + text[at] + valid
        assert train
        assert valid
        wanted = round(len(text) * (1 - share))
        ends = [
            i
            for i, c in enumerate(text)
            if c == "\n" and wanted // 2 <= i and 0 < i < len(text) - 1
        ]
        if ends:
            assert text[at] == "\n"
            assert abs(at - wanted) == min(abs(end - wanted) for end in ends)
        else:
            assert text[at] == " "


def test_a_title_is_not_all_that_is_left_to_train_on():
    train, valid = cut_last("Title\n" + "words and words " * 1_000, 0.05)
    assert 0.03 < len(valid) / (len(train) + len(valid)) < 0.07


def test_a_text_without_spaces_is_cut_anywhere():
    assert cut_last("abcdefghij", 0.2) == ("abcdefgh", "ij")
    assert cut_last("ab", 0.05) == ("a", "b")
    assert cut_last("ab", 0.95) == ("a", "b")


def test_lines_of_two_are_cut_between_them():
    assert cut_last("one line\nanother", 0.05) == ("one line", "another")
