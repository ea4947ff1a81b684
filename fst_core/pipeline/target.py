"""A target: the model that a command is about, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.manifest import MANIFEST, read_manifest
from fst_core.artefacts.model import is_foreign
from fst_core.artefacts.provenance import resolve
from fst_core.artefacts.publish import numbered
from fst_core.errors import ArtefactError, UserError
from fst_core.pipeline.pipeline import check_pipeline, load_pipeline
from fst_core.pipeline.tables import override
from fst_core.pipeline.train import MODEL, RUN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_core.interfaces import Engine
    from fst_core.pipeline.pipeline import Pipeline

__all__ = ["Target", "find_target", "open_engine"]


@dataclass(frozen=True, slots=True)
class Target:
    """A model's directory or file, and the pipeline whose engine, samplers and frontends serve it."""

    directory: Path
    pipeline: Pipeline

    def engine(self) -> Engine:
        """Load the model into its engine.

        Raises:
            UserError: the model is damaged, or something that it needs is not installed.
        """
        self.pipeline.require("engine", *["sampler"] * bool(self.pipeline.samplers))
        assert self.pipeline.engine is not None
        samplers = [(part.build(), part.settings) for part in self.pipeline.samplers]
        engine: Engine = self.pipeline.engine.build()
        return engine.for_artefact(self.directory, samplers)


def find_target(path: Path, overrides: Sequence[str] = ()) -> Target:
    """Find the model that a path means: a model's directory, a run's, or a pipeline's newest model.

    Args:
        path: a directory with fst.json, a run's directory, a pipeline file, or what `pretrained`
            opens: a directory with config.json, a GGUF file. A pipeline without [model] has its
            model elsewhere, as the engine `remote` has; it is its own target.
        overrides: `key=value` settings of the pipeline, such as `sampler.0.temperature=0.7`.

    Raises:
        UserError: there is no model.
    """
    if path.is_file() and path.suffix == ".toml":
        pipeline = load_pipeline(path, overrides)
        if pipeline.model is None and pipeline.engine is not None:
            return Target(path, pipeline)
        return Target(_newest(pipeline.runs, path), pipeline)
    if is_foreign(path):
        tables = {"engine": {"use": "local"}, "sampler": [{"use": "standard"}]}
        return Target(path, _overridden(path, tables, overrides))
    if not path.is_dir():
        raise UserError(
            f"{path}: no such model. Name a directory with {MANIFEST}, or a pipeline file."
        )
    directory = path / MODEL if (path / MODEL / MANIFEST).is_file() else path
    if (directory / RUN).is_file():
        raise UserError(f"{path}: a run whose model is not finished. `fst train` goes on with it.")
    return Target(directory, _recorded(directory, overrides))


def open_engine(target: str | Path, overrides: Sequence[str] = ()) -> Engine:
    """Load a model and return the engine that generates with it, as `fst generate TARGET` does.

    Raises:
        UserError: there is no such model, or something that it needs is not installed.
    """
    return find_target(Path(target), overrides).engine()


def _newest(runs: Path, file: Path) -> Path:
    for run in reversed(numbered(runs)):
        if (run / MODEL / MANIFEST).is_file():
            return run / MODEL
    raise UserError(f"{file}: no model below {runs} yet. Make it: fst run {file}")


def _recorded(directory: Path, overrides: Sequence[str]) -> Pipeline:
    """Return a pipeline that serves a model with the samplers it was watched with in training."""
    manifest = read_manifest(directory, kind="model")
    recorded = manifest.get("components", {}).get("samplers")
    if not isinstance(recorded, list) or not all(_is_record(said) for said in recorded):
        raise ArtefactError(f"{directory}: fst.json does not say which samplers it has")
    samplers = [
        {"use": resolve("sampler", said, str(directory)).address, **said["settings"]}
        for said in recorded
    ]
    tables: dict[str, Any] = {"engine": {"use": "local"}, "sampler": samplers}
    return _overridden(directory, tables, overrides)


def _overridden(path: Path, tables: dict[str, Any], overrides: Sequence[str]) -> Pipeline:
    override(tables, overrides)
    return check_pipeline(str(path), tables)


def _is_record(said: object) -> bool:
    return isinstance(said, dict) and isinstance(said.get("settings"), dict)
