"""Layers that the engine exchanges for faster ones compute what they computed."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from fst_engine.forward import Forward
from fst_engine.kernels import kernel, load_kernels
from fst_engine.layers import quicken
from torch.nn import functional

SIZES = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 192,
}
pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = {
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 192, "vocab_size": 300},
    "llama": {**SIZES, "mlp_bias": True, "attention_bias": True},
    "mistral": {**SIZES, "sliding_window": None},
    "qwen2": SIZES,
    "qwen3": {**SIZES, "head_dim": 16},
}


def model(name, **others):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **{**MODELS[name], **others})
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in module.parameters():  # no weight is 1, and no bias 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def layers(module):
    return module.transformer.h if hasattr(module, "transformer") else module.model.layers


def exchanged(module):
    return [part for part in module.modules() if "forward" in vars(part)]


def computed(forward, columns=300):
    """Logits of prompts that are read whole and in portions while other rows are written."""
    texts = [[5, 9, 200, 31], [7, 8, 9, 10, 11, 12, 13] * 4, [250]]
    rows = forward.new_cache()
    for _ in texts:
        rows.add()
    found = [forward([texts[0], texts[1][:20]], rows, [0, 1], [3, 1])]
    rows.add(rows, 1, 15)
    found.append(forward([[17], texts[1][20:], texts[2]], rows, [0, 1, 2], [1, 8, 1]))
    found += [forward([[n], [n + 1], [n + 2], [n + 3]], rows) for n in (3, 60, 250)]
    rows.remove(1)  # the last one takes its slot
    found += [forward([[n, n], [n + 1]], rows, [1, 2], [2, 1]) for n in (4, 70)]
    forward([list(range(100))], rows, [2])
    for n in range(20):  # a position alone, up to another page and on
        found.append(forward([[7 * n]], rows, [n % 3]))
        found.append(forward([[n, 2]], rows, [2]))
    return torch.cat(found)[:, :columns]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_exchanged_and_computes_the_same(name, dtype):
    served = model(name).to(dtype)
    plain, exact = copy.deepcopy(served), copy.deepcopy(served).float()
    forward = Forward(served, 300, in_training=False, pack=True)
    assert exchanged(served) == [*layers(served), served.lm_head]
    found, expected = computed(forward), computed(Forward(exact, 300))
    if dtype is torch.float32:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    else:  # no farther from what is right than the layers themselves
        error = (computed(Forward(plain, 300)) - expected).abs().mean()
        assert (found - expected).abs().mean() < 1.1 * error


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_a_position_alone_is_computed_alike_by_any_number_of_threads(name, threads):
    forward = Forward(model(name), 300, in_training=False, pack=True)
    expected = computed(forward)
    torch.set_num_threads(threads)  # the fixture puts it back
    for _ in range(3):
        torch.testing.assert_close(computed(forward), expected, atol=1e-5, rtol=1e-5)


def test_several_threads_and_forked_processes_compute_positions_at_once():
    """Whoever is there takes pieces of the work: nobody waits for who is not."""
    forwards = [Forward(model(name), 300, in_training=False, pack=True) for name in MODELS]
    torch.set_num_threads(2)
    expected = [computed(forward) for forward in forwards]
    with ThreadPoolExecutor(len(forwards)) as pool:
        for found, known in zip(pool.map(computed, forwards), expected, strict=True):
            torch.testing.assert_close(found, known, atol=1e-5, rtol=1e-5)
    torch.set_num_threads(1)  # those of OpenMP are not there in a child
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        rows = forwards[0].new_cache()
        rows.add()
        os._exit(0 if forwards[0]([[5]], rows).isfinite().all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_processor_without_products_of_bf16_computes_the_same(monkeypatch, request):
    monkeypatch.setenv("CXX", "c++ -mno-avx512bf16")
    request.addfinalizer(load_kernels.cache_clear)
    load_kernels.cache_clear()
    served = model("llama").to(torch.bfloat16)
    plain, exact = copy.deepcopy(served), copy.deepcopy(served).float()
    expected = computed(Forward(exact, 300))
    error = (computed(Forward(plain, 300)) - expected).abs().mean()
    found = computed(Forward(served, 300, in_training=False, pack=True))
    assert (found - expected).abs().mean() < 1.1 * error


def test_attention_is_scaled_as_the_layer_says():
    served = model("gpt2", scale_attn_by_inverse_layer_idx=True)
    expected = computed(Forward(copy.deepcopy(served), 300))
    found = computed(Forward(served, 300, in_training=False, pack=True))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("gpt2", {"activation_function": "relu"}),
        ("gpt2", {"n_embd": 264, "n_head": 1}),  # heads that are too wide
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"attn_implementation": "eager"}),
        ("gemma2", {**SIZES, "head_dim": 8}),
    ],
)
def test_of_another_layer_the_products_are_exchanged(name, others, monkeypatch):
    monkeypatch.setitem(MODELS, "gemma2", {})
    served = model(name, **others)
    expected = computed(Forward(copy.deepcopy(served), 300))
    forward = Forward(served, 300, in_training=False, pack=True)
    assert not set(layers(served)) & set(exchanged(served))
    assert len(exchanged(served)) == len(layers(served)) * (4 if name == "gpt2" else 7) + 1
    torch.testing.assert_close(computed(forward), expected, atol=1e-5, rtol=1e-5)


def test_without_a_compiler_the_products_are_exchanged(monkeypatch, request):
    monkeypatch.setenv("CXX", "none")
    request.addfinalizer(load_kernels.cache_clear)
    load_kernels.cache_clear()
    served = model("llama")
    expected = computed(Forward(copy.deepcopy(served), 300))
    forward = Forward(served, 300, in_training=False, pack=True)
    assert len(exchanged(served)) == 3 * 7 + 1
    torch.testing.assert_close(computed(forward), expected, atol=1e-5, rtol=1e-5)


def test_layers_of_mixed_numbers_are_left_alone():
    served = model("llama").to(torch.bfloat16)
    for norm in (each for each in served.modules() if type(each).__name__ == "LlamaRMSNorm"):
        norm.float()
    quicken(served, own_attention=True)
    assert not set(layers(served)) & set(exchanged(served))


def test_float16_is_left_alone():
    narrow = model("gpt2").to(torch.float16)
    quicken(narrow, own_attention=True)
    assert exchanged(narrow) == []


@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize("width", [8, 33, 576])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_compute_what_torch_does(dtype, width, rows):
    torch.manual_seed(rows)
    x, added = (3 * torch.randn(2, rows, width) + 5).to(dtype)
    weight, bias = torch.randn(2, width).to(dtype)
    out, gated = torch.empty_like(x), x.new_empty(rows, width)
    gates = torch.cat([x * 10 - 50, added], 1)  # some for which e^-x is infinite
    tolerance = 1e-5 if dtype is torch.float32 else 1e-2
    addresses = [each.data_ptr() for each in (x, weight, bias, out)]
    kernel("norm", dtype)(*addresses, rows, width, 1e-5, 2)
    wide = x.float(), (width,), weight.float()
    expected = functional.layer_norm(*wide, bias.float(), 1e-5)
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)
    addresses[2] = None
    kernel("norm", dtype)(*addresses, rows, width, 1e-5, 2)
    expected = functional.rms_norm(*wide, 1e-5)
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)
    kernel("gate", dtype)(gates.data_ptr(), gated.data_ptr(), rows, width, 2)
    expected = functional.silu(gates[:, :width].float()) * added.float()
    torch.testing.assert_close(gated.float(), expected, atol=tolerance, rtol=tolerance)


def test_what_is_no_number_stays_in_its_own_row():
    served = model("llama")
    forward = Forward(served, 300, in_training=False, pack=True)
    rows = forward.new_cache()
    for _ in range(3):
        rows.add()
    forward([[5, 6, 7], [5, 6]], rows)
    served.model.embed_tokens.weight.data[9] = float("nan")
    found = forward([[9], [8], [7, 9]], rows, keep=[1, 1, 2])
    assert found.isnan().all(-1).tolist() == [True, False, False, True]
    assert found[1:3].isfinite().all()
    rows.remove(0)
    rows.add()
    assert forward([[8], [8]], rows, [1, 2]).isfinite().all()
