"""Completions and chats, whole and as streams, over a real small model."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
import torch
from serving import ScriptedEngine
from wire import run, toy_engine

from fst_core.testing.toys import ToyTokenizer, toy_module

IDS = [97, 98, 99]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HI = [{"role": "user", "content": "hi"}]
USAGE = {"include_usage": True}


def texts(answer):
    return [choice["text"] for choice in answer["choices"]]


def test_a_prompt_has_four_shapes():
    async def scenario(site):
        usual = {"max_tokens": 6, "temperature": 0, "seed": 1}
        single = await site.complete(prompt="abc", **usual)
        assert single["object"] == "text_completion"
        assert single["id"].startswith("cmpl-")
        assert single["model"] == "fst"
        choice = single["choices"][0]
        assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)
        assert single["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
        several = await site.complete(prompt=["abc", "xyz", "abc"], **usual)
        assert texts(several)[0] == texts(several)[2] == choice["text"]
        assert several["usage"]["prompt_tokens"] == 12
        ids = ToyTokenizer().encode_prompt("abc")
        assert texts(await site.complete(prompt=ids, **usual)) == texts(single)
        assert texts(await site.complete(prompt=[ids, ids], **usual)) == 2 * texts(single)

    run(scenario, toy_engine())


def test_n_choices_have_n_seeds_and_are_numbered_by_prompt():
    async def scenario(site):
        answer = await site.complete(prompt=["abc", "xyz"], n=3, seed=5, max_tokens=8)
        assert [choice["index"] for choice in answer["choices"]] == list(range(6))
        assert len(set(texts(answer)[:3])) == 3
        assert texts(
            await site.complete(prompt=["abc", "xyz"], n=3, seed=5, max_tokens=8)
        ) == texts(answer)
        for number in range(3):
            alone = await site.complete(prompt="xyz", seed=5 + number, max_tokens=8)
            assert texts(alone) == [texts(answer)[3 + number]]
        other = await site.complete(prompt="abc", max_tokens=8)
        assert texts(other) != texts(await site.complete(prompt="abc", max_tokens=8))
        assert answer["usage"]["prompt_tokens"] == 8

    run(scenario, toy_engine())


def test_a_stream_says_what_a_whole_answer_says():
    async def scenario(site):
        fields = {"prompt": ["abc", "Ещё"], "n": 2, "seed": 3, "max_tokens": 12}
        whole = await site.complete(**fields)
        parts = await site.stream(**fields, stream_options=USAGE)
        *chunks, last = parts
        assert last["choices"] == []
        assert last["usage"] == whole["usage"]
        assert all(chunk["usage"] is None for chunk in chunks)
        assert len({(part["id"], part["created"], part["model"]) for part in parts}) == 1
        assert {part["object"] for part in parts} == {"text_completion"}
        for index, choice in enumerate(whole["choices"]):
            own = [c for part in chunks for c in part["choices"] if c["index"] == index]
            assert "".join(c["text"] for c in own) == choice["text"]
            assert [c["finish_reason"] for c in own][-1] == choice["finish_reason"]
            assert all(c["finish_reason"] is None for c in own[:-1])

    run(scenario, toy_engine())


def test_a_stream_tells_no_usage_unasked():
    async def scenario(site):
        for part in await site.stream(prompt="abc", max_tokens=3):
            assert "usage" not in part
            assert part["choices"]

    run(scenario, toy_engine())


@pytest.mark.parametrize("bound", ["max_tokens", "max_completion_tokens"])
def test_a_bound_beyond_the_context_is_no_error_and_the_text_ends_with_the_context(bound):
    async def scenario(site):
        fields = {"seed": 1, "stop_token_ids": [], "logit_bias": {str(ToyTokenizer().end_id): -100}}
        chat = bound == "max_completion_tokens"
        path, own = (CHAT, {"messages": HI}) if chat else (COMPLETIONS, {"prompt": "abc"})
        answer = (await site.post(path, {**own, **fields, bound: 100_000})).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["total_tokens"] == 64
        room = answer["usage"]["completion_tokens"]
        exact = (await site.post(path, {**own, **fields, bound: room})).json()
        assert exact["choices"] == answer["choices"]
        *_, last, usage = await site.stream(
            path, **own, **fields, **{bound: 100_000}, stream_options=USAGE
        )
        assert last["choices"][0]["finish_reason"] == "length"
        assert usage["usage"] == answer["usage"]

    run(scenario, toy_engine())


def test_echo_begins_with_the_prompt():
    async def scenario(site):
        for prompt in ("abc", ToyTokenizer().encode_prompt("abc")):
            usual = {"prompt": prompt, "echo": True, "max_tokens": 4, "temperature": 0}
            (text,) = texts(await site.complete(**usual))
            assert text.startswith("abc")
            streamed = await site.stream(**usual)
            assert "".join(part["choices"][0]["text"] for part in streamed) == text
            (nothing,) = texts(await site.complete(**{**usual, "max_tokens": 0}))
            assert nothing == "abc"

    run(scenario, toy_engine())


def test_echoed_log_probabilities_are_the_models_own():
    prompt = [2, 97, 98, 99, 32, 100]
    module = toy_module(64)

    async def scenario(site):
        answer = await site.complete(
            prompt=[prompt], echo=True, max_tokens=1, logprobs=1, temperature=0, seed=1234
        )
        (choice,) = answer["choices"]
        told = choice["logprobs"]
        assert {len(each) for each in told.values()} == {len(prompt) + 1}
        assert told["token_logprobs"][0] is None
        assert told["top_logprobs"][0] is None
        logits = module(input_ids=torch.tensor([prompt])).logits[0].log_softmax(-1)
        for at in range(1, len(prompt)):
            assert told["token_logprobs"][at] == pytest.approx(
                logits[at - 1][prompt[at]].item(), abs=1e-4
            )
            likeliest = max(told["top_logprobs"][at].values())
            assert likeliest == pytest.approx(logits[at - 1].max().item(), abs=1e-4)
            # As lm-eval sees whether the likeliest was chosen: by the very float.
            assert told["top_logprobs"][at][told["tokens"][at]] == told["token_logprobs"][at]
        assert told["text_offset"] == sorted(told["text_offset"])
        return answer

    first = run(scenario, toy_engine())
    assert run(scenario, toy_engine())["choices"][0]["logprobs"] == first["choices"][0]["logprobs"]


def test_a_first_token_that_ends_the_text_has_its_entry():
    async def scenario(site):
        answer = await site.complete(
            prompt=[[97, 98, 99]], echo=True, max_tokens=1, logprobs=1, temperature=0
        )
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "stop"
        assert len(choice["logprobs"]["tokens"]) == 4

    run(scenario, toy_engine(toy_module(64, end_at=2)))


def test_streamed_log_probabilities_are_the_same():
    async def scenario(site):
        fields = {"prompt": "abc", "max_tokens": 6, "logprobs": 3, "seed": 2, "echo": True}
        (choice,) = (await site.complete(**fields))["choices"]
        joined = {name: [] for name in choice["logprobs"]}
        for part in await site.stream(**fields):
            for name, values in (part["choices"][0]["logprobs"] or {}).items():
                joined[name] += values
        assert joined == choice["logprobs"]
        offsets = choice["logprobs"]["text_offset"]
        for token, offset in zip(choice["logprobs"]["tokens"], offsets, strict=True):
            if not token.startswith("token_id:"):
                assert choice["text"][offset:].startswith(token)

    run(scenario, toy_engine())


def test_tokens_are_named_by_their_ids_where_that_is_asked_for():
    async def scenario(site):
        fields = {"max_tokens": 6, "seed": 2, "return_token_ids": True}
        named = {"return_tokens_as_token_ids": True}
        (plain,) = (await site.complete(prompt="abc", logprobs=3, **fields))["choices"]
        (choice,) = (await site.complete(prompt="abc", logprobs=3, **fields, **named))["choices"]
        names = [f"token_id:{i}" for i in choice["token_ids"]]
        assert choice["logprobs"]["tokens"] == names
        for name, table in zip(names, choice["logprobs"]["top_logprobs"], strict=True):
            assert name in table
            assert all(each.startswith("token_id:") for each in table)
        for name in ("token_logprobs", "text_offset"):
            assert choice["logprobs"][name] == plain["logprobs"][name]
        chat = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True}
        answer = await site.post(
            "/v1/chat/completions", {**chat, **fields, **named, "top_logprobs": 2}
        )
        (choice,) = answer.json()["choices"]
        said = choice["logprobs"]["content"]
        assert [each["token"] for each in said] == [f"token_id:{i}" for i in choice["token_ids"]]
        for each in said:
            assert len({top["token"] for top in each["top_logprobs"]}) == 2

    run(scenario, toy_engine())


def test_many_at_once_write_what_each_writes_alone():
    fields = [
        {"prompt": "abc" * (i + 1), "seed": i, "max_tokens": 10, "temperature": i % 2}
        for i in range(8)
    ]

    async def scenario(site):
        alone = [texts(await site.complete(**each)) for each in fields]
        together = await asyncio.gather(*(site.complete(**each) for each in fields))
        assert [texts(each) for each in together] == alone
        streams = await asyncio.gather(*(site.stream(**each) for each in fields))
        joined = [["".join(p["choices"][0]["text"] for p in parts)] for parts in streams]
        assert joined == alone

    run(scenario, toy_engine())


def test_texts_are_whole_characters_and_stop_strings_never_show():
    pieces = ["Привет ", "\N{FAMILY}", "👨‍👩", "‍👧 ", "a sto", "p st", "rings ", "more"]

    async def scenario(site):
        whole = await site.complete(prompt="x", max_tokens=50)
        parts = await site.stream(prompt="x", max_tokens=50)
        assert "".join(p["choices"][0]["text"] for p in parts) == texts(whole)[0] == "".join(pieces)
        assert "\ufffd" not in json.dumps(parts, ensure_ascii=False)

    run(scenario, ScriptedEngine(pieces))

    async def stopped(site):
        fields = {"prompt": "abc", "max_tokens": 30, "seed": 4}
        (text,) = texts(await site.complete(**fields))
        for stop in (text[5:8], text[0], [text[9:12], "never there"]):
            cut = await site.complete(**fields, stop=stop)
            first = stop if isinstance(stop, str) else stop[0]
            assert texts(cut) == [text[: text.index(first)]]
            assert cut["choices"][0]["finish_reason"] == "stop"
            parts = await site.stream(**fields, stop=stop)
            assert "".join(p["choices"][0]["text"] for p in parts) == texts(cut)[0]

    run(stopped, toy_engine())


def test_token_ids_are_told_as_vllm_tells_them():
    async def scenario(site):
        fields = {"prompt": "abc", "max_tokens": 5, "seed": 1, "return_token_ids": True}
        (choice,) = (await site.complete(**fields))["choices"]
        prompt = ToyTokenizer().encode_prompt("abc")
        assert choice["prompt_token_ids"] == prompt
        assert len(choice["token_ids"]) == 5
        parts = [part["choices"][0] for part in await site.stream(**fields)]
        assert parts[0]["prompt_token_ids"] == prompt
        assert [i for part in parts for i in part["token_ids"]] == choice["token_ids"]
        again = await site.complete(prompt=prompt, max_tokens=5, seed=1)
        assert texts(again) == [choice["text"]]

    run(scenario, toy_engine())


def test_the_fewest_tokens_and_stop_ids_are_honoured():
    async def scenario(site):
        fields = {"prompt": "abc", "max_tokens": 9, "temperature": 0, "return_token_ids": True}
        (free,) = (await site.complete(**fields))["choices"]
        end = free["token_ids"][4]
        (cut,) = (await site.complete(**fields, stop_token_ids=[end]))["choices"]
        assert cut["token_ids"] == free["token_ids"][: free["token_ids"].index(end) + 1]
        assert cut["finish_reason"] == "stop"
        (more,) = (await site.complete(**fields, stop_token_ids=[end], min_tokens=9))["choices"]
        assert len(more["token_ids"]) == 9

    run(scenario, toy_engine())


def test_a_chat_answers_in_turn():
    async def scenario(site):
        fields = {"messages": HI, "max_tokens": 8, "seed": 1}
        answer = (await site.post(CHAT, fields)).json()
        assert answer["object"] == "chat.completion"
        assert answer["id"].startswith("chatcmpl-")
        (choice,) = answer["choices"]
        assert set(choice["message"]) == {"role", "content", "refusal"}
        assert choice["message"]["role"] == "assistant"
        assert choice["finish_reason"] in {"stop", "length"}
        parts = [{"type": "text", "text": "hi"}]
        same = {"messages": [{"role": "user", "content": parts}], "max_completion_tokens": 8}
        again = (await site.post(CHAT, {**same, "max_tokens": 1, "seed": 1})).json()
        assert again["choices"] == answer["choices"]
        several = (await site.post(CHAT, {**fields, "n": 3})).json()
        assert [each["index"] for each in several["choices"]] == [0, 1, 2]
        assert several["choices"][0] == choice

    run(scenario, toy_engine())


def test_a_chats_stream_comes_in_the_order_that_clients_know():
    async def scenario(site):
        fields = {"messages": HI, "max_tokens": 8, "seed": 1, "n": 2}
        whole = (await site.post(CHAT, fields)).json()
        parts = await site.stream(CHAT, **fields, stream_options=USAGE)
        assert {part["object"] for part in parts} == {"chat.completion.chunk"}
        assert len({(part["id"], part["created"], part["model"]) for part in parts}) == 1
        *chunks, last = parts
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        for index, choice in enumerate(whole["choices"]):
            own = [c for part in chunks for c in part["choices"] if c["index"] == index]
            assert own[0]["delta"] == {"role": "assistant", "content": ""}
            assert own[-1]["delta"] == {}
            assert own[-1]["finish_reason"] == choice["finish_reason"]
            assert all(c["finish_reason"] is None for c in own[:-1])
            text = "".join(c["delta"]["content"] for c in own[:-1])
            assert text == choice["message"]["content"]

    run(scenario, toy_engine())


def test_a_chats_log_probabilities_have_their_own_shape():
    async def scenario(site):
        fields = {"messages": HI, "max_tokens": 6, "seed": 1, "logprobs": True, "top_logprobs": 2}
        answer = (await site.post(CHAT, fields)).json()
        told = answer["choices"][0]["logprobs"]
        assert told["refusal"] is None
        assert len(told["content"]) == answer["usage"]["completion_tokens"]
        for entry in told["content"]:
            assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
            assert len(entry["top_logprobs"]) == 2
            assert entry["bytes"] is None or bytes(entry["bytes"]).decode() == entry["token"]
            assert entry["logprob"] <= max(each["logprob"] for each in entry["top_logprobs"])
        parts = await site.stream(CHAT, **fields)
        entries = [
            entry
            for part in parts
            for entry in (part["choices"][0]["logprobs"] or {"content": []})["content"]
        ]
        assert entries == told["content"]

    run(scenario, toy_engine())


def test_tokens_go_there_and_back():
    async def scenario(site):
        for prompt in ("abc", "Ещё 👍", ""):
            told = (await site.post("/tokenize", {"prompt": prompt})).json()
            assert told["tokens"] == ToyTokenizer().encode_prompt(prompt)
            assert told["count"] == len(told["tokens"])
            assert told["max_model_len"] == 64
            back = (await site.post("/detokenize", {"tokens": told["tokens"]})).json()
            assert back == {"prompt": prompt}
        chat = (await site.post("/tokenize", {"messages": HI})).json()
        back = (await site.post("/detokenize", {"tokens": chat["tokens"]})).json()
        assert back["prompt"] == "User: hi\nAssistant:"
        wrong = await site.post("/detokenize", {"tokens": [10**6]})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "tokens")
        for body in ({}, {"prompt": "a", "messages": HI}):
            assert (await site.post("/tokenize", body)).status_code == 400

    run(scenario, toy_engine())


def test_the_predecessors_routes_answer_as_they_did():
    async def scenario(site):
        assert (await site.get("/health_check/")).json() == "ok"
        body = {"seed_text": "abc", "generation_max_len": 5, "num_return_sequences": 3}
        answer = (await site.post("/generated_texts/", body)).json()
        assert set(answer) == {"texts"}
        # Some letters have two ids, and half of one is not shown.
        assert [2 <= len(text) <= 5 for text in answer["texts"]] == [True] * 3
        later = {"body": "abc", "max_number_of_generated_tokens": 7, "top_k": 1, "temperature": 1}
        answer = (await site.post("/generated_texts/", later)).json()
        assert len(answer["texts"]) == 4
        assert len(set(answer["texts"])) == 1
        assert len(answer["texts"][0]) == 7
        labelled = await site.post("/generated_texts/", {**later, "meta": "poem"})
        assert labelled.json()["texts"] != answer["texts"]
        refused = await site.post(
            "/generated_texts/", {"seed_text": "a", "num_return_sequences": 99}
        )
        assert refused.json()["error"]["param"] == "num_return_sequences"

    run(scenario, toy_engine())


def test_the_predecessors_defaults_hold_unless_a_request_says_otherwise():
    engine = ScriptedEngine()

    async def scenario(site):
        await site.post(
            "/generated_texts/", {"seed_text": "abc", "ignored_words": ["x"], "top_p": 0.5}
        )
        assert len(engine.requests) == 4
        assert len({request.seed for request in engine.requests}) == 4
        for request in engine.requests:
            assert request.max_new_tokens == 64
            assert request.parameters == {
                "temperature": 0.7, "top_k": 50, "top_p": 0.5, "repetition_penalty": 1.0,
                "ignored_words": ["x"],
            }  # fmt: skip

    run(scenario, engine)


def test_an_ignored_word_is_never_written():
    async def scenario(site):
        body = {"seed_text": "abc", "generation_max_len": 40, "temperature": 1.0}
        seen = (await site.post("/generated_texts/", body)).json()["texts"]
        letter = max("abcdefghijklmnopqrstuvwxyz", key="".join(seen).count)
        body["ignored_words"] = [letter]
        texts_without = (await site.post("/generated_texts/", body)).json()["texts"]
        for text in texts_without:
            assert letter not in text.split(" ")

    run(scenario, toy_engine())


def test_numbers_are_always_numbers():
    async def scenario(site):
        body = {"prompt": "abc", "max_tokens": 5, "logprobs": 5, "logit_bias": {"97": -100}}
        answer = await site.post("/v1/completions", body)
        told = json.loads(answer.text, parse_constant=pytest.fail)
        values = told["choices"][0]["logprobs"]["token_logprobs"]
        assert all(math.isfinite(value) for value in values)

    run(scenario, toy_engine())
