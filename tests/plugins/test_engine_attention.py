"""The attention of decode.cpp is torch's, and the engine does without it where it cannot be built."""

import logging
import random

import fst_engine.attention
import pytest
import torch
import transformers
from fst_engine.attention import all_visible, use_own_attention
from fst_engine.forward import Forward
from fst_engine.kernels import load_kernels
from fst_engine.prefixes import Prefixes
from fst_engine.row import Fault, Row
from fst_engine.sampling import Sampling
from fst_engine.scheduler import Scheduler
from torch.nn import functional


@pytest.fixture
def fresh_kernels(tmp_path, monkeypatch):
    """A user for whom nothing was built yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_kernels.cache_clear()
    yield tmp_path / "fst"
    load_kernels.cache_clear()


@pytest.fixture
def by_kernel(monkeypatch):
    """The shapes of the queries that the kernel got."""
    shapes, attend = [], fst_engine.attention._attend

    def spy(query, *others):
        shapes.append(tuple(query.shape))
        return attend(query, *others)

    monkeypatch.setattr(fst_engine.attention, "_attend", spy)
    return shapes


def gpt2(**others):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=300, n_embd=48, n_layer=2, n_head=3, n_positions=64, **others
    )
    return transformers.GPT2LMHeadModel(config).eval()


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(vocab_size=300, max_position_embeddings=64, **sizes, **heads)
    return transformers.LlamaForCausalLM(config).eval()


def attend(query, key, value, lengths, scaling=None):
    """Call the attention under a mask that hides what is beyond the lengths."""
    visible = torch.arange(key.shape[2]) < lengths[:, None]
    mask = torch.zeros(visible.shape, dtype=query.dtype).masked_fill_(~visible, -torch.inf)
    mask = mask[:, None, None]
    with all_visible(mask, torch.arange(len(lengths)), lengths - 1):
        found, _ = fst_engine.attention.attention(
            torch.nn.Module(), query, key, value, mask, scaling=scaling
        )
    each = query.shape[1] // key.shape[1]
    keys, values = (held.float().repeat_interleave(each, 1) for held in (key, value))
    expected = functional.scaled_dot_product_attention(
        query.float(), keys, values, attn_mask=mask.float(), scale=scaling
    )
    return found, expected.transpose(1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [16, 64, 80, 128, 256])
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (6, 2), (5, 1)])
def test_the_kernel_computes_what_torch_does(heads, shared, width, dtype, by_kernel):
    torch.manual_seed(width)
    lengths = torch.tensor([1, 300, 128, 17, 129])
    # Rows and columns are views of a larger cache, as the engine's are; the query is one of a product.
    held = torch.randn(2, 8, shared, 512, width, dtype=dtype)[:, :5, :, :300]
    query = torch.randn(5, 1, 3 * heads, width, dtype=dtype)[:, :, :heads].transpose(1, 2)
    for scaling in (None, 0.3):
        found, expected = attend(query, held[0], held[1], lengths, scaling)
        assert found.dtype == dtype
        assert (found.float() - expected).abs().max() < (1e-5 if dtype == torch.float32 else 0.01)
    assert by_kernel == [(5, heads, 1, width)] * 2


def test_what_is_no_number_stays_none_in_its_own_row(by_kernel):
    query, held = torch.randn(2, 3, 1, 64), torch.randn(2, 2, 3, 200, 64)
    held[0, 1, 2, 5] = float("nan")
    found, _ = attend(query, held[0], held[1], torch.tensor([200, 6]))
    assert by_kernel
    assert found[0].isfinite().all()
    assert found[1, :, :2].isfinite().all()
    assert found[1, :, 2].isnan().all()


def rows_of(forward, count):
    cache = forward.new_cache()
    for _ in range(count):
        cache.add()
    return cache


def plainly(module, *texts, keep=1):
    """Logits after the last ids of each text, of a module that nobody changed."""
    with torch.no_grad():
        return torch.cat([module(torch.tensor([text])).logits[0, -keep:] for text in texts])


@pytest.mark.parametrize("module", [gpt2, llama])
def test_a_decode_step_uses_the_kernel_in_every_layer(module, by_kernel):
    forward = Forward(module(), 300, in_training=False)
    cache = rows_of(forward, 2)
    forward([[5, 6, 7], [8, 9, 10, 11, 12]], cache)
    by_kernel.clear()
    found = forward([[1], [2]], cache)
    assert len(by_kernel) == 2
    expected = plainly(module(), [5, 6, 7, 1], [8, 9, 10, 11, 12, 2])
    assert torch.allclose(found, expected, atol=1e-5)
    in_training = Forward(module(), 300)
    in_training([[1], [2]], rows_of(in_training, 2))
    assert len(by_kernel) == 2


@pytest.mark.parametrize("module", [gpt2, llama])
def test_the_positions_of_one_row_are_attended_to_by_the_kernel(module, by_kernel):
    forward, ids = Forward(module(), 300, in_training=False), list(range(5, 45))
    cache = rows_of(forward, 3)
    forward([[1, 2, 3], [4], [5]], cache)
    cache.shorten(1, 0)
    by_kernel.clear()
    parts = [ids[:30], ids[30:37], ids[37:]]
    found = [forward([part], cache, [1], [len(part)]) for part in parts]
    assert len(by_kernel) == 6
    assert torch.allclose(torch.cat(found), plainly(module(), ids, keep=40), atol=1e-5)


@pytest.mark.parametrize("module", [gpt2, llama])
def test_a_served_request_alone_is_the_same_among_others(module):
    forward = Forward(module(), 300, in_training=False, pack=True)

    def scheduler():
        return Scheduler(
            forward, Sampling(()), max_running=6, prefill_chunk=32, cache_bytes=1e9,
            prefixes=Prefixes(1e6),
        )  # fmt: skip

    def run(steps, rows, come=1.0):
        left = list(rows)
        while left or not steps.idle:
            while left and rng.random() < come:
                steps.submit(left.pop(0))
            assert not [each for each in steps.step() if isinstance(each, Fault)]

    rng = random.Random(5)
    lengths = [rng.choice([1, 2, 3, 5, 12, 40]) for _ in range(150)]
    prompts = [[rng.randrange(300) for _ in range(length)] for length in lengths]
    prompts += [[*prompt, 7] for prompt in prompts if len(prompt) == 40]

    def rows():
        return [
            Row(list(prompt), len(prompt), len(prompt) + 1 + n % 20, seed=n, parameters=())
            for n, prompt in enumerate(prompts)
        ]

    alone, among = rows(), rows()
    for row in alone:
        run(scheduler(), [row])
    run(scheduler(), among, come=0.6)
    assert [row.ids for row in among] == [row.ids for row in alone]


def test_under_another_mask_attention_is_that_mask_s(by_kernel):
    query, key, value = torch.randn(1, 2, 1, 64), *torch.randn(2, 1, 2, 9, 64)
    mask, other = torch.zeros(1, 1, 1, 9), torch.zeros(1, 1, 1, 9)
    other[..., 4:] = -torch.inf
    with all_visible(mask, torch.tensor([0]), torch.tensor([8])):
        found, _ = fst_engine.attention.attention(torch.nn.Module(), query, key, value, other)
    expected = functional.scaled_dot_product_attention(query, key[:, :, :4], value[:, :, :4])
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)
    assert by_kernel == []


def test_a_module_that_computes_its_attention_itself_is_left_alone():
    eager = gpt2(attn_implementation="eager")
    assert not use_own_attention(eager)
    assert eager.config._attn_implementation == "eager"
    assert not use_own_attention(torch.nn.Linear(2, 2))


def test_the_kernel_is_built_once(fresh_kernels):
    assert load_kernels() is not None
    (built,) = fresh_kernels.iterdir()
    written = built.stat().st_mtime_ns
    load_kernels.cache_clear()
    assert load_kernels() is not None
    assert [(each, each.stat().st_mtime_ns) for each in fresh_kernels.iterdir()] == [
        (built, written)
    ]


@pytest.mark.parametrize("size", [0, 3_000])
def test_a_kernel_that_is_cut_is_built_anew(fresh_kernels, size):
    assert load_kernels() is not None
    (built,) = fresh_kernels.iterdir()
    cut = built.read_bytes()[:size]
    built.unlink()  # this process goes on with the file that it has mapped
    built.write_bytes(cut)
    load_kernels.cache_clear()
    assert load_kernels() is not None
    assert len(built.read_bytes()) > 3_000


def test_a_kernel_that_others_can_write_is_not_loaded(fresh_kernels, caplog):
    fresh_kernels.mkdir(mode=0o700)
    fresh_kernels.chmod(0o777)
    assert load_kernels() is None
    assert "is not this user's alone" in caplog.text


def test_heads_that_share_no_keys_evenly_are_an_error_of_torch_s(by_kernel):
    query, held = torch.randn(1, 6, 1, 16), torch.randn(1, 4, 5, 16)
    with pytest.raises(RuntimeError):
        attend(query, held, held, torch.tensor([5]))
    assert by_kernel == []


@pytest.mark.parametrize("compiler", ["nowhere++", "false", "false --or"])
def test_without_a_compiler_attention_is_torch_s(
    fresh_kernels, by_kernel, compiler, monkeypatch, caplog
):
    monkeypatch.setenv("CXX", compiler)
    with caplog.at_level(logging.WARNING):
        forward = Forward(gpt2(), 300, in_training=False)
        cache = rows_of(forward, 1)
        forward([[5, 6, 7]], cache)
        found = forward([[8]], cache)
    (said,) = (record.getMessage() for record in caplog.records)
    assert ("there is no C++ compiler (nowhere++)" in said) == (compiler == "nowhere++")
    assert said.count("the engine computes with torch alone, and slower") == 1
    assert torch.allclose(found, plainly(gpt2(), [5, 6, 7, 8]), atol=1e-5)
    assert by_kernel == []
    assert not list(fresh_kernels.glob("*.so"))
