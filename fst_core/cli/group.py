"""The commands of `fst`: their help is data, and a command is imported when it runs.

A command is a module of this package, named as the command with `_` for `-`, in which `command` is
a `click.Command`; whatever is heavy it imports inside its functions. A plugin offers a command as
an entry point of group `fst.commands`: its name is the command's, its object a `click.Command`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from fst_core.components import NAME

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from fst_core.plugins import Source

__all__ = ["COMMANDS", "Commands"]

COMMANDS = {
    "From documents to a model that writes": {
        "demo": "Train a small model on Shakespeare's plays.",
        "run": "Do what is not up to date in a pipeline.",
        "prepare": "Turn documents into a dataset.",
        "train": "Train a model on the dataset.",
        "evaluate": "Measure a model.",
        "generate": "Let a model continue a prompt.",
        "chat": "Talk with a model.",
        "bench": "Measure how fast a model generates.",
        "serve": "Serve a model by its frontends.",
    },
    "To write a pipeline": {
        "init": "Write a commented pipeline.toml to begin with.",
        "check": "Check what a pipeline says and what it needs.",
        "plan": "Say before a run what it will take: memory, steps, time.",
        "schema": "Print the JSON Schema of pipeline.toml, for editors.",
    },
    "To see what is there": {
        "list-plugins": "List what is installed, and what is broken.",
        "describe": "Show a component's settings and where it comes from.",
        "inspect": "Show what made a dataset, a model or a run.",
        "runs": "List the runs, and how well each did.",
        "compare": "Show how two runs differ.",
        "dataset": "Look into a prepared dataset, or verify it.",
        "doctor": "Look for what would keep FST from working here.",
    },
    "To extend it": {
        "new-plugin": "Write a new plugin as a package that passes its tests.",
    },
}
"""The bundled commands by subject, each with its line of help."""

GROUP = "fst.commands"
"""The group of entry points that name commands of plugins."""


class Commands(click.Group):
    """The group `fst`; only the command that runs is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names of all commands."""
        return [*_bundled(), *sorted({s.entry.name for s in _offered()})]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's
        """Import a command; None if there is none of that name.

        Raises:
            PluginError: a plugin offers it, and it cannot be loaded.
            AmbiguousComponent: two distributions offer it.
        """
        if cmd_name in _bundled():
            module = import_module(f"{__package__}.{cmd_name.replace('-', '_')}")
            command: click.Command = module.command
            return command
        found = [source for source in _offered() if source.entry.name == cmd_name]
        return _load(found) if found else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with.

        Raises:
            UsageError: there is none; the message names the nearest one.
        """
        name = args[0]
        known = name.startswith("-") or name in _bundled()  # looking for plugins takes its time
        if not known and name not in self.list_commands(ctx):
            from fst_core.settings import suggestion

            hint = suggestion(name, self.list_commands(ctx))
            ctx.fail(f"unknown command {name!r}.{hint or ' `fst --help` lists them.'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        """Write the commands into the help text, without importing them."""
        subjects = {title: list(commands.items()) for title, commands in COMMANDS.items()}
        subjects["Of plugins"] = [
            (s.entry.name, f"See `fst {s.entry.name} --help` ({s.distribution} {s.version}).")
            for s in _offered()
        ]
        width = max(len(name) for rows in subjects.values() for name, _ in rows)
        for title, rows in subjects.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(width), text) for name, text in rows])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, without importing any."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=_bundled().get(name)) for name in names), *options]


def _bundled() -> dict[str, str]:
    return {name: text for commands in COMMANDS.values() for name, text in commands.items()}


def _offered() -> list[Source]:
    """Return the commands of plugins; a bundled name cannot be taken."""
    from fst_core.plugins import sources

    found, _ = sources(GROUP)
    return [s for s in found if NAME.fullmatch(s.entry.name) and s.entry.name not in _bundled()]


def _load(found: list[Source]) -> click.Command:
    from fst_core.errors import AmbiguousComponent, PluginError
    from fst_core.plugins import told

    name = found[0].entry.name
    if len(found) > 1:
        who = " and ".join(f"{s.distribution} {s.version}" for s in found)
        raise AmbiguousComponent(f"command '{name}' is offered by {who}. Uninstall one.")
    entry, dist, version = found[0]
    try:
        command: Any = entry.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"command '{name}' of {dist} {version} is broken: {told(error)}"
        ) from error
    if not isinstance(command, click.Command):
        raise PluginError(f"command '{name}' of {dist} {version} is broken: not a click.Command")
    return command
