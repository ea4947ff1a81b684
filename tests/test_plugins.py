"""Plugins: what is found, what a broken or a hostile one can do, and how names are looked up."""

from __future__ import annotations

import os
import sys

import pytest
from fakes import spawn, with_fakes_fixture  # noqa: F401  # a fixture is used by its name

from fst_core import Component
from fst_core.artefacts import resolve
from fst_core.errors import (
    AmbiguousComponent,
    ArtefactError,
    MissingDependency,
    MissingPlugin,
    PluginError,
    UnknownComponent,
)
from fst_core.plugins import DISTRIBUTION, registry

BUNDLED = {
    "bytes",
    "constraints",
    "documents",
    "engine",
    "evaluation",
    "executors",
    "fastapi",
    "files",
    "gpt2",
    "lightning",
    "ray",
    "samplers",
    "telegram",
    "transformers",
}


def problem(found, plugin):
    (only,) = [p for p in found.problems if p.plugin == plugin]
    return only


# discovery


def test_every_bundled_plugin_loads_and_offers_something(with_fakes):
    found = with_fakes()
    assert found.problems == []
    assert {o.plugin for o in found.offers if o.distribution == DISTRIBUTION} == BUNDLED


def test_a_plugin_of_another_distribution_is_found_with_its_version(with_fakes):
    offer = with_fakes("toy").find("tokenizer", "toy")
    assert (offer.address, offer.provider) == ("toy/toy", "fst-fake-toy 1.2")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "RuntimeError: the moon is full"),
        ("syntax", "SyntaxError: "),
        ("exits", "SystemExit: 0"),
        ("outcome", "Skipped: not today"),
    ],
)
def test_a_broken_plugin_is_a_problem_and_the_others_load(with_fakes, name, reason):
    found = with_fakes(name, "toy")
    broken = problem(found, name)
    assert (broken.distribution, broken.version) == (f"fst-fake-{name}", "1.0")
    assert broken.reason.startswith(reason)
    assert "\n" not in broken.reason
    assert found.find("tokenizer", "toy")
    assert {o.plugin for o in found.offers} == {*BUNDLED, "toy"}


def test_ctrl_c_while_plugins_load_is_not_a_problem_of_a_plugin(with_fakes):
    with pytest.raises(KeyboardInterrupt):
        with_fakes("interrupted")


def test_what_a_plugin_prints_does_not_mix_with_the_output(with_fakes, capsys):
    with_fakes("prints").find("tokenizer", "prints")
    assert capsys.readouterr() == ("", "hello from a plugin\n")


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        ("misspelt", "unknown hook 'fst_tokenisers'"),
        ("argument", "Argument(s) {'loss'} are declared in the hookimpl"),
        ("strings", "'fst_fake_hooks:Tokenizer', which is not a Component"),
        ("twice", "fst_readers offers 'twice' twice"),
        ("target", "'os.system' is not of the form 'package.module:Class'"),
    ],
)
def test_a_wrong_hook_is_a_problem_that_says_what_is_wrong(with_fakes, plugin, reason):
    found = with_fakes("hooks", "toy")
    assert reason in problem(found, plugin).reason
    assert not any(o.distribution == "fst-fake-hooks" for o in found.offers)
    watching = [each.plugin_name for each in found.hooks.hook.fst_metrics.get_hookimpls()]
    assert not any("hooks" in name for name in watching)
    assert "fst-fake-toy:toy" in watching


def test_a_lazy_name_of_a_hook_module_is_left_alone(with_fakes):
    found = with_fakes("lazy")
    assert found.problems == []
    assert found.find("reader", "lazy")


def test_a_damaged_distribution_is_a_problem_and_the_others_load():
    done = spawn("list-plugins", fakes=["damaged", "nameless", "toy"])
    assert done.status == 0
    assert done.err == ""
    assert "fst-fake-toy 1.2" in done.out
    assert done.out.count("a damaged distribution in") == 2


# switches


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [("", set()), ("toy", {"toy"}), (" toy , prints", {"toy", "prints"}), ("bytes", set())],
)
def test_fst_plugins_allows_only_those_it_names(with_fakes, monkeypatch, allowed, expected):
    with_fakes()
    monkeypatch.setenv("FST_PLUGINS", allowed)
    found = with_fakes("toy", "prints", "raises")
    assert {o.plugin for o in found.offers} == BUNDLED | expected
    assert found.problems == []
    assert ("fst_fake_toy" in sys.modules) == ("toy" in expected)


def test_a_component_of_a_plugin_that_is_not_allowed_is_unknown(with_fakes, monkeypatch):
    with_fakes()
    monkeypatch.setenv("FST_PLUGINS", "")
    found = with_fakes("toy")
    with pytest.raises(UnknownComponent, match=r"unknown tokenizer 'toy'\. Installed: bpe, bytes"):
        found.find("tokenizer", "toy")


def test_fst_strict_plugins_raises_the_first_problem(with_fakes, monkeypatch):
    monkeypatch.setenv("FST_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"'raises' of fst-fake-raises 1\.0: RuntimeError"):
        with_fakes("raises")


def test_fst_trace_hooks_prints_the_calls(with_fakes, monkeypatch, capsys):
    monkeypatch.setenv("FST_TRACE_HOOKS", "1")
    with_fakes("toy")
    assert "fst-fake-toy:toy fst_readers()\n" in capsys.readouterr().err


# names


def test_the_name_of_a_bundled_plugin_cannot_be_taken(with_fakes):
    found = with_fakes("thief")
    taken = problem(found, "files")
    assert taken.distribution == "fst-fake-thief"
    assert taken.reason.startswith(f"the name belongs to {DISTRIBUTION} ")
    assert found.find("reader", "files/text").distribution == DISTRIBUTION


def test_a_bundled_component_is_not_replaced_by_another_of_its_name(with_fakes):
    found = with_fakes("thief")
    with pytest.raises(AmbiguousComponent) as raised:
        found.find("reader", "text")
    assert f"{DISTRIBUTION} {found.find('reader', 'files/text').version}" in str(raised.value)
    assert "fst-fake-thief 1.0 (as 'thief/text')" in str(raised.value)
    assert found.find("reader", "thief/text").distribution == "fst-fake-thief"


def test_two_offers_of_one_name_are_an_error_only_where_the_name_is_used(with_fakes):
    found = with_fakes("twin_a", "twin_b")
    assert found.problems == []
    with pytest.raises(AmbiguousComponent) as raised:
        found.find("reader", "twin")
    assert str(raised.value) == (
        "reader 'twin' is offered by fst-fake-twin-a 1.0 (as 'twin-a/twin') and "
        "fst-fake-twin-b 2.0 (as 'twin-b/twin'). Write the full address."
    )
    assert found.find("reader", "twin-a/twin").version == "1.0"
    assert found.find("reader", "twin-b/twin").version == "2.0"
    assert found.find("reader", "text")


def test_two_distributions_with_one_plugin_name_leave_no_address_to_choose_by(with_fakes):
    found = with_fakes("twin_a", "twin_b")
    for name in ("shared", "shared/shared"):
        with pytest.raises(AmbiguousComponent, match=r"twin-a 1\.0 .*twin-b 2\.0 .*Uninstall one"):
            found.find("sampler", name)


@pytest.mark.parametrize("plugin", ["byt\u0435s", "Loud"])
def test_a_plugin_with_a_strange_name_is_not_imported(with_fakes, plugin):
    found = with_fakes("names")
    assert "does not match" in problem(found, plugin).reason


@pytest.mark.parametrize(("plugin", "name"), [("homoglyph", "byt\u0435s"), ("path", "../x")])
def test_a_component_with_a_strange_name_is_a_problem(with_fakes, plugin, name):
    assert repr(name) in problem(with_fakes("names"), plugin).reason


@pytest.mark.parametrize(
    "values",
    [
        ("Bytes", "a:B", "A."),
        ("", "a:B", "A."),
        ("a" * 65, "a:B", "A."),
        ("a_b", "a:B", "A."),
        ("a\n", "a:B", "A."),
        ("a", "a.b", "A."),
        ("a", "a:b()", "A."),
        ("a", "../a:B", "A."),
        ("a", "a:B", " "),
        ("a", "a:B", "A.", "settings"),
    ],
)
def test_a_malformed_component_is_refused(values):
    with pytest.raises(ValueError, match=r"match|form|empty"):
        Component(*values)


STRANGE = [
    "os:system",
    "os.path:join",
    "../x",
    "fst_files",
    "files/../text",
    "byt\u0435s",
    "\uff42\uff59\uff54\uff45\uff53",
    "bytes ",
    "BYTES",
    "x" * 10_000,
    "",
    "\x1b[31m",
]


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_selects_nothing_and_imports_nothing(with_fakes, name):
    found = with_fakes("toy")
    found.hint("tokenizer", "")  # which imports the settings
    before = set(sys.modules)
    with pytest.raises(UnknownComponent, match="Installed: bpe, bytes"):
        found.find("tokenizer", name)
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_in_an_artefact_selects_nothing_and_imports_nothing(with_fakes, name):
    with_fakes("toy").hint("tokenizer", "")
    before = set(sys.modules)
    for said in ({"plugin": name, "use": "toy"}, {"plugin": "toy", "use": name}):
        record = {**said, "distribution": "fst-fake-toy", "version": "1.2"}
        with pytest.raises((ArtefactError, MissingPlugin), match="Installed tokenizers: "):
            resolve("tokenizer", record, "here")
    assert set(sys.modules) == before


def test_an_unknown_name_is_told_with_the_nearest_and_with_all(with_fakes):
    with pytest.raises(UnknownComponent) as raised:
        with_fakes("toy").find("tokenizer", "byte")
    assert str(raised.value) == (
        "unknown tokenizer 'byte'. Did you mean 'bytes'? "
        "Installed: bpe, bytes, gpt2, plain, pretrained, toy"
    )


def test_a_name_that_a_broken_plugin_may_have_offered_names_its_distribution_and_version(
    with_fakes,
):
    found = with_fakes("raises", "exits")
    with pytest.raises(UnknownComponent) as raised:
        found.find("tokenizer", "raises/words")
    assert "Plugin 'raises' of fst-fake-raises 1.0 is broken: RuntimeError: the moon" in str(
        raised.value
    )
    assert "exits" not in str(raised.value)
    with pytest.raises(UnknownComponent, match=r"fst-fake-exits 1\.0.*fst-fake-raises 1\.0"):
        found.find("tokenizer", "words")


# components


def test_a_component_is_built_from_its_settings_or_from_nothing(with_fakes):
    found = with_fakes("toy")
    toy = found.find("reader", "toy")
    settings = toy.settings_class()(size=7)
    assert toy.build(settings).settings.size == 7
    plain = found.find("reader", "plain")
    assert plain.settings_class() is None
    assert type(plain.build(None)).__name__ == "Plain"


def test_the_file_of_a_component_is_found_without_importing_it(with_fakes):
    offer = with_fakes("toy").find("reader", "toy")
    assert offer.file().endswith(f"fst_fake_toy{os.sep}parts.py")
    assert "fst_fake_toy.parts" not in sys.modules
    assert with_fakes("needs").find("trainer", "lost").file() is None


def test_a_missing_package_is_told_with_the_line_that_installs_it(with_fakes):
    needy = with_fakes("needs").find("trainer", "needy")
    assert needy.missing() == ["fst_fake_absent"]
    with pytest.raises(MissingDependency) as raised:
        needy.build(None)
    assert str(raised.value) == (
        "trainer 'needy' needs fst_fake_absent. Install it: pip install fst-fake-needs"
    )


def test_a_missing_package_of_a_bundled_plugin_is_told_with_its_extra(with_fakes, monkeypatch):
    monkeypatch.setattr("fst_core.plugins._installed", lambda root: root != "torch")
    with pytest.raises(MissingDependency) as raised:
        with_fakes().find("sampler", "greedy").implementation()
    assert str(raised.value) == (
        "sampler 'greedy' needs torch. Install it: pip install 'full-stack-transformer[samplers]'"
    )


@pytest.mark.parametrize(
    ("name", "attempt", "told"),
    [
        ("lost", "implementation", "ModuleNotFoundError: No module named 'fst_fake_needs_nothing'"),
        ("unset", "settings_class", "AttributeError: module 'json' has no attribute 'no'"),
        ("ends", "implementation", "SystemExit: 0"),
    ],
)
def test_an_import_string_that_leads_nowhere_names_who_wrote_it(with_fakes, name, attempt, told):
    offer = with_fakes("needs").find("trainer", name)
    with pytest.raises(PluginError) as raised:
        getattr(offer, attempt)()
    assert f"trainer 'needs/{name}' of fst-fake-needs 1.0" in str(raised.value)
    assert told in str(raised.value)


def test_the_registry_is_discovered_once(with_fakes):
    assert with_fakes("toy") is registry()
