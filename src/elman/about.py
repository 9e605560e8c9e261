"""A summary of what elman runs with on this machine, for bug reports."""

from __future__ import annotations

import sys

import numpy as np

from elman import backends
from elman.threads import get_num_threads


def instruction_set() -> str:
    """That of the compiled kernels."""
    return backends.get("cython").instruction_set() if "cython" in backends.available() else "NumPy's own"


def version() -> str:
    """That of the package, for modules that it imports."""
    return str(sys.modules["elman"].__version__)


def show_config() -> None:
    """Print versions, backends, instruction set and threads: what a bug report should contain.

    Raises
    ------
    ValueError
        If ELMAN_BACKEND, ELMAN_ISA or ELMAN_NUM_THREADS is not what it should be; then nothing is printed.
    """
    import importlib.metadata  # not at the top: it would be a third of the time of `import elman`

    try:
        numba = importlib.metadata.version("numba")  # without the second that importing it takes
    except importlib.metadata.PackageNotFoundError:
        numba = "not installed"
    facts = {
        "elman": version(),
        "python": f"{sys.version.split()[0]} on {sys.platform}",
        "numpy": np.__version__,
        "numba": numba,
        "backends": ", ".join(backends.available()),
        "default backend": backends.current(),
        "instruction set": instruction_set(),
        "threads": get_num_threads(),
    }
    print(*(f"{name:<16} {fact}" for name, fact in facts.items()), sep="\n")
