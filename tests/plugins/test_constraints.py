"""The sampler `constraint`: what it allows, for whom, how it ends, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
import time

import jsonschema
import pytest
import torch
from fst_constraints.vocabulary import id_bytes, open_vocabulary
from fst_engine.local import LocalEngine
from fst_engine.preparing import Preparing
from fst_engine.settings import LocalSettings
from tokenizers import AddedToken, decoders, normalizers
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE

from fst_core import Request, Rows, Sampler
from fst_core.errors import EngineBusy, FstError, MissingDependency, UserError
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import SamplerContract
from fst_core.testing.texts import ADVERSARIAL, CORPUS
from fst_core.testing.toys import ToyTokenizer, toy_module

CONTEXT = 512
END = ToyTokenizer.end_id
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "mood": {"enum": ["glad", "sad", None]},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        "born": {
            "type": "object",
            "properties": {"year": {"type": "integer", "minimum": 1900, "maximum": 2100}},
            "required": ["year"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "mood", "tags", "born"],
    "additionalProperties": False,
}


class TestConstraint(SamplerContract):
    use = "constraint"
    settings = {"regex": r"[\x00-\x7f]*"}
    overrides = {"regex": r"[\x00-\x7d]*"}
    vocabulary = 128  # letters: whatever the text so far is, its grammar allows it


def part(use="constraint", **values):
    """A sampler and its settings, as an engine takes them."""
    offer = registry().find("sampler", use)
    settings = validate(offer.settings_class(), values)
    return offer.build(settings), settings


def over(*samplers, tokenizer=None, **settings):
    tokenizer = tokenizer or ToyTokenizer()
    torch.manual_seed(1)
    module = toy_module(CONTEXT) if tokenizer.vocab_size == 259 else ByteModule(tokenizer)
    engine = LocalEngine(validate(LocalSettings, settings))
    return engine.for_module(
        module, tokenizer, samplers or [part()], CONTEXT, supports_cache=tokenizer.vocab_size == 259
    )


class ByteModule(torch.nn.Module):
    """Finds every id about as likely as any other, whatever the vocabulary is."""

    def __init__(self, tokenizer):
        super().__init__()
        self.table = torch.nn.Embedding(tokenizer.vocab_size, tokenizer.vocab_size)

    def forward(self, input_ids, **_):
        return Logits(self.table(input_ids))


class Logits:
    def __init__(self, logits):
        self.logits = logits


def together(engine, requests):
    async def all_of_them():
        try:
            return await asyncio.gather(*map(engine.generate, requests), return_exceptions=True)
        finally:
            await engine.close()

    return asyncio.run(all_of_them())


def one(engine, request):
    (found,) = together(engine, [request])
    return found


def bpe():
    offer = registry().find("tokenizer", "bpe")
    tokenizer = offer.build(validate(offer.settings_class(), {"vocab_size": 600}))
    tokenizer.fit(CORPUS)
    return tokenizer


def rows(*each, history, keys=(), start=0):
    return Rows(
        parameters=each,
        history=history,
        uniform=torch.full((len(each),), 0.5, dtype=torch.float64),
        prompt_lengths=[start] * len(each),
        tokenizer=TOKENIZER,
        keys=keys,
    )


TOKENIZER = ToyTokenizer()


def allowed(sampler, own, text, **more):
    """The ids that may follow a text."""
    logits = sampler.adjust(torch.zeros(1, 259), rows(own, history=[list(text.encode())], **more))
    return (logits[0] > -math.inf).nonzero().squeeze(1).tolist()


# what is written


@pytest.mark.parametrize("tokenizer", [ToyTokenizer(), bpe()], ids=["bytes", "bpe"])
def test_every_text_fits_the_schema(tokenizer):
    requests = [
        Request("Who? ", seed=seed, parameters={"json_schema": PERSON}) for seed in range(30)
    ]
    found = together(over(part(), part("standard"), tokenizer=tokenizer), requests)
    for each in found:
        assert each.finish_reason == "stop"
        jsonschema.validate(json.loads(each.text), PERSON)
    assert len({each.text for each in found}) == 30


def test_every_text_matches_the_regular_expression_letters_of_two_bytes_too():
    regex = r"(да|нет|é{2,4}|[0-9]{3}-[a-f]+|𝄞?)!"
    requests = [Request("a", seed=s, parameters={"regex": regex}) for s in range(40)]
    found = [each.text for each in together(over(tokenizer=bpe()), requests)]
    assert all(re.fullmatch(regex, text) for text in found)
    assert len({text[:1] for text in found}) > 4


def test_the_end_is_allowed_where_the_text_may_end_and_alone_where_it_has_to():
    sampler, own = part(regex="ab?")
    assert allowed(sampler, own, "") == [*b"a"]
    assert allowed(sampler, own, "a") == [*b"b", END]
    assert allowed(sampler, own, "ab") == [END]


def test_white_space_between_the_parts_of_json_is_bounded():
    sampler, own = part(json_schema={"const": {"a": 1}})
    for written in ('{"a":1}', '{"a": 1}', '{\n  "a": 1\n}'):
        assert allowed(sampler, own, written) == [END]
    for written in ("{ ", "{\n" + " " * 32):
        assert allowed(sampler, own, written) == [*b'"']
    assert allowed(sampler, own, "") == [*b"{"]


def test_a_schema_may_be_written_as_a_text():
    sampler, own = part(json_schema='{"enum": [12]}')
    assert allowed(sampler, own, "1") == [*b"2"]
    assert own == part(json_schema={"enum": [12]})[1]


def test_the_pipeline_may_constrain_every_text():
    found = together(over(part(regex="x{5}")), [Request("a"), Request("b")])
    assert [each.text for each in found] == ["xxxxx"] * 2


def test_rows_without_a_constraint_are_left_alone():
    free = [Request(f"{n}", seed=n, max_new_tokens=40) for n in range(6)]
    bound = [Request("x", seed=n, parameters={"json_schema": PERSON}) for n in range(6)]
    expected = together(over(part("standard")), free)
    mixed = [each for pair in zip(free, bound, strict=True) for each in pair]
    found = together(over(part(), part("standard")), mixed)
    assert [each.ids for each in found[::2]] == [each.ids for each in expected]
    alone = [one(over(part(), part("standard")), each) for each in bound]
    assert [each.ids for each in found[1::2]] == [each.ids for each in alone]


def test_a_row_that_is_sent_back_goes_on_where_it_was():
    requests = [Request("x" * 90, seed=n, parameters={"json_schema": PERSON}) for n in range(8)]
    expected = [each.ids for each in together(over(), requests)]
    row = 2 * 2 * 128 * 16 * 4 / 1e9
    assert [each.ids for each in together(over(cache_gb=3 * row), requests)] == expected


# what an id writes


def sentencepiece(folder):
    """A tokenizer in the manner of Llama's: spaces in front of words, bytes for the rest."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += ["▁", "a", "t", "h", "e", "th", "the", "▁the", "{", '"', "п", "é"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    model = BPE(
        {name: i for i, name in enumerate(names)}, merges, unk_token="<unk>", byte_fallback=True
    )
    library = Library(model)
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    library.add_special_tokens([AddedToken(name) for name in names[:3]])
    library.save(str(folder / "tokenizer.json"))
    said = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    offer = registry().find("tokenizer", "pretrained")
    path = str(folder / "tokenizer.json")
    return offer.build(validate(offer.settings_class(), {"path": path}))


def test_the_bytes_of_ids_joined_are_the_text(tmp_path):
    for tokenizer in (ToyTokenizer(), bpe(), registry().find("tokenizer", "bytes").build(None)):
        found = id_bytes(tokenizer)
        assert not found[tokenizer.end_id]
        for text in (*CORPUS, *ADVERSARIAL):
            assert b"".join(found[i] for i in tokenizer.encode(text)) == text.encode()
    spaced = sentencepiece(tmp_path)
    found = id_bytes(spaced)
    for text in (*CORPUS, "日本語 𝄞"):
        assert b"".join(found[i] for i in spaced.encode(text)) == f" {text}".encode()
    assert found[:3] == [b"", b"", b""]
    assert open_vocabulary(spaced).vocab_size == spaced.vocab_size


def test_ids_that_end_within_a_letter_are_known():
    tokenizer = bpe()
    cut = {i for i in range(tokenizer.vocab_size) if "\ufffd" in tokenizer.decode([i])}
    known = id_bytes(tokenizer)
    impossible = {0xC0, 0xC1, *range(0xF5, 0x100)}
    assert len(cut) - sum(bool(known[i]) for i in cut) == len(impossible)
    assert {known[i] for i in cut} >= {bytes([b]) for b in range(0x80, 0x100)} - {
        bytes([b]) for b in impossible
    }


# what is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"regex": "(a"}, "regex: unclosed group"),
        ({"regex": r"\bword\b"}, "regex: "),
        ({"regex": "a(?=b)"}, "regex: look-around"),
        ({"regex": "a" * 4001}, "regex = .*4000"),
        ({"regex": "[^\\s\\S]"}, "regex: there is no text that it allows"),
        ({"regex": "a", "json_schema": {}}, "regex: not together with json_schema"),
        ({"json_schema": "{"}, "json_schema = .*: not JSON"),
        ({"json_schema": "[1]"}, "json_schema = .*: not a JSON object"),
        ({"json_schema": '{"enum": [NaN]}'}, "json_schema = .*: not JSON"),
        ({"json_schema": {"type": "objekt"}}, "json_schema: Invalid type: objekt"),
        ({"json_schema": {"not": {}}}, "json_schema: Unimplemented keys"),
        ({"json_schema": {"$ref": "http://127.0.0.1:9/a"}}, "json_schema: Resource .*does not fetch"),
        ({"json_schema": {"$ref": "#/nowhere"}}, "json_schema: "),
        ({"json_schema": {"enum": ["a" * 40_000]}}, "json_schema = .*longer than 32000"),
        ({"json_schema": {"enum": []}}, "json_schema: Unsatisfiable"),
        ({"json_schema": {"x-guidance": 3}}, "json_schema: "),
    ],
)  # fmt: skip
def test_a_wrong_constraint_is_the_error_of_its_field(values, message):
    engine = over()
    wrong = Request("a", parameters=values)
    found, good = together(engine, [wrong, Request("a", parameters={"regex": "b"})])
    assert isinstance(found, UserError)
    assert re.match(message, str(found))
    assert "\n" not in str(found)
    assert good.text == "b"


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


BOMBS = {
    "nested": nested(60),
    "expanding": {
        "allOf": [
            {"anyOf": [{"properties": {f"p{i}_{j}": {"type": "string"}}} for j in range(3)]}
            for i in range(12)
        ]
    },
    "many keys": {"properties": {f"{n}": True for n in range(1800)}},
    "multiples": {"type": "integer", "multipleOf": 2**31 - 1},
    "patterns": {"allOf": [{"pattern": f"a.*b{n}"} for n in range(60)]},
    "parentheses": "(" * 1900 + "a" + ")" * 1900,
    "counts": "((((a{1,1000}){1,1000}b){1,1000}){1,1000}c){1,1000}",
    "backtracking": "(x+x+)+y",
    "states": "(a|b)*a(a|b){30}c",
    "alternatives": "|".join(f"w{n}.*z{n}" for n in range(300)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_or_bounded_and_the_engine_goes_on(name):
    field = "regex" if isinstance(BOMBS[name], str) else "json_schema"
    bomb = Request("a", max_new_tokens=20, parameters={field: BOMBS[name]})
    since = time.monotonic()
    found, good = together(over(), [bomb, Request("a", max_new_tokens=20)])
    assert time.monotonic() - since < 10
    assert len(good.ids) > 0
    if isinstance(found, Exception):
        assert isinstance(found, UserError)
        assert str(found).startswith(field)


def test_a_complete_text_that_may_not_end_is_an_error_and_a_longer_one_is_none():
    asked = [
        Request("a", min_new_tokens=5, parameters={"regex": regex}) for regex in ("b{3}", "b{3,6}")
    ]
    short, long = together(over(part(), part("standard")), asked)
    assert isinstance(short, UserError)
    assert str(short).startswith("min_new_tokens: the text is complete")
    assert long.text in {"b" * 5, "b" * 6}


def test_samplers_in_the_wrong_order_are_told():
    bias = {ord("b"): -math.inf}

    class Never(Sampler):
        def adjust(self, logits, rows):
            for i, value in bias.items():
                logits[:, i] += value
            return logits

    found = one(over((Never(), None), part()), Request("a", parameters={"regex": "b"}))
    assert isinstance(found, FstError)
    assert "constraint stands before the others" in str(found)


def test_a_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setattr("fst_core.plugins._installed", lambda root: root != "llguidance")
    with pytest.raises(MissingDependency) as raised:
        part()
    assert str(raised.value).endswith(
        "needs llguidance. Install it: pip install 'full-stack-transformer[constraints]'"
    )


# what is remembered


def test_a_step_that_is_drawn_again_gives_the_same():
    sampler, own = part(regex="[ab]{3}c")
    for text in ("", "a", "ab", "ab", "aba", "aba"):
        expected = [*b"c"] if len(text) == 3 else [*b"ab"]
        assert allowed(sampler, own, text, keys=[7]) == expected


def test_a_key_that_is_another_text_s_now_is_read_anew():
    sampler, own = part(regex="a+b?|c")
    assert allowed(sampler, own, "aaab", keys=[1]) == [END]
    assert allowed(sampler, own, "a", keys=[1]) == [*b"ab", END]
    assert allowed(sampler, part(regex="ad")[1], "a", keys=[1]) == [*b"d"]


def test_a_request_is_forgotten_when_it_is_in_no_batch_any_more():
    sampler, own = part(regex="a*")
    free = part()[1]
    for key in range(200):
        allowed(sampler, own, "a", keys=[key])
    assert len(sampler._readings) < 100
    for _ in range(100):
        sampler.adjust(torch.zeros(1, 259), rows(free, history=[[]], keys=[0]))
    assert not sampler._readings


def test_grammars_are_kept_within_bounds_and_read_once(monkeypatch):
    sampler, own = part(regex="a*")
    monkeypatch.setattr("fst_constraints.grammars._KEPT", 3 * 2**20)
    for number in range(16):
        sampler.prepare(part(regex=f"a{{{number}}}b")[1], TOKENIZER)
    assert len(sampler._grammars._compiled) <= 12
    sampler.prepare(own, TOKENIZER)
    vocabulary = sampler._grammars.vocabulary(TOKENIZER)
    compiled = sampler._grammars._compiled[own.grammar]
    sampler.prepare(own, TOKENIZER)
    assert sampler._grammars.vocabulary(TOKENIZER) is vocabulary
    assert sampler._grammars._compiled[own.grammar] is compiled
    large = part(json_schema={"type": "integer", "multipleOf": 60_013})[1]
    sampler.prepare(large, TOKENIZER)
    assert list(sampler._grammars._compiled) == []


# how the engine has samplers prepare


class Slow(Sampler):
    """Prepares for as long as it is held."""

    def __init__(self):
        self.held, self.begun = threading.Event(), threading.Semaphore(0)
        self.prepared = []

    def prepare(self, parameters, tokenizer):
        self.prepared.append((parameters.regex, threading.current_thread().name))
        if parameters.regex == "slow":
            self.begun.release()
            self.held.wait(20)
        if parameters.regex == "faulty":
            raise ZeroDivisionError("its own fault")


def test_what_takes_too_long_is_refused_and_holds_up_nobody_but_its_like():
    slow, settings = Slow(), part()[1]
    preparing = Preparing([(slow, settings)], TOKENIZER, seconds=0.3)

    def prepared(regex):
        return preparing({"regex": regex}, [part(regex=regex)[1]])

    async def scenario():
        first = [asyncio.create_task(prepared("slow")) for _ in range(2)]
        for _ in first:
            assert await asyncio.to_thread(slow.begun.acquire, timeout=10)
        with pytest.raises(EngineBusy):
            await prepared("quick")
        for each in first:
            with pytest.raises(UserError, match=r"^regex: not prepared within 0.3 s"):
                await each
        await preparing({"top_k": 1}, [settings])
        slow.held.set()
        with pytest.raises(FstError, match="Slow failed: ZeroDivisionError"):
            await prepared("faulty")
        await prepared("quick")

    asyncio.run(scenario())
    names = [regex for regex, _ in slow.prepared]
    assert names == [None, "slow", "slow", "faulty", "quick"]
    assert {thread for _, thread in slow.prepared[1:]} <= {"fst-prepare_0", "fst-prepare_1"}


def test_a_wrong_grammar_of_the_pipeline_is_told_before_anything_is_served():
    with pytest.raises(UserError, match=r"^regex: "):
        over(part(regex="(a"))
