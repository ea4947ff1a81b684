"""The contracts over all components of `fst_kit_fakes`: run by `tests/testing/test_contracts.py`."""

import asyncio
import socket

from fst_kit_fakes import FAKES, component_name

import fst_core.testing


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_PORT = _free_port()


async def _ask(self, prompt):
    reader, writer = await asyncio.open_connection("127.0.0.1", _PORT)
    try:
        writer.write(f"{prompt}\n".encode())
        return (await reader.read()).decode()
    finally:
        writer.close()


def _write(self, folder):
    (folder / "poems").mkdir()
    (folder / "poems/a.txt").write_text("one")
    (folder / "poems/b.txt").write_text("two")
    (folder / "poems/c.txt").write_text("three")


def _change(self, folder):
    (folder / "poems/b.txt").write_text("changed")


_OWN = {
    "reader": {"settings": {"folder": "poems"}, "write": _write, "change": _change},
    "sampler": {"overrides": {"temperature": 2.0}},
    "frontend": {"settings": {"port": _PORT}, "ask": _ask},
    "DeafFrontend": {"seconds": 1.0},
    "StubbornFrontend": {"seconds": 1.0},
}
"""What the contracts of a kind, or of one component, say beside its name."""

for _kind, _classes in FAKES.items():
    _contract = getattr(fst_core.testing, f"{_kind.capitalize()}Contract")
    for _name in _classes:
        _own = {**_OWN.get(_kind, {}), **_OWN.get(_name, {})}
        _body = {"use": component_name(_name), "__module__": __name__, **_own}
        globals()[f"Test{_name}"] = type(f"Test{_name}", (_contract,), _body)
    del _contract
