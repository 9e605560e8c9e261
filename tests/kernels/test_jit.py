"""What is particular to the backend "numba": the code it makes, and when it makes it. What it computes is tested in
test_kernels.py, like any backend's."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import elman
from elman import backends
from elman.backends import native
from elman.backends.reference import ACTIVATIONS

from ..cases import READOUT_CASES, make_readout, name
from ..compare import assert_same_bits

jit = pytest.importorskip("elman.backends.jit.backend", reason="there is no Numba for this Python")
from numba import TypingError, njit  # noqa: E402

from elman.backends.jit import entries  # noqa: E402
from elman.backends.jit.gemm import EPILOGUE  # noqa: E402
from elman.backends.jit.simd import Lanes, fma  # noqa: E402
from elman.backends.jit.structs import smaller, stack  # noqa: E402

FIRST_CALLS = """
import numpy as np
from elman import backends
numba = backends.get("numba")
print(*(numba.clip_norm(np.ones(9, real), max_norm=1.0) for real in "fd"))  # quick to compile
"""


def run(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "always", "-c", code],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads the assembly of x86-64")
@pytest.mark.parametrize("real", ["float32", "float64"])
def test_inner_loops_are_vector_multiply_adds(real: str, instruction_set: str):
    if instruction_set == "baseline":
        pytest.skip("the baseline has no fused multiply-add")
    lanes = Lanes(real, *native.vector_of(instruction_set))
    assembly = "".join(entries.compiled(f"test_{what}", lanes, what).get_asm_str() for what in ("own", "gradients"))
    register, suffix = {"avx512": "zmm", "avx2": "ymm"}[instruction_set], {"float32": "ps", "float64": "pd"}[real]
    fused = re.findall(rf"vfmadd\d+{suffix}\s.*%{register}\d+", assembly)
    scalar = re.findall(r"vfmadd\d+s[sd]\b", assembly)
    assert len(fused) > 500  # all tiles' accumulators
    assert not scalar


def test_no_recompilation_for_other_sizes(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    made, make = [], jit._made
    monkeypatch.setattr(jit, "_made", lambda what, *of: made.append(what) or make(what, *of))

    def step(n_steps: int, n_rows: int, n_inputs: int, hidden: int, **options: object) -> None:
        rnn = elman.RNN(n_inputs, hidden, seed=0, backend="numba", **options)  # type: ignore[arg-type]
        y, _, pullback = rnn.vjp(rng.normal(size=(n_steps, n_rows, n_inputs)))
        pullback(y)

    step(2, 3, 4, 5)
    made.clear()
    step(7, 1, 33, 65)
    step(1, 9, 1, 16, bias=False, bidirectional=True, num_layers=2, nonlinearity="relu")
    assert made in ([], [("elman", "relu")])  # of which passes know nothing


@pytest.mark.usefixtures("instruction_set")
@settings(  # which stays what it is from one example to the next
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(1, 80),
    st.sampled_from(["float32", "float64"]), st.sampled_from(list(ACTIVATIONS)),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_same_bits_as_cython(n_steps, n_rows, n_inputs, hidden, dtype, nonlinearity, bidirectional, ragged):
    rng = np.random.default_rng(n_steps * n_rows + hidden)
    x = rng.normal(size=(n_steps, n_rows, n_inputs)).astype(dtype)
    lengths = rng.integers(0, n_steps + 1, n_rows) if ragged else None
    outcomes = []
    for backend in ("numba", "cython"):
        rnn = elman.RNN(n_inputs, hidden, 1, nonlinearity, True, False, 0.0, bidirectional, dtype=dtype, seed=1, backend=backend)  # noqa: E501 # fmt: skip
        for array in rnn.parameters().values():
            array *= 0.1 if nonlinearity == "power" else 1  # or states explode
        y, h_n, pullback = rnn.vjp(x, lengths=lengths)
        d_x, d_h_0, gradients = pullback(np.cos(y), np.sin(h_n))
        outcomes.append([y, h_n, d_x, d_h_0, *gradients.values()])
    for ours, theirs in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(ours.view(f"u{ours.itemsize}"), theirs.view(f"u{theirs.itemsize}"))


@pytest.mark.usefixtures("instruction_set")
def test_training_has_the_same_bits_as_cython(dtype: str, rng: np.random.Generator):
    x, y = rng.integers(0, 30, (2, 20, 13, 7))
    curves, parameters = [], []
    for backend in ("numba", "cython"):
        model = elman.SequenceModel(
            elman.Tokens(30), elman.Categories(30), hidden_size=37, num_layers=2, dtype=dtype, seed=0, backend=backend
        )
        rules = [elman.SGD(0.1, momentum=0.9), elman.Adagrad(0.01), elman.AdamW(0.01)]
        curves.append(
            [model.train_step(x[i], y[i], optimizer=rules[i % 3], clip_norm=0.5) for i in range(12)]
        )  # each optimizer takes every third step
        parameters.append(model.state_dict())
    assert curves[0] == curves[1]
    assert_same_bits(parameters[0], parameters[1])


def test_several_processes_with_one_empty_cache(tmp_path: Path):
    processes = [run(FIRST_CALLS, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    for process in processes:
        assert results(process) == ("3.0 3.0\n", "")
    assert len(list(tmp_path.iterdir())) == 4  # with the tables of tiles
    again = FIRST_CALLS + "import sys\nprint('numba' in sys.modules)\n"
    out, _ = results(run(again, NUMBA_CACHE_DIR=str(tmp_path)))
    assert out == "3.0 3.0\nFalse\n"


def test_code_of_other_sources_is_replaced(tmp_path: Path):
    results(run(FIRST_CALLS, NUMBA_CACHE_DIR=str(tmp_path)))
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for file, content in files.items():
        file.write_bytes(bytes(32) + content[32:])
    assert results(run(FIRST_CALLS, NUMBA_CACHE_DIR=str(tmp_path))) == ("3.0 3.0\n", "")
    assert {file: file.read_bytes()[:32] for file in tmp_path.iterdir()} == {f: c[:32] for f, c in files.items()}


def test_numba_that_is_told_not_to_compile():
    process = run(FIRST_CALLS, NUMBA_DISABLE_JIT="1")
    assert "ImportError: backend 'numba' is not installed here (NUMBA_DISABLE_JIT is set)" in process.communicate()[1]
    assert process.returncode == 1


FROM_MANY_THREADS = """
import threading
import numpy as np
import elman
elman.use_backend("numba")
barrier, sums = threading.Barrier(24), []

def first():
    barrier.wait()
    y, h_n, pullback = elman.RNN(2, 5, seed=0).vjp(np.ones((9, 3, 2)))
    sums.append(float(np.sum(pullback(y)[2]["weight_hh_l0"])))

threads = [threading.Thread(target=first) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(sums), len(set(sums)))
"""


def test_first_calls_from_many_threads_at_once(tmp_path: Path):
    """The second time from the cache, which is so fast that all are at it."""
    for _ in range(2):
        assert results(run(FROM_MANY_THREADS, NUMBA_CACHE_DIR=str(tmp_path))) == ("24 1\n", "")


@pytest.mark.parametrize(
    "damage", [lambda code: code[: len(code) // 2], lambda code: code[:-1] + bytes([code[-1] ^ 1])]
)
def test_a_damaged_cache_is_begun_anew(tmp_path: Path, damage: Any):
    results(run(FIRST_CALLS, NUMBA_CACHE_DIR=str(tmp_path)))
    for i, file in enumerate(tmp_path.iterdir()):
        file.write_bytes(damage(file.read_bytes()) if i % 2 else b"")
    out, warning = results(run(FIRST_CALLS, NUMBA_CACHE_DIR=str(tmp_path)))
    assert out == "3.0 3.0\n"
    assert warning.count("the disk does not keep its code") == 1
    for _ in range(2):
        assert results(run(FIRST_CALLS, NUMBA_CACHE_DIR=str(tmp_path))) == ("3.0 3.0\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_no_room_for_the_cache(tmp_path: Path):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    out, warning = results(run(limit + FIRST_CALLS, NUMBA_CACHE_DIR=str(tmp_path)))
    assert out == "3.0 3.0\n"
    assert warning.count("File too large") == 1


def test_nothing_is_compiled_at_import():
    code = "import sys\nimport elman.backends.jit.backend\nprint('numba' in sys.modules)\n"
    code += "from elman.backends.jit import entries\n"
    code += "print([f for f in entries.FUNCTIONS.values() if f.overloads])\n"
    assert results(run(code))[0] == "False\n[]\n"


@pytest.mark.parametrize(
    "function",
    [
        lambda n: smaller(n, 1.5),  # which would be cut off
        lambda n: fma(n, n, n),  # of what width?
        lambda n: stack(n),  # known too late
    ],
)
def test_intrinsics_refuse_types(function: Any):
    with pytest.raises(TypingError, match=r"No implementation of function Function\(<function (smaller|fma|stack) at"):
        njit("int64(int64)")(function)


def test_instruction_set_is_that_of_the_c_kernels(instruction_set: str):
    assert jit.instruction_set() == native.instruction_set() == instruction_set


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("case", READOUT_CASES, ids=name)
def test_losses_are_those_of_cython(dtype: str, case: dict[str, Any]):
    r = make_readout(**case, dtype=dtype)
    numba, cython = (r.run(backends.get(backend)) for backend in ("numba", "cython"))
    assert_same_bits(numba, cython)


def test_an_epilogue_is_what_c_hands_over():
    """Kernels in C call epilogues of a user's own activation, which Numba compiles."""
    source = (Path(__file__).parents[2] / "csrc" / "gemm.h").read_text(encoding="utf-8")
    body = re.search(r"typedef struct epilogue \{(.*?)\} epilogue;", source, re.DOTALL)
    assert body is not None
    fields = re.sub(r"/\*.*?\*/|\([^)]*\);", "", body[1].replace("(*apply)", "apply"), flags=re.DOTALL)
    assert re.findall(r"(\w+)(?=[,;]|\n)", fields) == list(EPILOGUE.fields)
