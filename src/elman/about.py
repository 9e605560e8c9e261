"""A summary of what elman runs with on this machine, for bug reports."""

from __future__ import annotations

import sys

import numpy as np

from elman import backends
from elman.threads import get_num_threads


def show_config() -> None:
    """Print versions, backends, instruction set and threads: what a bug report should contain.

    Raises
    ------
    ValueError
        If ELMAN_BACKEND, ELMAN_ISA or ELMAN_NUM_THREADS is not what it should be; then nothing is printed.
    """
    import importlib.metadata  # not at the top: it would be a third of the time of `import elman`

    available, current = backends.available(), backends.current()
    instruction_set = backends.get("cython").instruction_set() if "cython" in available else "NumPy's own"
    try:
        numba = importlib.metadata.version("numba")  # without the second that importing it takes
    except importlib.metadata.PackageNotFoundError:
        numba = "not installed"
    n_threads = get_num_threads()
    print(f"elman            {importlib.metadata.version('elman')}")
    print(f"python           {sys.version.split()[0]} on {sys.platform}")
    print(f"numpy            {np.__version__}")
    print(f"numba            {numba}")
    print(f"backends         {', '.join(available)}")
    print(f"default backend  {current}")
    print(f"instruction set  {instruction_set}")
    print(f"threads          {n_threads}")
