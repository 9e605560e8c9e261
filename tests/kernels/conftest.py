from types import ModuleType

import pytest

import elman.backends


@pytest.fixture
def backend(everywhere: str) -> ModuleType:
    """Every backend in turn, the compiled ones on every instruction set: kernels differ in these."""
    return elman.backends.get(everywhere)
