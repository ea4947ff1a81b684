"""`fst new-plugin`: a new plugin, as a distribution that installs and passes its tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fst_core.components import KINDS, NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fst_core.plugins import Offer

TEMPLATES = Path(__file__).parents[1] / "templates" / "plugin"
"""A folder a kind, one for what all kinds have, and one for tokenizers that build on another."""
ABOUT = "about.toml"
"""The file of a folder of templates that says what a README does, and what is installed first."""
SUFFIX = ".template"
PACKAGE = "package"
"""The folder among the templates that is named as the import package when written."""


@click.command("new-plugin")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--from",
    "base",
    metavar="COMPONENT",
    help="Build on the class of an installed component, such as the tokenizer bpe.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where to write it; the working directory unless another is given.",
)
def command(kind: str, name: str, base: str | None, directory: Path) -> None:
    """Write a plugin that offers a component NAME of KIND: a package, whole and small.

    It works as written, and its tests are the contract of its kind.
    """
    target = _write(kind, name, base, directory)
    click.echo(f"{target}/")
    for line in _tree(target, "  "):
        click.echo(line)
    place = target if target.is_absolute() else f"./{target.as_posix()}"
    click.echo("\nNext:")
    click.echo(f'  pip install -e "{place}[test]"')
    click.echo(f'  pytest "{place}"')
    click.echo(f"  fst list-plugins --kind {kind}")


def _write(kind: str, name: str, base: str | None, directory: Path) -> Path:
    """Write a distribution and return its directory.

    Raises:
        UserError: the name is malformed or taken, the directory exists, or nothing can be built on
            `base`.
    """
    from fst_core.artefacts.publish import publishing
    from fst_core.errors import UserError

    _check_name(kind, name)
    values: dict[str, str] = _names(kind, name)
    folder, dependencies = kind, [_requirement()]
    if base is not None:
        offer = _base(kind, base)
        folder, dependencies = f"{kind}-from", _requirements(offer)
        values |= _base_names(offer)
    target = directory / values["distribution"]
    if target.exists():
        raise UserError(f"{target}: there already. Remove it, or choose another name.")
    files = _files(folder, values, dependencies)
    with publishing(target) as staging:
        for path, text in files.items():
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).write_text(text, "utf-8", newline="\n")
    return target


def _check_name(kind: str, name: str) -> None:
    from fst_core.errors import UserError
    from fst_core.plugins import DISTRIBUTION, GROUP, registry, sources

    if not NAME.fullmatch(name) or name.endswith("-"):
        raise UserError(
            f"name {name!r}: write small letters, digits and hyphens, 64 at the most, that begin "
            "with a letter and do not end with a hyphen"
        )
    taken = [offer.provider for offer in registry().of_kind(kind) if offer.name == name]
    if taken:
        raise UserError(f"name {name!r}: {taken[0]} offers a {kind} of this name. Choose another.")
    bundled = {s.entry.name for s in sources(GROUP)[0] if s.distribution == DISTRIBUTION}
    if name in bundled:  # the plugin is named as its component, and FST would refuse to load it
        raise UserError(f"name {name!r}: {DISTRIBUTION} has a plugin of this name. Choose another.")


def _names(kind: str, name: str) -> dict[str, str]:
    """Return what the templates call the names of a distribution and its classes."""
    words = "".join(word.capitalize() for word in name.split("-"))
    distribution = f"fst-{kind}-{name}"
    return {
        "kind": kind,
        "name": name,
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "Class": words + kind.capitalize(),
        "Settings": f"{words}Settings",
        "Module": f"{words}Module",
        "Contract": f"{kind.capitalize()}Contract",
    }


def _base(kind: str, base: str) -> Offer:
    """Return the component to build on."""
    from fst_core.errors import UserError
    from fst_core.plugins import registry

    offer = registry().find(kind, base)
    if not _is_public(offer):
        public = filter(_is_public, registry().offers)
        known = ", ".join(f"{o.kind} {o.name}" for o in public) or "none"
        raise UserError(
            f"--from {base}: {offer.provider} has no public class of the {kind} '{offer.name}' to "
            f"build on. Installed ones that have: {known}"
        )
    implementation = offer.implementation()
    for method in ("normalize", "restore"):
        if not hasattr(implementation, method):
            raise UserError(
                f"--from {base}: {_class_name(offer)} of {offer.provider} has no `{method}` to override"
            )
    return offer


def _is_public(offer: Offer) -> bool:
    """Return whether a component is a tokenizer whose class the plugin's package exports."""
    exported = getattr(_package(offer), "__all__", ())
    return offer.kind == "tokenizer" and _class_name(offer) in exported


def _package(offer: Offer) -> Any:
    """Return the module that a plugin's entry point names."""
    from fst_core.plugins import registry

    return registry().hooks.get_plugin(f"{offer.distribution}:{offer.plugin}")


def _class_name(offer: Offer) -> str:
    return offer.component.target.partition(":")[2]


def _base_names(offer: Offer) -> dict[str, str]:
    """Return what the templates call the class to build on and its settings."""
    module, _, settings = (offer.component.settings or "fst_core:Settings").partition(":")
    needs = ", ".join(f'"{need}"' for need in offer.component.needs)
    return {
        "base": offer.name,
        "base_package": _package(offer).__name__,
        "Base": _class_name(offer),
        "base_settings_module": module,
        "base_settings_root": settings.partition(".")[0],
        "BaseSettings": settings,
        "base_arguments": "" if offer.component.settings is None else "settings",
        "needs": f"({needs},)" if needs else "()",
    }


def _requirement(extra: str = "") -> str:
    """Return the requirement of FST itself."""
    from fst_core.plugins import DISTRIBUTION, version_of

    version = version_of(DISTRIBUTION)
    return f"{DISTRIBUTION}{extra}" + (f">={version}" if version else "")


def _requirements(offer: Offer) -> list[str]:
    """Return what a plugin requires that builds on a component."""
    from fst_core.plugins import DISTRIBUTION

    if offer.distribution == DISTRIBUTION:
        return [_requirement(f"[{offer.plugin}]")]
    return [_requirement(), f"{offer.distribution}>={offer.version}"]


def _files(folder: str, values: Mapping[str, str], dependencies: list[str]) -> dict[Path, str]:
    """Return the files of a distribution by their paths in it."""
    import tomllib
    from string import Template

    about = tomllib.loads((TEMPLATES / folder / ABOUT).read_text("utf-8"))
    lines = (f'    "{each}",\n' for each in [*dependencies, *about["dependencies"]])
    values = {
        **values,
        "summary": Template(about["summary"]).substitute(values),
        "usage": Template(about["usage"]).substitute(values).strip(),
        "dependencies": "\n" + "".join(lines),
    }
    files = {}
    for root in (TEMPLATES / "common", TEMPLATES / folder):
        for path in sorted(root.rglob(f"*{SUFFIX}")):
            parts = path.relative_to(root).with_suffix("").parts
            written = Path(*(values["package"] if part == PACKAGE else part for part in parts))
            files[written] = Template(path.read_text("utf-8")).substitute(values)
    return files


def _tree(directory: Path, indent: str) -> Iterator[str]:
    """Yield a line for every file and folder below a directory, folders first."""
    for path in sorted(directory.iterdir(), key=lambda p: (p.is_file(), p.name)):
        yield f"{indent}{path.name}{'' if path.is_file() else '/'}"
        if path.is_dir():
            yield from _tree(path, f"{indent}  ")
