import zlib
from types import ModuleType

import numpy as np
import pytest

import elman.backends
from elman.backends import reference


@pytest.fixture(params=elman.backends.available(), scope="session")
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """Every backend in turn."""
    return elman.backends.get(request.param)


@pytest.fixture
def compiled(backend: ModuleType) -> ModuleType:
    """Every backend whose bits are promised (DESIGN.md, section 7)."""
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
