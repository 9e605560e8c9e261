"""Who is measured: elman's own backends and, each in a file of its own, other ways to compute the same.

To add a peer: a line in `PEERS`, and a file here of that name with `prepare`, from a `Case` and a number of threads to
a `Program`, written as the peer's users write it. It imports its framework when a case is prepared, no sooner; what
that reads from the environment meanwhile is in its `ENVIRONMENT`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from types import ModuleType

from elman.benchmark.program import Contestant

PEERS = {  # with the packages that each needs, whose names `import` and `pip install` both know
    "torch": ("torch",),
    "elman.torch": ("torch",),
    "jax": ("jax",),
    "elman.keras": ("keras", "torch"),
    "keras": ("keras", "tensorflow"),
    "onnxruntime": ("onnx", "onnxruntime"),
    "numpy-script": ("numpy",),
}


def _file(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name.replace('.', '_').replace('-', '_')}")


def peer(name: str) -> Contestant:
    return Contestant(name, PEERS[name], _file(name).prepare)


def missing() -> dict[str, str]:
    """The peers that are not installed, and the command that installs each.

    Examples
    --------
    >>> "numpy-script" in missing()
    False
    """
    return {
        name: f"pip install {' '.join(packages)}"
        for name, packages in PEERS.items()
        if not all(map(importlib.util.find_spec, packages))
    }


def environment(n_threads: int, peers: Iterable[str] = PEERS) -> dict[str, str]:
    """Variables that tell frameworks, if they are set before the first import, to use n threads and to be quiet.

    Of two peers that want a variable otherwise, the later one in `PEERS` gets it.
    """
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")  # the last one is XLA's
    variables = dict.fromkeys(threads, str(n_threads))
    for name in sorted(peers, key=list(PEERS).index):
        variables |= getattr(_file(name), "ENVIRONMENT", {})
    return variables
