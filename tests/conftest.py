import contextlib
import itertools
import signal
import zlib
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

import elman.backends
from elman.backends import native, reference

# Scripts, and what needs other packages
collect_ignore = ["decisions.py", "models/trained_by_ranks.py"]
SCRIPTS = "deviations", "keras_own", "onnx_graphs", "onnx_models", "programs"
collect_ignore += [f"bridges/{name}.py" for name in SCRIPTS]

SETS = native.instruction_sets()
COMPILED = [name for name in elman.backends.available() if name != "numpy"]


@contextlib.contextmanager
def _using(instruction_set: str) -> Iterator[None]:
    before = native.instruction_set()
    native.use_instruction_set(instruction_set)
    try:
        yield
    finally:
        native.use_instruction_set(before)


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine in turn, which compiled backends use until the test ends."""
    with _using(request.param):
        yield request.param


@pytest.fixture(params=[("numpy",), *itertools.product(COMPILED, SETS)], ids="-".join)
def everywhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of every backend in turn, and of a compiled one on every instruction set; NumPy has its own."""
    with _using(request.param[1]) if request.param[1:] else contextlib.nullcontext():
        yield request.param[0]


@pytest.fixture(params=elman.backends.available(), scope="session")
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """Every backend in turn."""
    return elman.backends.get(request.param)


@pytest.fixture
def compiled(backend: ModuleType) -> ModuleType:
    """Every backend whose bits are promised (docs/design.md, numerics)."""
    if backend is reference:
        pytest.skip("NumPy's sums depend on shapes: bits are promised for compiled backends only")
    return backend


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on nothing but the test's name."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def threads():
    """`elman.set_num_threads`, undone after the test."""
    before = elman.get_num_threads()
    yield elman.set_num_threads
    elman.set_num_threads(before)


@pytest.fixture(params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Two processes of each kind of cluster that joblib sends work to, by the name that joblib has for it."""
    if request.param == "dask":
        distributed = pytest.importorskip("distributed")
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as workers,
            distributed.Client(workers),
        ):
            yield "dask"
    else:
        ray = pytest.importorskip("ray", reason="CONTRIBUTING.md has the command with Ray")
        from ray.util.joblib import register_ray

        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or it writes a token to the user's home
        register_ray()
        with ray.init(num_cpus=2, include_dashboard=False):
            yield "ray"


@pytest.fixture
def usual_handler() -> Iterator[None]:
    """Where tests run in the background, SIGINT may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
