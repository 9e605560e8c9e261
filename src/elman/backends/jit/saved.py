"""Machine code on disk: what Numba has compiled, read and linked by LLVM alone.

To import Numba takes longer than all else in a process's first call, and only what compiles needs it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding as llvm

from elman.backends import contract, native
from elman.storage import atomic

_HERE = Path(__file__).parent

for _name, _address in native.pool_addresses().items():  # found by name when kernels are linked
    llvm.add_symbol(_name, _address)

# Settings that change no code, such as what a cluster says anew for each job
_OF_NO_CODE = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"}
_engines: list[Any] = []  # with the code in them
_warned = False


def _digest(*parts: Any) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


@functools.cache
def _sources() -> bytes:
    """Of what kernels are made from and call: where that has changed, they are replaced."""
    files = [*sorted(_HERE.rglob("*.py")), Path(contract.__file__), Path(native.__file__)]
    return _digest(*(hashlib.sha256(file.read_bytes()).digest() for file in files))


@functools.cache
def _maker() -> str:
    """Of who makes them for what machine: those of several lie side by side."""
    numba = importlib.util.find_spec("numba")
    if numba is None or numba.origin is None:
        raise ImportError("there is no Numba")
    versions = Path(numba.origin).with_name("_version.py").read_bytes(), llvmlite.__version__
    machine = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_") and k not in _OF_NO_CODE)
    return _digest(_HERE, versions, machine, settings).hex()[:16]


def _places(name: str) -> list[Path]:
    """The files that may hold a function's code, best first."""
    given, user = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folders = [Path(given)] if given else [_HERE / "__pycache__"]
    if not given and os.path.isabs(user):  # else it is where this process happens to be
        folders.append(Path(user, "elman"))
    return [folder / f"{name}-{_maker()}.kernel" for folder in folders]


def read(name: str) -> bytes | None:
    """The code of a function, None where there is none of these sources."""
    for path in _places(name):
        with contextlib.suppress(OSError, ValueError), atomic.open_to_read(path) as file:
            content = file.read()
            sources, digest, code = content[:32], content[32:64], content[64:]
            if hashlib.sha256(code).digest() != digest:
                _warn_once(f"{path} is damaged")
            elif sources == _sources():
                return code
    return None


def write(name: str, code: bytes) -> None:
    """Keep it for the next process, where that is possible."""
    reason = None
    for path in _places(name):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(path, _sources(), hashlib.sha256(code).digest(), code)
        except (OSError, ValueError) as error:
            reason = error
        else:
            return
    _warn_once(str(reason))


def link(name: str, code: bytes) -> int:
    """The address of a function."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(name))


def call(address: int) -> int:
    """What the function at an address returns, an address itself."""
    return int(ctypes.CFUNCTYPE(ctypes.c_int64)(address)())


def _warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        message = f"the numba backend compiles anew in each process: the disk does not keep its code ({reason})"
        warnings.warn(f"{message}; set NUMBA_CACHE_DIR to a folder where it can", RuntimeWarning, stacklevel=2)
