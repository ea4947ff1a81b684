"""Conversations and labels in a dataset: what is learned from, and that prompts begin as it does."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fst_core import Message
from fst_core.artefacts import load_tokenizer, verify
from fst_core.artefacts.model import save_model
from fst_core.chance import uniform
from fst_core.chat import LEARNED, ChatTemplate
from fst_core.cli.dataset import command
from fst_core.conversations import Conversations
from fst_core.dataset import IGNORED, Dataset, ordered_batches
from fst_core.errors import DocumentError, UserError
from fst_core.meta import encode_prompt, labelled
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.stages import run_stages
from fst_core.plugins import registry
from fst_core.testing.toys import ToyModel, ToyTokenizer, toy_module

BOS, END = 256, 257  # of `bytes`
WORDS = ["Hi", "yes", "no", "Зоя", "日本", "😀", "[DOC_END]", "<|im_end|>", "User:", "\n", " "]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONTROL = {"<|im_start|>": 258, "<|im_end|>": 257}

pytestmark = pytest.mark.usefixtures("work")


def turns(*contents, system=None):
    """A conversation in which user and assistant take turns."""
    said = [Message("system", system)] if system else []
    roles = ("user", "assistant")
    return (*said, *(Message(roles[n % 2], content) for n, content in enumerate(contents)))


def written(conversation, meta=None):
    messages = [{"role": turn.role, "content": turn.content} for turn in conversation]
    return json.dumps({"messages": messages} | ({"meta": meta} if meta else {}))


def prepared(lines, tokenizer="bytes", told=None, **dataset):
    Path("train.jsonl").write_text("\n".join(lines), "utf-8")
    tables = {
        "run": {"name": "corpus"},
        "documents": {"use": "jsonl", "train": "train.jsonl", "valid": "train.jsonl"},
        "tokenizer": {"use": tokenizer} if isinstance(tokenizer, str) else tokenizer,
        "dataset": {"max_sample_length": 200, **dataset},
    }
    tell = (lambda _: None) if told is None else told.append
    outcome = run_stages(check_pipeline("pipeline.toml", tables), "prepare", tell)
    assert verify(outcome.dataset)
    return Dataset.open(outcome.dataset)


def learned(samples):
    """The parts of each sample that carry loss, as texts."""
    texts = []
    for index in range(len(samples)):
        labels = samples.labels(index)
        ids = labels[labels != IGNORED]
        texts.append(bytes(i for i in ids.tolist() if i < 256).decode())
    return texts


def random_conversation(rng):
    contents = (" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(rng.randint(2, 9)))
    return turns(*contents, system=rng.choice([None, "Be kind."]))


def test_the_assistants_turns_alone_carry_loss_and_each_is_ended():
    conversation = turns("Hi", "Hello!", "How are you?", "Fine.", system="Be kind.")
    opened = prepared([written(conversation)])
    (ids,) = opened.train
    text = "System: Be kind.\nUser: Hi\nAssistant: Hello!"
    rest = "User: How are you?\nAssistant: Fine."
    assert ids.tolist() == [BOS, *text.encode(), END, *rest.encode(), END]
    labels = opened.train.labels(0)
    expected = [*b" Hello!", END, *b" Fine.", END]
    assert labels[labels != IGNORED].tolist() == expected
    assert opened.train.text_bytes == len(" Hello! Fine.")
    mask = np.load(opened.directory / "train/loss_mask.npy", mmap_mode="r")
    assert (mask.dtype, mask.shape) == (np.uint8, ids.shape)
    (batch,) = ordered_batches(opened.train, 4)
    assert batch.labels[0].tolist() == labels.tolist()
    assert batch.tokens == len(ids)
    assert (opened.directory / "chat_template.jinja").read_text("utf-8") == LEARNED


def test_what_carries_loss_is_shown():
    opened = prepared([written(turns("Hi", "Hello!"))])
    shown = CliRunner().invoke(command, ["show", str(opened.directory)]).stdout
    assert re.search(r"tokens with loss +8\n", shown)


def test_texts_have_no_mask_and_beside_conversations_all_of_them_carries_loss():
    text = json.dumps({"text": "a text of some words"})
    opened = prepared([text])
    assert not (opened.directory / "train/loss_mask.npy").exists()
    assert opened.chat_template is None
    opened = prepared([text, written(turns("Hi", "Hello there")), text])
    assert len(opened.train) == 3
    assert learned(opened.train) == ["a text of some words", " Hello there", "a text of some words"]
    (whole,) = [opened.train[0].tolist()]
    assert whole == [BOS, *b"a text of some words", END]
    assert opened.manifest["counts"]["number_of_train_documents"] == 3


def test_a_long_conversation_is_continued_from_a_turn_on():
    contents = [f"{'question' if n % 2 == 0 else 'answer'} {n} {'x' * 30}" for n in range(12)]
    opened = prepared([written(turns(*contents, system="Be kind."))], max_sample_length=200)
    samples = [bytes(i for i in s.tolist() if i < 256).decode() for s in opened.train]
    assert len(samples) > 2
    for sample, ids in zip(samples, opened.train, strict=True):
        assert sample.startswith("System: Be kind.\nUser: question")
        assert ids[0] == BOS
        assert ids[-1] == END
    answers = "".join(learned(opened.train)).split(" answer ")[1:]
    assert [int(answer.split()[0]) for answer in answers] == [
        1,
        3,
        5,
        7,
        9,
        11,
    ]  # each of them once


def test_a_turn_that_fits_no_sample_is_cut_and_what_has_no_answer_is_dropped():
    long = turns("q" * 500, "a" * 300)
    opened = prepared([written(long)], max_sample_length=100)
    assert all(len(sample) <= 100 for sample in opened.train)
    assert "".join(learned(opened.train)).count("a") == 300
    assert opened.train.text_bytes == 301  # with the space
    assert not any(set(s.tolist()) == {ord("q")} for s in opened.train)


def test_a_conversation_without_an_answer_is_left_out_and_counted():
    told = []
    silent = written([Message("user", "Is anybody there?")])
    opened = prepared([silent, written(turns("Hi", "Hello there")), silent], told=told)
    assert len(opened.train) == 1
    assert any("conversations without an answer: 4" in line for line in told)
    assert opened.manifest["reading"]["dropped"] == {"conversations without an answer": 4}
    with pytest.raises(UserError, match="no document to train on"):
        prepared([silent])


def test_one_conversation_alone_cannot_be_held_out():
    Path("train.jsonl").write_text(written(turns("Hi", "Hello there")))
    tables = {
        "documents": {"use": "jsonl", "train": "train.jsonl"},
        "tokenizer": {"use": "bytes"},
    }
    with pytest.raises(UserError, match="one conversation alone"):
        run_stages(check_pipeline("pipeline.toml", tables), "prepare", lambda _: None)


def model_of(opened, tokenizer):
    """A model as training writes it: what an engine reads its template from."""
    directory = Path("model")
    directory.mkdir()
    saved = opened.directory / "tokenizer"
    module = toy_module(64)
    save_model(directory, ToyModel(), module, saved, chat_template=opened.chat_template)
    said = json.loads((directory / "fst.json").read_bytes())
    return said["chat"], ChatTemplate.read(directory, trained=True, tokenizer=tokenizer)


@pytest.mark.parametrize("use", ["bytes", "bpe", "gpt2"])
def test_a_prompt_of_the_engine_is_what_stood_before_the_answer(use):
    if registry().find("tokenizer", use).missing():
        pytest.skip("needs tokenizers")
    rng = random.Random(228)
    conversations = [random_conversation(rng) for _ in range(60)]
    table = {"use": use, **({"vocab_size": 400} if use == "bpe" else {})}
    opened = prepared(
        map(written, conversations), table, max_sample_length=4_000, min_sample_length=1
    )
    tokenizer = load_tokenizer(opened.directory, opened.manifest)
    kind, template = model_of(opened, tokenizer)
    assert kind == "trained"
    assert len(opened.train) == len(conversations)
    for index, conversation in enumerate(conversations):
        ids, labels = opened.train[index].tolist(), opened.train.labels(index)
        answers = [n for n, turn in enumerate(conversation) if turn.role == "assistant"]
        for n in answers:
            prompt = template.encode(conversation[:n], tokenizer)
            assert ids[: len(prompt)] == prompt
            assert labels[len(prompt) - 1] == IGNORED
            rest = labels[len(prompt) :].tolist()
            end = rest.index(tokenizer.end_id)
            answer = tokenizer.decode(rest[:end])
            assert answer.strip() == conversation[n].content.strip()
        assert (labels == tokenizer.end_id).sum() == len(answers)  # what is said is no end


def test_transformers_gives_a_conversation_the_same_ids():
    transformers = pytest.importorskip("transformers")
    opened = prepared(
        [written(turns("Hi", "Hello there", "Bye"))], {"use": "bpe", "vocab_size": 300}
    )
    tokenizer = load_tokenizer(opened.directory, opened.manifest)
    _, template = model_of(opened, tokenizer)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained("model")
    conversation = turns("Hi", "Hello there", "Bye", system="Be kind.")
    messages = [{"role": turn.role, "content": turn.content} for turn in conversation]
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True)
    ids = ids["input_ids"] if hasattr(ids, "keys") else ids
    assert template.encode(conversation, tokenizer) == ids


# templates of others


def lessons(template, conversation, longest=1_000, meta=None):
    made = Conversations(template, ToyTokenizer(), longest).lessons(conversation, meta)
    return [(ids.tolist(), loss.tolist()) for ids, loss in made]


def said(ids):
    names = {i: name for name, i in CONTROL.items()}
    return "".join(names.get(i) or chr(i) for i in ids)


def test_a_template_of_a_tokenizer_is_learned_from_as_it_is():
    template = ChatTemplate(CHATML, CONTROL)
    conversation = turns("Hi", "Hello", "Bye", "See <|im_end|> you")
    ((ids, loss),) = lessons(template, conversation)
    start, end = CONTROL.values()
    assert ids == [
        *(start, *b"user\nHi", end, 10, start, *b"assistant\nHello", end, 10),
        *(start, *b"user\nBye", end, 10, start, *b"assistant\nSee <|im_end|> you", end),
    ]
    learned_ids = [i for i, carries in zip(ids, loss, strict=True) if carries]
    assert learned_ids == [*b"Hello", end, *b"See <|im_end|> you", end]


REWRITES = (  # it shows what was thought in the last answer alone, and leads into it otherwise
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LEADS_IN = CHATML.replace("assistant\\n' }}", "assistant\\n<think></think>' }}")
UNENDED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.mark.parametrize("source", [CHATML, REWRITES, LEADS_IN, UNENDED])
def test_whatever_a_template_does_prompts_are_what_was_learned_from(source):
    template = ChatTemplate(source, CONTROL)
    conversation = turns("Hi", "thought</think>Hello", "Bye", "more</think>See you", "So", "End")
    made = lessons(template, conversation)
    for n in (1, 3, 5):
        prompt = template.encode(conversation[:n], ToyTokenizer())
        (loss, rest) = next(
            (loss[len(prompt) :], ids[len(prompt) :])
            for ids, loss in made
            if ids[: len(prompt)] == prompt and ids[len(prompt) :]
        )
        answer = [*conversation[n].content.encode(), END]
        assert rest[: len(answer)] == answer
        assert loss[: len(answer)] == [1] * len(answer)
    assert sum(sum(loss) for _, loss in made) == sum(
        len(conversation[n].content) + 1 for n in (1, 3, 5)
    )


def test_a_template_that_fails_is_told_with_the_place():
    pytest.importorskip("tokenizers")
    first = prepared(
        [json.dumps({"text": "a text of some words"})], {"use": "bpe", "vocab_size": 300}
    )
    saved = first.directory / "tokenizer"
    (saved / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    tokenizer = {"use": "pretrained", "path": str(saved)}
    with pytest.raises(DocumentError, match=r"train\.jsonl:2: .*roles must alternate"):
        prepared(["", written(turns("Hi", "Hello"))], tokenizer)


# labels


def test_a_label_stands_in_front_of_a_text_and_carries_no_loss():
    lines = [json.dumps({"text": f"text number {n}", "meta": "romance"}) for n in range(3)]
    opened = prepared([*lines, json.dumps({"text": "text without one"})])
    ids, labels = opened.train[0].tolist(), opened.train.labels(0).tolist()
    prefix = [BOS, *b"romance\n---\n"]
    assert ids == [*prefix, *b"text number 0", END]
    assert labels == [IGNORED] * len(prefix) + ids[len(prefix) :]
    assert opened.train[3].tolist() == [BOS, *b"text without one", END]
    assert opened.train.text_bytes == 3 * len("text number 0") + len("text without one")


@pytest.mark.parametrize("use", ["bytes", "bpe", "gpt2"])
def test_a_prompt_with_a_label_begins_as_a_labelled_document(use):
    if registry().find("tokenizer", use).missing():
        pytest.skip("needs tokenizers")
    texts = ["The sun rises in the east.", "Зоя пила чай;", "a [DOC_END] of no document"]
    metas = ["weather", "чай, 5 o'clock", "[DOC_START]"]
    lines = [json.dumps({"text": t, "meta": m}) for t, m in zip(texts, metas, strict=True)]
    table = {"use": use, **({"vocab_size": 300} if use == "bpe" else {})}
    opened = prepared(lines, table)
    tokenizer = load_tokenizer(opened.directory, opened.manifest)
    for index, (text, meta) in enumerate(zip(texts, metas, strict=True)):
        ids = opened.train[index].tolist()
        for end in (0, 4, len(text)):
            prompt = encode_prompt(tokenizer, text[:end], meta)
            whole = prompt if end in {0, len(text)} else prompt[:-1]  # the last may merge
            assert ids[: len(whole)] == whole
    assert encode_prompt(tokenizer, "a", None) == tokenizer.encode_prompt("a")
    assert encode_prompt(tokenizer, "a", " ") == tokenizer.encode_prompt("a")


def test_labels_are_left_out_by_a_hash_of_seed_and_index():
    lines = [json.dumps({"text": f"text number {n}", "meta": "label"}) for n in range(60)]
    opened = prepared(lines, ignore_meta_prob=0.3)
    without = [
        n for n, sample in enumerate(opened.train) if b"label" not in bytes(sample[1:-1].tolist())
    ]
    assert without == [n for n in range(60) if uniform(228, ~n) < 0.3]
    assert 5 < len(without) < 40
    assert prepared(lines).directory != opened.directory
    assert not any(len(s) < 20 for s in prepared(lines).train)


def test_a_conversations_label_is_what_the_system_says_first():
    opened = prepared([written(turns("Hi", "Hello there"), "romance")])
    text = "System: romance\nUser: Hi\nAssistant: Hello there"
    assert opened.train[0].tolist() == [BOS, *text.encode(), END]
    conversation = turns("Hi", system="Be kind.")
    assert labelled(conversation, "romance")[0] == Message("system", "romance\n---\nBe kind.")
    assert labelled(conversation, None) == conversation


# duplicates


def test_duplicates_are_left_out_and_counted():
    texts = [f"text number {n % 7}" for n in range(20)]
    lines = [json.dumps({"text": text}) for text in texts]
    lines += [written(turns("Hi", "Hello there"))] * 3
    Path("valid.jsonl").write_text("\n".join([lines[0], json.dumps({"text": "text of its own"})]))
    Path("train.jsonl").write_text("\n".join(lines))
    tables = {
        "documents": {"use": "jsonl", "train": "train.jsonl", "valid": "valid.jsonl"},
        "tokenizer": {"use": "bytes"},
        "dataset": {"deduplicate": True},
    }
    told = []
    outcome = run_stages(check_pipeline("pipeline.toml", tables), "prepare", told.append)
    opened = Dataset.open(outcome.dataset)
    assert learned(opened.train) == [*texts[:7], " Hello there"]
    assert learned(opened.valid) == ["text of its own"]
    assert opened.manifest["reading"]["dropped"] == {"duplicates": 13 + 2 + 1}
    assert any("left out duplicates: 16" in line for line in told)
