"""Kernels: what decode.cpp computes, built by the machine's own compiler when it is first asked for."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from fst_engine.precision import cpu_flags

__all__ = ["load_kernels"]

_LOG: Final = logging.getLogger(__name__)
_SOURCE: Final = Path(__file__).with_name("decode.cpp")
_COMPILERS: Final = ("c++", "g++", "clang++")
_FLAGS: Final = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Sums may be taken in any order, as vectors want it; NaN and infinity stay what they are.
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
_SLOWER: Final = "attention is torch's, and slower"
_SECONDS: Final = 60.0
"""A compiler that takes longer is not waited for."""


@functools.cache
def load_kernels() -> ctypes.CDLL | None:
    """Return the library of decode.cpp, built once a machine; None where it cannot be built."""
    names = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        _LOG.warning("there is no C++ compiler (%s): %s", ", ".join(names), _SLOWER)
        return None
    # What is built suits one processor; a home directory may be that of several.
    parts = (_SOURCE.read_text("utf-8"), compiler, *_FLAGS, platform.machine(), sorted(cpu_flags()))
    name = f"decode-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.so"
    try:
        directory = _cache_directory()
        built = directory / name
        if not built.exists():
            with tempfile.TemporaryDirectory(dir=directory) as temporary:
                fresh = Path(temporary) / name
                command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(fresh)]
                subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
                fresh.replace(built)
        library = ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.warning("%s cannot be built, %s: %s", _SOURCE.name, _SLOWER, error)
        return None
    number, address = ctypes.c_int64, ctypes.c_void_p
    for kernel in (library.attend_float32, library.attend_bfloat16):
        kernel.argtypes = [address] * 5 + [number] * 7 + [ctypes.c_float, ctypes.c_int]
        kernel.restype = None
    return library


def _cache_directory() -> Path:
    """Return the directory of this user's built kernels."""
    home = os.environ.get("XDG_CACHE_HOME")
    directory = (Path(home) if home else Path.home() / ".cache") / "fst"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory
