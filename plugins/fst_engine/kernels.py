"""Kernels: what decode.cpp computes, built by the machine's own compiler when it is first asked for."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import torch

from fst_engine.precision import cpu_flags

__all__ = ["FEW", "KERNEL_DTYPES", "WIDEST", "kernel", "load_kernels"]

FEW: Final = {torch.float32: 4, torch.bfloat16: 16}
"""For so many positions at most our products are as fast as oneDNN's, and nobody is waited for."""
KERNEL_DTYPES: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
"""The dtypes for which there is each kernel, and how its name ends."""
WIDEST: Final = 256
"""The largest head_dim of decode.cpp."""
_LOG: Final = logging.getLogger(__name__)
_SOURCE: Final = Path(__file__).with_name("decode.cpp")
_COMPILERS: Final = ("c++", "g++", "clang++")
_FLAGS: Final = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Sums may be taken in any order, as vectors want it; NaN and infinity stay what they are.
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
_POINTER, _COUNT, _REAL, _THREADS = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_ARGUMENTS: Final = {
    "attend": [_POINTER] * 4 + [_COUNT] * 3 + [_POINTER] * 2 + [_COUNT] * 6 + [_REAL, _THREADS],
    "norm": [_POINTER] * 4 + [_COUNT] * 2 + [_REAL, _THREADS],
    "rotate": [_POINTER] * 5 + [_COUNT] * 5 + [_REAL, _THREADS],
    "product": [_POINTER] * 4 + [_COUNT] * 3 + [_THREADS],
    "pass": [_POINTER] * 3 + [_COUNT] + [_POINTER] * 2 + [_COUNT] + [_POINTER] * 3 + [_THREADS],
    "gate": [_POINTER] * 2 + [_COUNT] * 2 + [_THREADS],
}
_SLOWER: Final = "the engine computes with torch alone, and slower"
_SECONDS: Final = 60.0
"""A compiler that takes longer is not waited for."""


@functools.cache
def load_kernels() -> ctypes.CDLL | None:
    """Return the library of decode.cpp, built once a machine; None where it cannot be built."""
    named = shlex.split(os.environ.get("CXX", ""))
    compiler = next(filter(None, map(shutil.which, named[:1] or _COMPILERS)), None)
    if compiler is None:
        names = ", ".join(named[:1] or _COMPILERS)
        _LOG.warning("there is no C++ compiler (%s): %s", names, _SLOWER)
        return None
    command = [compiler, *named[1:], *_FLAGS, str(_SOURCE)]
    try:
        library = ctypes.CDLL(str(_built(command)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _LOG.warning("%s cannot be built, %s: %s", _SOURCE.name, _SLOWER, error)
        return None
    for name, arguments in _ARGUMENTS.items():
        for dtype in KERNEL_DTYPES.values():
            kernel = getattr(library, f"{name}_{dtype}")
            kernel.argtypes, kernel.restype = arguments, None
    return library


def kernel(name: str, dtype: torch.dtype) -> Any:
    """Return the kernel for numbers of a dtype, where the library of decode.cpp is."""
    return getattr(load_kernels(), f"{name}_{KERNEL_DTYPES[dtype]}")


def _built(command: list[str]) -> Path:
    """Return the library that a command builds, which is built unless it is there already, and sound.

    Its name ends with the digest of what is in it: to load half a library would end the process.
    """
    # What is built suits one processor; a home directory may be that of several.
    parts = _SOURCE.read_text("utf-8"), command[:-1], platform.machine(), sorted(cpu_flags())
    directory, name = _cache_directory(), f"decode-{_digest(repr(parts).encode())}"
    for built in directory.glob(f"{name}-*.so"):
        if built.stem == f"{name}-{_digest(built.read_bytes())}":
            return built
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        fresh = Path(temporary) / "decode.so"
        subprocess.run(
            [*command, "-o", str(fresh)], check=True, capture_output=True, timeout=_SECONDS
        )
        built = directory / f"{name}-{_digest(fresh.read_bytes())}.so"
        fresh.replace(built)
    return built


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _cache_directory() -> Path:
    """Return the directory of this user's built kernels.

    Raises:
        OSError: there is none, or somebody else could write there.
        RuntimeError: this user has no home.
    """
    home = os.environ.get("XDG_CACHE_HOME")
    directory = (Path(home) if home else Path.home() / ".cache") / "fst"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
        raise PermissionError(f"{directory} is not this user's alone")
    return directory
