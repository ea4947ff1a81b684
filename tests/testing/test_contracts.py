"""The contracts themselves: each passes for a good component, and finds what is wrong with a broken one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fst_core.testing
from fst_core.components import KINDS
from fst_core.plugins import registry

FOLDER = Path(__file__).parent / "fakes"
with pytest.MonkeyPatch.context() as patch:  # other tests must not find it installed
    patch.syspath_prepend(FOLDER)
    from fst_kit_fakes import FAKES

CASES = [(kind, name) for kind, classes in FAKES.items() for name in classes]


class Recorder:
    """A plugin of pytest that keeps what failed, by the class of its test."""

    def __init__(self):
        self.failed = {}
        self.ran = set()

    def pytest_collection_modifyitems(self, items):
        """Of a broken component, run the tests alone that must find what is wrong."""
        expected = {f"Test{name}": FAKES[kind][name] for kind, name in CASES}
        items[:] = [
            item
            for item in items
            if not (named := expected.get(item.cls.__name__)) or item.originalname in named
        ]

    def pytest_runtest_logreport(self, report):
        _, cls, test = report.nodeid.split("::")
        self.ran.add(cls)
        if report.failed:
            self.failed.setdefault(cls, set()).add(test.partition("[")[0])


def run(path):
    recorder = Recorder()
    plain = ["--noconftest", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    pytest.main([str(path), "-q", "--tb=line", "-W", "error", *plain], [recorder])
    return recorder


@pytest.fixture(scope="module", autouse=True)
def installed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        registry.cache_clear()
        yield
    registry.cache_clear()


@pytest.fixture(scope="module")
def recorded():
    return run(FOLDER / "suite.py")


def test_every_kind_has_a_contract_and_a_good_component():
    assert set(FAKES) == set(KINDS)
    for kind in KINDS:
        contract = getattr(fst_core.testing, f"{kind.capitalize()}Contract")
        assert contract.kind == kind
        assert FAKES[kind][f"Good{kind.capitalize()}"] == ()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_contract_finds_what_is_wrong(recorded, kind, name):
    assert f"Test{name}" in recorded.ran
    assert recorded.failed.get(f"Test{name}", set()) == set(FAKES[kind][name])


@pytest.mark.parametrize("kind", KINDS)
def test_every_test_of_a_contract_finds_something(kind):
    contract = getattr(fst_core.testing, f"{kind.capitalize()}Contract")
    own = {name for name in vars(contract) if name.startswith("test_")}
    found = {test for tests in FAKES[kind].values() for test in tests}
    assert own - found == set()


SUBCLASSES = '''
import pytest
from fst_core.testing import ComponentContract, ReaderContract, TokenizerContract

class Good(TokenizerContract):
    use = "good-tokenizer"

class TestByAddress(Good):
    use = "kit-fakes/good-tokenizer"

class TestWithMore(Good):
    texts = ("other texts",)

    @pytest.fixture
    def tokenizer(self):
        return self.build()

    def test_of_its_own(self):
        pass

class TestOverriding(Good):
    def test_damage_is_told(self):
        pass

class TestRemoving(Good):
    test_damage_is_told = None

class Mixin:
    def test_damage_is_told(self):
        pass

class TestMixedIn(Mixin, Good):
    pass

class TestSkipping(Good):
    @pytest.mark.skip(reason="I do not like it")
    def test_damage_is_told(self):
        pass

class TestExcused(Good):
    @pytest.mark.xfail(reason="it cannot be told")
    def test_damage_is_told(self):
        assert False

class TestExcusedWithoutReason(Good):
    @pytest.mark.xfail
    def test_damage_is_told(self):
        assert False

class TestHeavy(TokenizerContract):
    use = "heavy"

class TestWithSettingsOfNothing(Good):
    settings = {"size": 3}
'''  # fmt: skip


def test_a_subclass_may_add_to_a_contract_and_overrides_nothing_silently(tmp_path):
    file = tmp_path / "test_subclasses.py"
    file.write_text(SUBCLASSES)
    recorder = run(file)
    silent = {"test_no_test_of_the_contract_is_overridden"}
    assert recorder.failed == {
        "TestOverriding": silent,
        "TestRemoving": silent,
        "TestMixedIn": silent,
        "TestSkipping": silent,
        "TestExcusedWithoutReason": silent,
        "TestHeavy": {"test_the_hook_module_imports_nothing_heavy"},
        "TestWithSettingsOfNothing": {"test_unknown_settings_are_rejected"},
    }
    assert {"TestByAddress", "TestWithMore", "TestExcused"} <= recorder.ran
    assert not {name for name in recorder.ran if not name.startswith("Test")}


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from fst_core.testing import (
    ComponentContract, ExecutorContract, FrontendContract, ReaderContract, TokenizerContract
)
"""


def test_contracts_of_kinds_without_a_module_need_no_torch():
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchContract"):
        fst_core.testing.NoSuchContract  # noqa: B018  # asking for it is the test
