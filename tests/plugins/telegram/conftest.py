"""Tests of the bot are coroutines; all of them run in one event loop, and so share servers and bots."""

from __future__ import annotations

import asyncio
import inspect

import pytest


@pytest.fixture(scope="session")
def runner():
    """The event loop of these tests; nothing in it goes on between two of them."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    coroutine = pyfuncitem.function(**{name: pyfuncitem.funcargs[name] for name in names})
    pyfuncitem._request.getfixturevalue("runner").run(coroutine)
    return True
