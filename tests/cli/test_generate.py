"""`fst generate`, `fst chat` and `fst bench` with a model that FST did not export."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from fst_core.cli import main
from fst_core.plugins import registry
from fst_core.settings import validate


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A model as `transformers` saves it, without fst.json."""
    path = tmp_path_factory.mktemp("plain")
    offer = registry().find("tokenizer", "gpt2")
    tokenizer = offer.build(validate(offer.settings_class(), {}))
    tokenizer.save(path)
    torch.manual_seed(228)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=128, n_embd=16, n_layer=1, n_head=2,
        bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.end_id, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(path)
    return path


@pytest.fixture
def fst(capsys, monkeypatch):
    def run(*arguments, said=None):
        if said is not None:
            lines = iter([*said])
            monkeypatch.setattr("builtins.input", lambda _="": next(lines))
            monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        assert not exit_info.value.code, capsys.readouterr().err
        return capsys.readouterr()

    return run


def test_generate_takes_a_directory_without_a_manifest(fst, directory):
    out = fst("generate", directory, "-p", "Hi", "-n", "5", "-P", "temperature=0").out
    assert out.startswith("Hi")
    assert out == fst("generate", directory, "-p", "Hi", "-n", "5", "-P", "temperature=0").out
    fst("generate", directory, "-n", "2", "-s", "sampler.0.top_k=3")


def test_a_prompt_that_is_too_long_is_an_error_and_no_output(capsys, directory):
    with pytest.raises(SystemExit) as ended:
        main(["generate", str(directory), "-p", "word " * 200, "-n", "5"])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("error: the prompt has ")
    assert err.count("\n") == 1


def test_chat_answers_until_it_is_told_to_stop(fst, directory):
    said = ["One", "", "Two", "/reset", "One", "/exit"]
    done = fst("chat", directory, "-n", "4", "-P", "temperature=0", said=said)
    assert "learned no conversations" in done.err
    banner = done.err.splitlines()[-1]
    assert directory.name in banner
    assert "/reset" in banner
    assert "Ctrl-D" in banner
    first, second, again = done.out.splitlines()
    assert first == again
    assert second


def test_chat_answers_an_unknown_command_itself(fst, directory):
    done = fst("chat", directory, "-n", "4", said=["/help", "/exit"])
    assert done.out == ""
    assert "no /help: /reset" in done.err


def test_chat_leaves_out_what_the_context_has_no_room_for(fst, directory):
    said = [f"{n} " + "word " * 20 for n in range(8)] + ["/exit"]
    done = fst("chat", directory, "-n", "20", "--system", "Be kind.", said=said)
    assert "oldest turns are left out" in done.err
    assert "the prompt has" not in done.err


def test_bench_prints_a_row_for_each_number_of_streams(fst, directory):
    command = ("bench", directory, "--streams", "1", "--streams", "3", "--new-tokens", "4")
    report = json.loads(fst(*command).out)
    assert report["model"] == str(directory)
    assert report["dtype"] in {"float32", "bfloat16"}
    assert set(report["versions"]) == {"python", "full-stack-transformer", "torch", "transformers"}
    assert [row["streams"] for row in report["rows"]] == [1, 3]
    for row in report["rows"]:
        assert row["tokens_per_second"] > 0
        assert row["first_token_s"] > 0
        assert row["per_token_s"] > 0
