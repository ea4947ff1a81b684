"""What frontends and engines exchange: chunks, and text decoded as it comes."""

from __future__ import annotations

import asyncio
import random

import pytest

from fst_core import Chunk, Tokenizer
from fst_core.generation import Detokenizer, Logprob, gather

CUT = "\ufffd"


class Bytes(Tokenizer):
    """One id a byte; 256 is a control id."""

    vocab_size, bos_id, end_id, pad_id = 257, None, 256, 256

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def save(self, directory):
        raise NotImplementedError

    @classmethod
    def load(cls, directory):
        raise NotImplementedError


class Metaspace(Bytes):
    """As tokenizers that fall back on bytes do it.

    The space that begins a text is dropped, and if a row of bytes is not UTF-8 as a whole, each of
    them shows as U+FFFD.
    """

    def decode(self, ids):
        text, run = "", b""
        for i in [*ids, None]:
            if i is not None and 128 <= i < 256:
                run += bytes([i])
                continue
            try:
                text += run.decode()
            except UnicodeDecodeError:
                text += CUT * len(run)
            run = b""
            text += chr(i) if i is not None and i < 128 else ""
        return text.removeprefix(" ")


def pushed(tokenizer, ids, rng=None, prompt=(), stop=()):
    """The texts that come out, ids pushed one by one or, with rng, in random pieces."""
    detokenizer = Detokenizer(tokenizer, prompt, stop)
    texts, at = [], 0
    while at < len(ids):
        size = rng.randint(1, 5) if rng else 1
        texts.append(detokenizer.push(ids[at : at + size]))
        at += size
    return [*texts, detokenizer.finish()], detokenizer


def random_text(rng, length=40):
    return "".join(rng.choices("ab \nйё日本😀👩\u200d🚀é\u0301", k=length))


@pytest.mark.parametrize("tokenizer", [Bytes(), Metaspace()])
@pytest.mark.parametrize("pieces", [False, True])
def test_chunks_joined_are_the_whole_text(tokenizer, pieces):
    rng = random.Random(228)
    for _ in range(200):
        text = "a" + random_text(rng, rng.randint(0, 60))
        ids = tokenizer.encode(text)
        if pieces and isinstance(tokenizer, Metaspace):
            continue  # such a tokenizer's ids come one by one
        chunks, _ = pushed(tokenizer, ids, rng if pieces else None)
        assert "".join(chunks) == text
        assert not any(CUT in chunk for chunk in chunks)


def test_ids_that_decode_to_nothing_change_nothing():
    ids = [i for c in "日本语" for i in (*c.encode(), *[256] * 12)]
    assert "".join(pushed(Bytes(), ids)[0]) == "日本语"


def test_text_comes_as_soon_as_its_characters_are_complete():
    detokenizer = Detokenizer(Bytes())
    shown = [detokenizer.push([byte]) for byte in "a日b".encode()]
    assert shown == ["a", "", "", "日", "b"]


@pytest.mark.parametrize("tokenizer", [Bytes(), Metaspace()])
def test_a_character_that_is_cut_at_the_end_is_left_out(tokenizer):
    for text in ("ab😀", "日本😀", "😀"):
        ids = tokenizer.encode(text)
        for lacking in (1, 2, 3):
            assert "".join(pushed(tokenizer, ids[:-lacking])[0]) == text[:-1]


def test_a_real_replacement_character_is_shown():
    text = f"a{CUT}{CUT}b{CUT}c"
    assert "".join(pushed(Bytes(), list(text.encode()))[0]) == text


def test_invalid_bytes_do_not_hold_text_back_for_ever():
    detokenizer = Detokenizer(Bytes())
    shown = "".join(detokenizer.push([0xFF]) for _ in range(1_000))
    assert set(shown) == {CUT}
    assert len(shown) >= 1_000 - 4
    assert len(detokenizer._ids) < 50  # nor does every push decode all of them
    assert detokenizer.push(list(b"done")).endswith("done")


def test_any_bytes_come_out_as_they_decode():
    rng = random.Random(228)
    for _ in range(500):
        ids = rng.choices([0x61, 0xC3, 0xA9, 0xE6, 0x97, 0xA5, 0xF0, 0x9F, 0x98, 0x80, 0xFF], k=40)
        chunks, _ = pushed(Bytes(), ids, rng)
        whole, joined = Bytes().decode(ids), "".join(chunks)
        assert whole.startswith(joined)
        assert whole[len(joined) :] in {CUT * n for n in range(4)}


def test_the_end_of_the_prompt_is_context_and_not_shown():
    text = "Привет, мир"
    ids = Metaspace().encode(text)
    for at in range(len(text)):
        begin = len(text[:at].encode())
        chunks, _ = pushed(Metaspace(), ids[begin:], prompt=ids[:begin])
        assert "".join(chunks) == text[at:]


def test_a_character_that_the_prompt_began_is_shown_when_it_is_complete():
    ids = list("aé日".encode())
    for cut, rest in ((2, "é日"), (4, "日"), (5, "日")):
        assert "".join(pushed(Bytes(), ids[cut:], prompt=ids[:cut])[0]) == rest


# stop strings


def stopped(text, stops):
    """The text before the stop string that is complete first, found character by character."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def test_stop_strings_never_leak_wherever_chunks_are_cut():
    rng = random.Random(228)
    found = 0
    for _ in range(2_000):
        text = "".join(rng.choices("abé😀\n", k=rng.randint(1, 25)))
        stops = ["".join(rng.choices("abé😀\n", k=rng.randint(1, 4))) for _ in range(3)]
        expected, hit = stopped(text, stops)
        found += hit
        for pieces in (None, rng):
            chunks, detokenizer = pushed(Bytes(), list(text.encode()), pieces, stop=stops)
            assert "".join(chunks) == expected
            assert detokenizer.stopped == hit
    assert 500 < found < 2_000


def test_what_only_began_a_stop_string_is_shown():
    chunks, detokenizer = pushed(Bytes(), list(b"see User"), stop=["User:"])
    assert "".join(chunks) == "see User"
    assert chunks[-1] == "User"
    assert not detokenizer.stopped


def test_nothing_comes_after_a_stop_string():
    detokenizer = Detokenizer(Bytes(), stop=["."])
    assert detokenizer.push(list(b"a.b")) == "a"
    assert detokenizer.push(list(b"c")) == ""
    assert detokenizer.finish() == ""


def test_an_empty_stop_string_stops_nothing():
    assert "".join(pushed(Bytes(), list(b"ab"), stop=["", "x"])[0]) == "ab"


# gather


def gathered(*chunks):
    async def stream():
        for chunk in chunks:
            yield chunk

    return asyncio.run(gather(stream()))


def test_gathered_chunks_are_the_generation():
    logprobs = [Logprob(id=i, logprob=-float(i)) for i in range(3)]
    whole = gathered(
        Chunk("a", (0,), (logprobs[0],)),
        Chunk("", (1,), (logprobs[1],)),
        Chunk("bc", (2,), (logprobs[2],), "stop"),
    )
    assert (whole.text, whole.ids, whole.finish_reason) == ("abc", (0, 1, 2), "stop")
    assert whole.logprobs == tuple(logprobs)


def test_without_log_probabilities_there_are_none():
    assert gathered(Chunk("a", (0,)), Chunk(finish_reason="length")).logprobs is None
    assert gathered(Chunk(logprobs=(), finish_reason="length")).logprobs == ()
