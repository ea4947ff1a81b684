"""The contract of models."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch  # noqa: TID253  # a model's contract needs it
from torch.nn import functional as F  # noqa: N812, TID253  # its customary name; as above

from fst_core.testing.component import ComponentContract
from fst_core.testing.saved import assert_damage_is_told, contents, pickled
from fst_core.testing.toys import ToyTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fst_core import Model, Tokenizer

__all__ = ["ModelContract"]


class ModelContract(ComponentContract):
    """What every model does. A subclass names it, with settings that make it small.

        class TestTiny(ModelContract):
            use = "tiny"
            settings = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64}

    A model that goes with one vocabulary alone overrides the fixture `tokenizer`.

    It asserts that logits are (B, T, vocab_size); that no position sees a later one, nor a row
    another; that a cache changes nothing, with rows of unequal length too, unless the model has
    `supports_cache = False`; that a sequence of `context_length` passes; that saving and loading
    change nothing, without pickle, and damage is told; that equal seeds give equal weights; that
    the loss on one batch falls in a few steps; that `optimise` keeps the function; and that a
    configuration knows the tokenizer's control ids.
    """

    kind: ClassVar[str] = "model"
    learning_rate: ClassVar[float] = 3e-3
    """With which the loss falls."""

    @pytest.fixture
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the module is built for."""
        return ToyTokenizer()

    @pytest.fixture
    def model(self) -> Model:
        """The model."""
        model: Model = self.build()
        return model

    @pytest.fixture
    def module(self, model: Model, tokenizer: Tokenizer) -> torch.nn.Module:
        """The module, in evaluation mode."""
        return _built(model, tokenizer).eval()

    @pytest.fixture
    def ids(self, tokenizer: Tokenizer) -> torch.Tensor:
        """(3, 12) ids, drawn from the whole vocabulary."""
        generator = torch.Generator().manual_seed(228)
        return torch.randint(tokenizer.vocab_size, (3, 12), generator=generator)

    def test_logits_have_a_number_for_each_id(
        self, module: torch.nn.Module, tokenizer: Tokenizer, ids: torch.Tensor
    ) -> None:
        """(B, T, vocab_size), floating point and finite, for a single id too."""
        for some in (ids, ids[:1, :1]):
            logits = _logits(module, some)
            assert logits.shape == (*some.shape, tokenizer.vocab_size)
            assert logits.is_floating_point()
            assert logits.isfinite().all()

    def test_no_position_sees_a_later_one(
        self, module: torch.nn.Module, tokenizer: Tokenizer, ids: torch.Tensor
    ) -> None:
        """Another id changes the logits at its place and after it, and none before."""
        changed = ids.clone()
        changed[:, 7] = (changed[:, 7] + 1) % tokenizer.vocab_size
        before, after = _logits(module, ids), _logits(module, changed)
        _assert_close(after[:, :7], before[:, :7])
        assert not torch.allclose(after[:, 7], before[:, 7], atol=1e-5)
        assert not torch.allclose(after[:, 8:], before[:, 8:], atol=1e-7)

    def test_no_row_sees_another(self, module: torch.nn.Module, ids: torch.Tensor) -> None:
        """A row alone, and without what pads it at its end, gives what it gives in a batch."""
        together = _logits(module, ids)
        for row in range(len(ids)):
            _assert_close(_logits(module, ids[row : row + 1])[0], together[row])
            _assert_close(_logits(module, ids[row : row + 1, :5])[0], together[row, :5])

    def test_a_cache_changes_nothing(
        self, model: Model, module: torch.nn.Module, ids: torch.Tensor
    ) -> None:
        """Ids that come in pieces, with a cache and a mask, give the logits of the whole."""
        self._needs_cache(model)
        whole = _logits(module, ids)
        cache = _Cache()
        for start, end in ((0, 6), (6, 7), (7, 12)):
            seen = torch.arange(end)[None, :] <= torch.arange(start, end)[:, None]  # (T, S)
            piece = _logits(
                module,
                ids[:, start:end],
                position_ids=torch.arange(start, end)[None].expand(len(ids), -1),
                attention_mask=_added(seen[None, None].expand(len(ids), 1, -1, -1), whole.dtype),
                **_cached(module, cache),
            )
            _assert_close(piece, whole[:, start:end])

    def test_a_cache_serves_rows_of_unequal_length(
        self, model: Model, module: torch.nn.Module, ids: torch.Tensor
    ) -> None:
        """Padding in the cache is masked, and positions count a row's own ids: engines work so."""
        self._needs_cache(model)
        lengths = torch.tensor([8, 3, 5])
        longest = int(lengths.max())
        cache = _Cache()
        columns = torch.arange(longest)
        seen = (columns[None, :] <= columns[:, None])[None] & (
            (columns[None, :] < lengths[:, None])[:, None] | torch.eye(longest, dtype=torch.bool)
        )  # (B, T, S); what pads sees itself, so that nobody divides by zero
        dtype = next(module.parameters()).dtype
        _logits(
            module,
            ids[:, :longest],
            position_ids=columns[None].expand(len(ids), -1),
            attention_mask=_added(seen[:, None], dtype),
            **_cached(module, cache),
        )
        for step in range(3):
            columns = torch.arange(longest + step + 1)
            seen = (columns[None, :] < lengths[:, None]) | (columns[None, :] >= longest)  # (B, S)
            places = lengths + step
            found = _logits(
                module,
                ids.gather(1, places[:, None]),
                position_ids=places[:, None],
                attention_mask=_added(seen[:, None, None], dtype),
                **_cached(module, cache),
            )
            for row, place in enumerate(places.tolist()):
                expected = _logits(module, ids[row : row + 1, : place + 1])
                _assert_close(found[row, -1], expected[0, -1])

    def test_a_sequence_of_context_length_passes(
        self, model: Model, module: torch.nn.Module, ids: torch.Tensor
    ) -> None:
        """The longest sequence that the model promises to take is taken."""
        assert model.context_length >= 2
        if model.context_length > 4096:
            pytest.skip("it would take long; settings with a shorter context would show it")
        repeated = ids.flatten().repeat(model.context_length // ids.numel() + 1)
        longest = repeated[None, : model.context_length]
        assert _logits(module, longest).isfinite().all()

    def test_saving_and_loading_change_nothing(
        self, model: Model, module: torch.nn.Module, ids: torch.Tensor, tmp_path: Path
    ) -> None:
        """A loaded module has the same weights and gives the same logits, wherever its directory was moved.

        One that adapters were added to on saving has other weights, and the same logits up to rounding.
        """
        with torch.no_grad():  # a loader that builds anew would not be noticed otherwise
            for parameter in module.parameters():
                parameter.mul_(1.01)
        moved = _save(model, module, tmp_path / "saved").rename(tmp_path / "moved")
        loaded = type(model).load(moved)
        assert {p.device.type for p in loaded.parameters()} == {"cpu"}
        if loaded.state_dict().keys() == module.state_dict().keys():
            _assert_equal_weights(loaded, module)
            assert torch.equal(_logits(loaded.eval(), ids), _logits(module, ids))
        else:
            _assert_close(_logits(loaded.eval(), ids), _logits(module, ids))
        again = _save(model, loaded, tmp_path / "again")
        assert contents(again).keys() == contents(moved).keys()
        _assert_equal_weights(type(model).load(again), loaded)

    def test_nothing_is_pickled(
        self, model: Model, module: torch.nn.Module, tmp_path: Path
    ) -> None:
        """What a person opens may come from a stranger."""
        assert pickled(_save(model, module, tmp_path / "saved")) == []

    def test_damage_is_told(self, model: Model, module: torch.nn.Module, tmp_path: Path) -> None:
        """A directory without a file, or with half of one, gives an ArtefactError that names the place."""
        assert_damage_is_told(type(model).load, _save(model, module, tmp_path / "saved"))

    def test_equal_seeds_give_equal_weights(self, model: Model, tokenizer: Tokenizer) -> None:
        """Nothing but torch's generator and the settings decides."""
        first = _built(model, tokenizer)
        _assert_equal_weights(_built(model, tokenizer), first)
        other: Model = self.build()
        _assert_equal_weights(_built(other, tokenizer), first)
        assert other.fingerprint() == model.fingerprint()

    def test_the_loss_on_one_batch_falls(self, module: torch.nn.Module, ids: torch.Tensor) -> None:
        """A few steps of AdamW teach it three short sequences."""
        before = _loss(module, ids).item()
        optimizer = torch.optim.AdamW(module.train().parameters(), lr=self.learning_rate)
        torch.manual_seed(228)  # of its dropout
        for _ in range(20):
            optimizer.zero_grad()
            _loss(module, ids).backward()  # type: ignore[no-untyped-call]  # torch's own has no types
            optimizer.step()
        assert _loss(module.eval(), ids).item() < 0.9 * before

    def test_optimise_keeps_the_function(
        self, model: Model, module: torch.nn.Module, ids: torch.Tensor
    ) -> None:
        """The faster module gives the same logits, up to rounding."""
        faster = type(model).optimise(copy.deepcopy(module), torch.float32)
        torch.testing.assert_close(
            _logits(faster.eval(), ids), _logits(module.float(), ids), rtol=1e-3, atol=1e-3
        )

    def test_a_configuration_knows_the_control_ids(
        self, module: torch.nn.Module, tokenizer: Tokenizer
    ) -> None:
        """What reads the saved model without FST begins and ends where the tokenizer does."""
        config = getattr(module, "config", None)
        if config is None:
            pytest.skip("the module has no `config`")
        for name, expected in (
            ("bos_token_id", tokenizer.bos_id),
            ("eos_token_id", tokenizer.end_id),
            ("pad_token_id", tokenizer.pad_id),
        ):
            if hasattr(config, name):
                said = getattr(config, name)
                assert expected in (said if isinstance(said, list) else [said]), name

    @staticmethod
    def _needs_cache(model: Model) -> None:
        if not model.supports_cache:
            pytest.skip("the model has `supports_cache = False`")


class _Cache:
    """Keys and values of each layer, joined along the sequence: the least that a cache is."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer_idx in self._layers:
            past_keys, past_values = self._layers[layer_idx]
            keys = torch.cat([past_keys, keys], dim=-2)
            values = torch.cat([past_values, values], dim=-2)
        self._layers[layer_idx] = keys, values
        return keys, values

    def get_seq_length(self, layer_idx: int = 0, *_: Any, **__: Any) -> int:
        return self._layers[layer_idx][0].shape[-2] if layer_idx in self._layers else 0


def _cached(module: torch.nn.Module, cache: _Cache) -> dict[str, Any]:
    """Return the arguments that pass a cache: transformers 5.24 renamed `past_key_values`."""
    named = "cache" in inspect.signature(module.forward).parameters
    return {"cache" if named else "past_key_values": cache, "use_cache": True}


def _added(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a boolean mask, (B, 1, T, S), as what is added to the scores of attention."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def _logits(module: torch.nn.Module, ids: torch.Tensor, **arguments: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = module(input_ids=ids, **arguments).logits
    return logits


def _loss(module: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    logits = module(input_ids=ids).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def _built(model: Model, tokenizer: Tokenizer) -> torch.nn.Module:
    torch.manual_seed(228)
    return model.build(tokenizer)


def _save(model: Model, module: torch.nn.Module, directory: Path) -> Path:
    directory.mkdir()
    model.save(module, directory)
    return directory


def _assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def _assert_equal_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    differing: Sequence[str] = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert differing == []
