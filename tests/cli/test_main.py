"""The frame of the command line: help, commands of plugins, and how a command ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import click
import pytest
from fakes import (  # fixtures are used by their names
    arguments_of,
    environment_of,
    fst_fixture,  # noqa: F401
    spawn,
    with_fakes_fixture,  # noqa: F401
)

from fst_core.cli import commands, printable
from fst_core.cli.group import COMMANDS

NAMES = [name for subject in COMMANDS.values() for name in subject]


# help


def test_help_lists_every_command_with_its_line(fst):
    done = fst("--help")
    assert done.status == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    for subject in COMMANDS.values():
        for name, text in subject.items():
            assert f"{name} {text}" in lines
    assert max(map(len, done.out.splitlines())) < 80


@pytest.mark.parametrize("name", NAMES)
def test_a_command_is_the_module_of_its_name(name):
    command = import_module(f"fst_core.cli.{name.replace('-', '_')}").command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help


@pytest.mark.parametrize("name", NAMES)
def test_every_command_tells_its_options(fst, name):
    done = fst(name, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"Usage: fst {name} ")


def test_the_version_is_that_of_the_distribution(fst):
    assert fst("--version").out == f"fst {version('full-stack-transformer')}\n"


def test_no_arguments_show_the_help(fst):
    done = fst()
    assert done.status == 2
    assert "Usage: fst" in done.err


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train"), ("list-plugin", "list-plugins"), ("Init", "init")]
)
def test_an_unknown_command_is_told_with_the_nearest(fst, typed, meant):
    done = fst(typed)
    assert done.status == 2
    assert done.err.endswith(f"Error: unknown command '{typed}'. Did you mean '{meant}'?\n")


def test_an_unknown_command_that_is_like_no_other(fst):
    assert "unknown command 'xyz'. `fst --help` lists them." in fst("xyz").err


@pytest.mark.parametrize(
    "arguments", [["--foo"], ["check", "--foo"], ["list-plugins", "--kind", "x"]]
)
def test_a_wrong_option_ends_with_status_2(fst, arguments):
    done = fst(*arguments)
    assert (done.status, done.out) == (2, "")
    assert "Usage: fst" in done.err


def test_names_complete_in_a_shell_without_importing_a_command(with_fakes, monkeypatch):
    with_fakes("commands")
    monkeypatch.setattr("fst_core.cli.group.import_module", None)
    with commands.make_context("fst", ["x"], resilient_parsing=True) as context:
        items = commands.shell_complete(context, "in")
        assert [(item.value, item.help) for item in items] == [
            ("init", COMMANDS["To write a pipeline"]["init"]),
            ("inspect", COMMANDS["To see what is there"]["inspect"]),
        ]
        assert [item.value for item in commands.shell_complete(context, "hel")] == ["hello"]
    assert "fst_fake_commands" not in sys.modules


# commands of plugins


def test_a_command_of_a_plugin_is_listed_with_its_distribution_and_not_imported(tmp_path):
    mark = tmp_path / "imported"
    done = spawn("--help", fakes=["commands", "thief", "twin_a", "twin_b"], FST_FAKE_MARK=str(mark))
    assert done.status == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "hello See `fst hello --help` (fst-fake-commands 1.0)." in lines
    assert "twin See `fst twin --help` (fst-fake-twin-a 1.0)." in lines
    assert "twin See `fst twin --help` (fst-fake-twin-b 2.0)." in lines
    assert "Bad/Name" not in done.out
    assert not mark.exists()


def test_a_command_of_a_plugin_runs(tmp_path):
    mark = tmp_path / "imported"
    done = spawn("hello", "world", fakes=["commands"], FST_FAKE_MARK=str(mark))
    assert (done.status, done.out, done.err) == (0, "hello world\n", "")
    assert mark.exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "AttributeError: module 'fst_fake_commands' has no attribute 'absent'"),
        ("gone", "ModuleNotFoundError: No module named 'fst_fake_no_such_module'"),
        ("not-a-command", "not a click.Command"),
    ],
)
def test_a_broken_command_is_an_error_only_when_it_runs(with_fakes, fst, name, reason):
    with_fakes("commands")
    assert fst("--help").status == 0
    done = fst(name)
    assert done.status == 1
    assert done.err == f"error: command '{name}' of fst-fake-commands 1.0 is broken: {reason}\n"


def test_a_bundled_command_cannot_be_taken(with_fakes, fst):
    with_fakes("thief")
    assert "fst-fake-thief" not in fst("--help").out
    assert "no such file" in fst("check", "absent.toml").err


def test_a_command_that_two_distributions_offer_is_an_error_when_it_runs(with_fakes, fst):
    with_fakes("twin_a", "twin_b")
    done = fst("twin")
    assert done.status == 2
    assert done.err == (
        "error: command 'twin' is offered by fst-fake-twin-a 1.0 and fst-fake-twin-b 2.0. "
        "Uninstall one.\n"
    )


# how a command ends


@pytest.mark.parametrize(
    ("how", "status", "told"),
    [
        ("user", 2, "error: no such thing\n"),
        ("work", 1, "error: the work failed\n"),
        ("control", 1, "error: red \\x1b[31m and \\u202e back\n"),
        ("disk", 1, f"error: a/file: {os.strerror(errno.ENOSPC)}\n"),
        ("interrupt", 130, "\n"),
        ("exit", 7, ""),
    ],
)
def test_an_error_is_one_line_and_a_status(with_fakes, fst, how, status, told):
    with_fakes("commands")
    done = fst("fail", how)
    assert (done.status, done.out, done.err) == (status, "", told)


def test_a_mistake_in_a_program_keeps_its_traceback():
    done = spawn("fail", "mistake", fakes=["commands"])
    assert done.status == 1
    assert "Traceback" in done.err
    assert "RuntimeError: a mistake in a program" in done.err


def test_several_problems_are_told_below_each_other(fst, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("[runn]\n[modle]")
    done = fst("check", path)
    assert done.status == 2
    assert done.err == (
        f"{path} has 2 problems:\n"
        "  [runn]: unknown table. Did you mean 'run'?\n"
        "  [modle]: unknown table. Did you mean 'model'?\n"
    )


def started(*arguments):
    """A process in which `fst wait` runs."""
    process = subprocess.Popen(
        arguments_of("wait", *arguments),
        env=environment_of(["commands"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "waiting\n"
    return process


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unwinds_what_was_begun_and_is_the_status(tmp_path, number):
    mark = tmp_path / "mark"
    with started(mark) as process:
        assert mark.exists()
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert err.strip() == ""
    assert not mark.exists()


def test_output_that_nobody_reads_any_more_is_no_error():
    process = subprocess.Popen(
        arguments_of("list-plugins", "--json"),
        env=environment_of(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=10) == 1
    assert err == b""


def test_what_the_terminal_cannot_show_is_replaced():
    done = subprocess.run(
        arguments_of("hello", "ё"),
        env=environment_of(["commands"], PYTHONIOENCODING="latin-1"),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0
    assert done.stdout.strip() == b"hello ?"


def test_control_characters_are_written_out():
    assert printable("a\tb\nc\x1b[0m\u202e\udc80ё") == "a\\tb\nc\\x1b[0m\\u202e\\udc80ё"
