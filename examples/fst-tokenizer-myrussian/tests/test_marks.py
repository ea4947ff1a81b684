import random

import pytest
from fst_tokenizer_myrussian.marks import marked, unmarked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("В Москве ещё ждут", "↑в↑ москве¨¨ еще ждут"),
        ("ЁЛКА, Ёлка, ёлка", "⇑¨елка,↑¨ елка,¨ елка"),
        ("МГУшник и я. Я", "МГУшник и я.↑ я"),
        ("трёхведёрный", "трёхведёрный"),
        ("„Так“ – «так» —", "≈«↑так≈» ≈— «так» —"),
        ("2↑3 ␛", "2␛↑3 ␛␛"),
        ("  Два  Пробела", " ↑ два ↑ пробела"),
    ],
)
def test_marks_by_a_table(text, expected):
    assert marked(text) == expected
    assert unmarked(expected) == text


def test_nothing_is_lost():
    rng = random.Random(228)
    atoms = [
        *"↑⇑¨≈␛«»„“—– \n\t.-",
        "Ёж",
        "ЕЩЁ",
        "ещё",
        "её",
        "Её",
        "перелёт",
        "Word",
        "é",
        "😀",
        "е",
    ]
    for _ in range(5000):
        text = "".join(rng.choices(atoms, k=rng.randrange(30)))
        assert unmarked(marked(text)) == text


def test_a_beginning_gives_a_beginning():
    text = "«Ещё», – сказала ЁЛКА. В ПЕРЕЛЁТЕ её ждут: ↑ и ␛."
    written = marked(text)
    for end in range(len(written) + 1):
        assert text.startswith(unmarked(written[:end]))


def test_marks_that_mark_nothing_are_left_out():
    assert unmarked("↑ 5 ¨¨¨ лес ≈x ⇑") == " 5  лес x "
