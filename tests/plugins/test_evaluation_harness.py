"""The evaluator `lm-eval`: its contract, and its figures against chances computed id by id."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from fst_core.errors import FstError, MissingDependency, UserError
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import EvaluatorContract
from fst_core.testing.toys import ToyTokenizer, toy_dataset, toy_model

lm_eval = pytest.importorskip("lm_eval")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the harness and of what it imports
]

QUESTIONS = [
    {"question": "roses are", "choices": ["red", "blue"], "answer": 0},
    {"question": "violets are", "choices": ["red", "blue"], "answer": 1},
    {"question": "grass is", "choices": ["green", "wet"], "answer": 0},
]
CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - metric: acc
"""
ROLLING = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - metric: bits_per_byte
"""
WRITING = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["e"], max_gen_toks: 8, do_sample: false}}
metric_list:
  - metric: exact_match
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with three tasks, each with its data beside it."""
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, QUESTIONS)) + "\n")
    for name, text in (("toy_choice", CHOICE), ("toy_rolling", ROLLING), ("toy_writing", WRITING)):
        (folder / f"{name}.yaml").write_text(text.format(name=name, data=data))
    return folder


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """Keep what the harness downloads and caches out of the home directory."""
    with pytest.MonkeyPatch.context() as patch:
        datasets = pytest.importorskip("datasets")
        cache = tmp_path_factory.mktemp("cache")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield


class TestHarness(EvaluatorContract):
    use = "lm-eval"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def settings_of_a_toy_task(cls, tasks):
        cls.settings = {"tasks": ["toy_choice"], "include_path": str(tasks)}


@pytest.fixture
def model(tmp_path):
    return toy_model(tmp_path / "model", ToyTokenizer())


@pytest.fixture
def dataset(tmp_path, model):
    return toy_dataset(tmp_path / "dataset", model.tokenizer)


def harness(tasks, *names, **settings):
    offer = registry().find("evaluator", "lm-eval")
    values = {"tasks": list(names), "include_path": str(tasks), "device": "cpu", **settings}
    return offer.build(validate(offer.settings_class(), values))


def chances(model, before, after):
    """The log probability of each id of a text after another, seen one by one."""
    whole = before + after
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([whole[:-1]])).logits[0].double()
    places = range(len(before) - 1, len(whole) - 1)
    return [torch.log_softmax(logits[at], -1)[whole[at + 1]].item() for at in places]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_choice_is_the_likelier_continuation(tasks, model, dataset, batch_size):
    figures = harness(tasks, "toy_choice", batch_size=batch_size).evaluate(model, dataset)
    right = 0
    for each in QUESTIONS:
        before = model.tokenizer.encode_prompt(each["question"])
        sums = []
        for choice in each["choices"]:
            whole = model.tokenizer.encode_prompt(f"{each['question']} {choice}")
            sums.append(sum(chances(model, before, whole[len(before) :])))
        right += sums.index(max(sums)) == each["answer"]
    assert figures == {"toy_choice/acc": pytest.approx(right / len(QUESTIONS))}


def test_a_whole_text_is_measured_in_bits_a_byte(tasks, model, dataset):
    figures = harness(tasks, "toy_rolling").evaluate(model, dataset)
    texts = [each["question"] for each in QUESTIONS]
    first = model.tokenizer.bos_id if model.tokenizer.bos_id is not None else model.tokenizer.end_id
    total = sum(sum(chances(model, [first], model.tokenizer.encode(text))) for text in texts)
    bits = -total / torch.log(torch.tensor(2.0)).item() / sum(len(text.encode()) for text in texts)
    assert figures["toy_rolling/bits_per_byte"] == pytest.approx(bits, rel=1e-4)


def test_answers_are_written_by_the_engine(tasks, model, dataset, monkeypatch):
    from fst_evaluation.harness_model import HarnessModel

    answers = []
    plain = HarnessModel.generate_until

    def kept(self, requests, **options):
        answers.extend(plain(self, requests, **options))
        return answers

    monkeypatch.setattr(HarnessModel, "generate_until", kept)
    figures = harness(tasks, "toy_writing").evaluate(model, dataset)
    assert figures.keys() == {"toy_writing/exact_match"}
    assert len(answers) == len(QUESTIONS)
    assert all("e" not in answer for answer in answers)


def test_several_tasks_and_fewer_questions(tasks, model, dataset):
    figures = harness(tasks, "toy_choice", "toy_rolling", limit=1).evaluate(model, dataset)
    assert set(figures) == {"toy_choice/acc", "toy_rolling/bits_per_byte"}
    assert figures["toy_choice/acc"] in {0.0, 1.0}


def test_an_unknown_task_is_told(tasks, model, dataset):
    with pytest.raises(UserError, match=r"\[\[evaluate\]\] tasks: 'toy_choise' is unknown"):
        harness(tasks, "toy_choise").evaluate(model, dataset)


def test_a_task_whose_data_is_gone_is_told_in_one_line(tasks, model, dataset):
    text = CHOICE.format(name="toy_broken", data=tasks / "gone.jsonl")
    (tasks / "toy_broken.yaml").write_text(text)
    with pytest.raises(FstError, match=r"\[\[evaluate\]\] lm-eval: ") as error:
        harness(tasks, "toy_broken").evaluate(model, dataset)
    assert "\n" not in str(error.value)


def test_without_the_harness_the_remedy_is_told(tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingDependency, match=r"pip install 'full-stack-transformer\[lm-eval\]'"):
        harness(tasks, "toy_choice")
