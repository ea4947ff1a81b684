"""Checkpoints: everything that training needs to go on from a completed step, as plain data.

Each is a directory `step-<n>` that appears whole: `model.safetensors`, `optimizer.safetensors`,
`random.safetensors`, `state.json`, and the manifest with their digests.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fst_core.artefacts import publishing, verify, write_manifest
from fst_core.artefacts.publish import write_whole
from fst_core.errors import ArtefactError, FstError, UserError
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.pipeline.process import leads
from fst_lightning.randomness import Randomness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Checkpoint", "Checkpoints", "State", "load_module", "module_tensors"]

_log = logging.getLogger(__name__)

_PLACE = (
    "dataset", "seed", "trainer.batch_size", "trainer.batch_tokens",
    "trainer.lightning.accumulate_grad_batches", "trainer.lightning.limit_train_batches",
    "trainer.lightning.overfit_batches",
)  # fmt: skip
"""What says which samples an epoch's n-th batch has."""
_MEASURE = ("dataset", "trainer.lightning.limit_val_batches")
"""What says on which samples a validation is done."""


@dataclass(frozen=True, slots=True)
class State:
    """Where training stands after a completed step, in plain numbers."""

    step: int = 0
    """Steps of the optimizer that are done."""
    epoch: int = 0
    """Epochs that are done."""
    batch: int = 0
    """Batches of the current epoch that are done."""
    validated: bool = False
    """Whether a validation that was due after this step is done."""
    loss: float | None = None
    """The loss of this step, or of the last one before it that was not skipped."""
    valid_loss: float | None = None
    """The loss of the last validation."""
    best_step: int | None = None
    """The step whose weights had the lowest validation loss."""
    best_loss: float | None = None
    """That loss."""
    tokens: int = 0
    """Target ids that were trained on, those of skipped steps among them."""
    seconds: float = 0.0
    """Time that training took, without validation, sampling and checkpoints."""
    elapsed: float = 0.0
    """Time that it took with them."""
    total: int | None = None
    """The number of all steps, where `minutes` decides it, as it was last found."""
    pieces: int = 1
    """Into how many pieces a batch is divided to fit into memory."""
    worse: int = 0
    """Validations in a row that were not the best."""
    best_bits_per_byte: float | None = None
    """Bits per byte of the best validation."""
    skips: int = 0
    """Steps in a row, this one among them, that were skipped because they were not finite."""
    skipped: int = 0
    """All such steps."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk."""

    directory: Path
    state: State
    numbers: Mapping[str, Any]
    """The random state's numbers."""
    identity: Mapping[str, Any]
    """What training depended on."""

    def module(self) -> dict[str, torch.Tensor]:
        """Return the module's tensors by name."""
        return load_file(self.directory / "model.safetensors")

    def optimizer(self) -> dict[str, torch.Tensor]:
        """Return the optimizer's tensors by name."""
        return load_file(self.directory / "optimizer.safetensors")

    def randomness(self) -> Randomness:
        """Return the random state."""
        return Randomness(load_file(self.directory / "random.safetensors"), self.numbers)


class Checkpoints:
    """The checkpoints of a run; the last few and the best of them are kept.

    Args:
        directory: where they are; made if it is not there.
        kept: how many of the last are kept.
        identity: what training depends on; a run is resumed only if it is the same, or
        overridden: if the user wants it resumed all the same.

    Raises:
        FstError: the directory cannot be written.
    """

    def __init__(
        self, directory: Path, kept: int, identity: Mapping[str, Any], *, overridden: bool = False
    ) -> None:
        self.directory = directory
        self.kept = kept
        self.identity = Fingerprint(**identity)
        self.overridden = overridden
        self.last: int | None = None
        """The step of the newest sound checkpoint, which may still be being written."""
        self._writing: threading.Thread | None = None
        self._error: FstError | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FstError(f"{directory}: no checkpoint can be written: {error.strerror}") from None

    def finished(self) -> dict[str, Any] | None:
        """Return what `finish` recorded; None if the run has not finished.

        Raises:
            UserError: it is a run of another identity.
        """
        path = self.directory / "finished.json"
        if not path.is_file():
            return None
        record: dict[str, Any] = json.loads(path.read_bytes())
        return None if self._differs(record["identity"]) else record

    def finish(self, figures: Mapping[str, float], step: int) -> dict[str, Any]:
        """Record that training is done, and which step's weights it ends with (0: those it began with)."""
        record = {"figures": figures, "step": step, "identity": self.identity.fields}
        if not leads():
            return record | {"step": 0}  # nobody wants the weights of a process that follows
        write_whole(self.directory / "finished.json", _json(record))
        return record

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint; a damaged one is passed over with a warning.

        Raises:
            UserError: it is of another identity.
        """
        for partial in self.directory.glob(".step-*.partial") if leads() else ():
            shutil.rmtree(partial)  # a killed process left it
        for step in reversed(self._steps()):
            try:
                checkpoint = self.open(step)
            except ArtefactError as error:
                _log.warning("%s. Going on from an earlier checkpoint", error)
            else:
                self.last = step
                return self._fitting(checkpoint)
        return None

    def open(self, step: int) -> Checkpoint:
        """Open a step's checkpoint.

        Raises:
            ArtefactError: it is missing or damaged.
            UserError: it is of another identity.
        """
        directory = self._path(step)
        verify(directory)
        record = json.loads((directory / "state.json").read_bytes())
        self._differs(record["identity"])
        state = State(**record["state"])
        return Checkpoint(directory, state, record["random"], record["identity"])

    def save(
        self,
        state: State,
        module: Mapping[str, torch.Tensor],
        optimizer: Mapping[str, torch.Tensor],
        randomness: Randomness,
    ) -> None:
        """Copy everything, and write it while training goes on; then remove what is no longer kept.

        Raises:
            FstError: the one before cannot be written; earlier ones are untouched.
        """
        self.wait()
        tensors = {
            "model": {name: _copy(tensor) for name, tensor in module.items()},
            "optimizer": {name: _copy(tensor) for name, tensor in optimizer.items()},
            "random": dict(randomness.tensors),
        }
        record = {
            "state": asdict(state),
            "random": randomness.numbers,
            "identity": self.identity.fields,
        }
        self.last = state.step
        # A process that has to leave at once does not wait for it.
        self._writing = threading.Thread(
            target=self._write, args=(state.step, tensors, record), daemon=True
        )
        self._writing.start()

    def check(self) -> None:
        """See whether what was written last could be.

        Raises:
            FstError: it could not.
        """
        if self._error is not None:
            self.wait()

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            FstError: it cannot be.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(
        self, step: int, tensors: Mapping[str, dict[str, torch.Tensor]], record: Mapping[str, Any]
    ) -> None:
        target = self._path(step)
        try:
            if target.exists():  # damaged: `latest` passed it over
                shutil.rmtree(target)
            with publishing(target) as staging:
                for name, named in tensors.items():
                    save_file(named, staging / f"{name}.safetensors")
                (staging / "state.json").write_bytes(_json(record))
                write_manifest(staging, "checkpoint", step=step)
            self._prune()
        except (OSError, SafetensorError) as error:
            self._error = FstError(f"{target}: the checkpoint cannot be written: {error}")

    def _prune(self) -> None:
        steps = self._steps()
        keep = set(steps[-self.kept :])
        for step in sorted(keep):  # whichever of them is resumed, its best must still be there
            record = json.loads((self._path(step) / "state.json").read_bytes())
            keep.add(record["state"]["best_step"])
        for step in set(steps) - keep:
            shutil.rmtree(self._path(step))

    def _steps(self) -> list[int]:
        names = (path.name.removeprefix("step-") for path in self.directory.glob("step-*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:06d}"

    def _differs(self, identity: Mapping[str, Any]) -> bool:
        """Return whether something was written by a training of something else.

        Raises:
            UserError: it was, and the user has not said to go on all the same.
        """
        different = self.identity.differences(identity)
        if different and not self.overridden:
            raise UserError(
                f"{self.directory}: written by a training of something else: "
                f"{'; '.join(different)}. Start a new run"
            )
        return bool(different)

    def _fitting(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return a checkpoint without what does not hold for the training that goes on from it."""

        def changed(names: Sequence[str]) -> bool:
            known = checkpoint.identity
            return any(known.get(name) != self.identity.fields.get(name) for name in names)

        state = checkpoint.state
        if changed(_PLACE):  # the epoch begins anew
            state = replace(state, batch=0, validated=True)
        if changed(_MEASURE):
            state = replace(
                state, valid_loss=None, best_step=None, best_loss=None, best_bits_per_byte=None,
                worse=0,
            )  # fmt: skip
        if changed(["trainer.minutes"]):
            state = replace(state, total=None)
        return replace(checkpoint, state=state)


def module_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's parameters and buffers by name, tied ones once."""
    return dict(_named(module))


def load_module(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into a module, in place, so that what is tied stays tied.

    Raises:
        UserError: they are those of another module.
    """
    own = module_tensors(module)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise UserError("the checkpoint is of another model. Start a new run")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _named(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous tensor of its own on the CPU, which no step changes."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode()
