"""A pipeline: which components do what, with which settings, all checked before any is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from fst_core.errors import FstError, SettingsError, UnknownComponent
from fst_core.pipeline.tables import read_tables
from fst_core.plugins import Offer, registry
from fst_core.settings import AnySettings, Settings, key, problems, quoted, suggestion, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "TABLES",
    "DatasetSettings",
    "Part",
    "Pipeline",
    "RunSettings",
    "check_pipeline",
    "load_pipeline",
]

FileName = Annotated[str, Field(pattern=r"^[\w][\w.-]{0,99}$")]


class RunSettings(Settings):
    """`[run]`: what a run is called and where it is kept."""

    name: FileName = "run"
    """Names the run's directory, and the dataset's unless it has its own; by default as the file."""
    seed: int = Field(default=228, ge=0, lt=2**63)
    """Decides the held-out documents, the first weights, the order of samples and what is drawn."""
    root: Path = Path("runs")
    """The directory of all runs: a run is `<root>/<name>/<n>`."""


class DatasetSettings(Settings):
    """`[dataset]`: how documents become samples, and where these are kept."""

    root: Path = Path("data/datasets")
    """The directory of all datasets: a dataset is `<root>/<name>/<n>`."""
    name: FileName | None = None
    """Names the dataset's directory; by default as the run."""
    path: Path | None = None
    """A prepared dataset to use as it is; then no documents and no tokenizer are needed."""
    max_sample_length: int = Field(default=256, ge=2)
    """The most ids of a sample; at most what the model's positions hold."""
    min_sample_length: int = Field(default=8, ge=1)
    """A shorter sample is dropped."""
    valid_share: float = Field(default=0.05, gt=0, lt=1)
    """The share of documents held out for validation, where the reader has none of its own."""
    max_document_bytes: int = Field(default=2**26, ge=1)
    """A longer document is refused by name, where the tokenizer cannot encode it in pieces."""
    deduplicate: bool = False
    """Whether a document is left out that equals an earlier one; the documents are read once more."""
    ignore_meta_prob: float = Field(default=0.0, ge=0, le=1)
    """The share of documents whose label is left out, so that the model also writes without one."""
    executor: str | dict[str, Any] | None = None
    """What prepares in parallel: a name such as "local", or a table with `use` and its settings."""
    shards: int = Field(default=0, ge=0, le=999_999)
    """Into how many parts an executor's work is divided; 0: as many as this machine has cores."""


TABLES = {
    "run": None,
    "documents": "reader",
    "tokenizer": "tokenizer",
    "dataset": None,
    "model": "model",
    "trainer": "trainer",
    "sampler": "sampler",
    "evaluate": "evaluator",
    "engine": "engine",
    "serve": "frontend",
}
"""The tables of a pipeline in the data's order, each with the kind of component it selects."""

_MOST = 50
"""Problems of one kind; a person reads no more."""

ARRAYS = ("sampler", "evaluate", "serve")
"""Tables written with double brackets, one entry a component."""

_WITH_MODEL: Mapping[str, Any] = {
    "trainer": {"use": "lightning"},
    "sampler": [{"use": "standard"}],
    "evaluate": [{"use": "perplexity"}],
    "engine": {"use": "local"},
}
"""What a pipeline with a [model] does, unless it says otherwise."""


@dataclass(frozen=True, slots=True)
class Part:
    """A component chosen by a pipeline, with its settings."""

    place: str
    """Where the pipeline says so, as `[trainer]` or `[sampler.0]`."""
    offer: Offer
    settings: Settings | None

    def build(self) -> Any:
        """Return a new instance of the component."""
        return self.offer.build(self.settings)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A checked pipeline; a part is None where the file has no table for it."""

    file: str
    """The file's name, for messages."""
    tables: Mapping[str, Any]
    """The tables as written, defaults left out."""
    run: RunSettings
    dataset: DatasetSettings
    documents: Part | None
    tokenizer: Part | None
    model: Part | None
    trainer: Part | None
    samplers: tuple[Part, ...]
    evaluators: tuple[Part, ...]
    engine: Part | None
    frontends: tuple[Part, ...]
    executor: Part | None = None
    """What prepares the dataset in parallel; None: this process, which is not idle either."""

    @property
    def datasets(self) -> Path:
        """The directory of this pipeline's numbered datasets."""
        return self.dataset.root / (self.dataset.name or self.run.name)

    @property
    def runs(self) -> Path:
        """The directory of this pipeline's numbered runs."""
        return self.run.root / self.run.name

    def parts(self, *names: str) -> list[Part]:
        """Return the parts of the named tables that are there."""
        fields = {"sampler": self.samplers, "evaluate": self.evaluators, "serve": self.frontends}
        found: list[Part] = []
        for name in names:
            part = fields.get(name, getattr(self, name, None))
            found.extend(part if isinstance(part, tuple) else [part] if part else [])
        return found

    def require(self, *names: str) -> None:
        """Check that tables are there and that what their components need is installed.

        Raises:
            SettingsError: a table or a package is missing.
        """
        wrong = [f"[{name}]: this table is needed." for name in names if not self.parts(name)]
        for part in self.parts(*names):
            try:
                part.offer.require()
            except FstError as error:
                wrong.append(f"{part.place} {error}")
        if wrong:
            raise SettingsError(self.file, wrong)


def load_pipeline(
    path: Path | None, overrides: Sequence[str] = (), *, needs: bool = False
) -> Pipeline:
    """Read and check a pipeline: every name and every setting, all problems at once.

    With `needs` also that every component can be imported, not only those that a stage requires.

    Raises:
        UserError: the file cannot be read.
        SettingsError: names or settings are wrong.
    """
    file = str(path) if path else "the command line"
    return check_pipeline(file, read_tables(path, overrides), default_name(path), needs=needs)


def check_pipeline(
    file: str, tables: Mapping[str, Any], name: str = "run", *, needs: bool = False
) -> Pipeline:
    """Check the tables of a pipeline; `file` is named in messages, `name` is the run's default name.

    Raises:
        SettingsError: names or settings are wrong.
    """
    return _Checker(file, tables, name, needs=needs).pipeline()


def default_name(path: Path | None) -> str:
    """Name a run as its file, or as its folder where the file has the usual name."""
    if path is None:
        return "run"
    stem = path.resolve().parent.name if path.stem == "pipeline" else path.stem
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem).lstrip(".-")
    return kept[:100] or "run"


class _Checker:
    """Collects the problems of a pipeline while its parts are resolved and validated."""

    def __init__(self, file: str, tables: Mapping[str, Any], name: str, *, needs: bool) -> None:
        self.file = file
        self.tables = tables
        self.name = name
        self.needs = needs
        self.problems: list[str] = []

    def pipeline(self) -> Pipeline:
        unknown = [name for name in self.tables if name not in TABLES]
        self.problems.extend(map(self.unknown_table, unknown[:_MOST]))
        run = self.settings(RunSettings, {"name": self.name, **self.table("run")}, "[run]")
        dataset = self.settings(DatasetSettings, self.table("dataset"), "[dataset]")
        model = self.part("model")
        tokenizer = self.part("tokenizer", self.tokenizer_defaults(model))
        documents = self.part("documents")
        defaults = _WITH_MODEL if "model" in self.tables else {}
        trainer, engine = (
            self.part(name, defaults.get(name, {})) for name in ("trainer", "engine")
        )
        executor = self.executor(dataset)
        samplers, evaluators, frontends = (
            self.array(name, defaults.get(name, ())) for name in ("sampler", "evaluate", "serve")
        )
        if dataset and dataset.min_sample_length > dataset.max_sample_length:
            self.problems.append(
                f"[dataset] min_sample_length = {dataset.min_sample_length}: more than "
                f"max_sample_length, which is {dataset.max_sample_length}."
            )
        if self.problems or run is None or dataset is None:
            raise SettingsError(self.file, sorted(self.problems, key=self.position))
        return Pipeline(
            self.file, self.tables, run, dataset, documents, tokenizer, model, trainer,
            samplers, evaluators, engine, frontends, executor,
        )  # fmt: skip

    def position(self, problem: str) -> int:
        """Order problems as the file has their tables, those of tables that it has not first."""
        place = problem.lstrip("[").partition("]")[0].partition(".")[0]
        return list(self.tables).index(place) if place in self.tables else -1

    def unknown_table(self, name: str) -> str:
        if isinstance(self.tables[name], dict | list):
            return f"[{key(name)}]: unknown table.{suggestion(name, TABLES)}"
        return f"{key(name)}: outside of any table. It belongs below [run] or another one."

    def table(self, name: str) -> Mapping[str, Any]:
        table = self.tables.get(name, {})
        if isinstance(table, dict):
            return table
        if (problem := f"[{name}]: not a table.") not in self.problems:
            self.problems.append(problem)
        return {}

    def tokenizer_defaults(self, model: Part | None) -> Mapping[str, Any]:
        """A pretrained model's own tokenizer lies where the model does."""
        path = getattr(model.settings, "path", None) if model else None
        use = self.table("tokenizer").get("use")
        same = model is not None and use in (model.offer.name, model.offer.address)
        return {"path": str(path)} if same and path is not None else {}

    def executor(self, dataset: DatasetSettings | None) -> Part | None:
        said = None if dataset is None else dataset.executor
        if said is None:
            return None
        table = {"use": said} if isinstance(said, str) else said
        return self.chosen("executor", "[dataset.executor]", table)

    def part(self, name: str, defaults: Mapping[str, Any] = {}) -> Part | None:  # read only
        if name not in self.tables and "use" not in defaults:
            return None
        written = self.table(name)
        if not isinstance(self.tables.get(name, {}), dict):
            return None
        # Another component does not inherit the settings of the default one.
        return self.chosen(TABLES[name], f"[{name}]", {**defaults, **written})

    def array(self, name: str, defaults: Iterable[Any]) -> tuple[Part, ...]:
        entries = self.tables.get(name, list(defaults))
        if not isinstance(entries, list):
            self.problems.append(f"[{name}]: write it as [[{name}]]: there may be several.")
            return ()
        parts: list[Part] = []
        for index, entry in enumerate(entries):
            place = f"[{name}.{index}]" if len(entries) > 1 else f"[[{name}]]"
            if not isinstance(entry, dict):
                self.problems.append(f"{place}: not a table.")
            elif (part := self.chosen(TABLES[name], place, entry)) is not None:
                parts.append(part)
        return tuple(parts)

    def chosen(self, kind: str | None, place: str, table: Mapping[str, Any]) -> Part | None:
        assert kind is not None
        use = table.get("use")
        installed = f"Installed {kind}s: {', '.join(registry().names(kind)) or 'none'}"
        if not isinstance(use, str):
            wrong = "this key is needed" if use is None else "not a string"
            self.problems.append(f"{place} use: {wrong}. {installed}")
            return None
        try:
            offer = registry().find(kind, use)
            cls = offer.settings_class()
        except UnknownComponent:
            advice, broken = registry().hint(kind, use), registry().broken(use)
            advice = f"{advice}{broken.removeprefix('.')}" if advice else f" {installed}{broken}"
            wrong = f"unknown {kind}.{advice}"
            self.problems.append(f"{place} use = {quoted(use)}: {wrong}")
            return None
        except FstError as error:
            self.problems.append(f"{place} use = {quoted(use)}: {error}")
            return None
        if self.needs and offer.missing():
            self.problems.append(f"{place} {offer.need()}")
        values = {name: value for name, value in table.items() if name != "use"}
        if cls is None:
            self.problems.extend(
                f"{place} {key(name)}: '{use}' has no settings." for name in list(values)[:_MOST]
            )
            return Part(place, offer, None)
        settings = self.settings(cls, values, place)
        return None if settings is None else Part(place, offer, settings)

    def settings(
        self, cls: type[AnySettings], values: Mapping[str, Any], place: str
    ) -> AnySettings | None:
        try:
            return validate(cls, values)
        except ValidationError as error:
            self.problems.extend(problems(error, cls, place, values))
            return None
