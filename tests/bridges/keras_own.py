"""Keras's own tests of SimpleRNN, with elman.keras.SimpleRNN in its place.

$ KERAS_BACKEND=torch python tests/bridges/keras_own.py [DIRECTORY]    # or jax

They are those that the keras package brings along, or those in a directory that has keras/src/layers/rnn/*_test.py. It
prints how many passed, and how often the kernels ran, and exits 1 where a test failed or the kernels never ran.
"""

import sys
from pathlib import Path

import keras
import keras.src.layers.rnn.simple_rnn
import pytest

import elman.keras

FILES = ("simple_rnn_test.py", "bidirectional_test.py", "rnn_test.py", "time_distributed_test.py")


class Outcomes:
    """A plugin of pytest that counts."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.skipped:
            self.of[report.outcome] = self.of.get(report.outcome, 0) + 1


def swap() -> None:
    """Everywhere in Keras where the class is known, elman's is from now on."""
    theirs = keras.layers.SimpleRNN
    for module in [module for name, module in sys.modules.items() if name.startswith("keras")]:
        for name in [name for name, thing in vars(module).items() if thing is theirs]:
            setattr(module, name, elman.keras.SimpleRNN)
    if keras.backend.backend() == "jax":  # the tests' sequences are too short to gain
        from elman.keras import on_jax

        on_jax.LEAST_STEPS = on_jax.LEAST_STATES = 0


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(keras.__file__).parent.parent
    files = [root / "keras/src/layers/rnn" / name for name in FILES]
    swap()
    outcomes = Outcomes()
    failed = pytest.main(["-q", "-p", "no:cacheprovider", "-c", "/dev/null", *map(str, files)], [outcomes])
    calls = elman.keras.kernel_calls()
    print(f"Keras {keras.__version__} on {keras.backend.backend()}: {outcomes.of}, {calls}")
    return int(bool(failed) or not calls.forward)


if __name__ == "__main__":
    sys.exit(main())
