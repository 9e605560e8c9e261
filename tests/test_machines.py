"""Old, small and locked machines: each is made of this one, in a process of its own."""

import functools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import elman
from elman.backends import native

COMPILED = [name for name in elman.available_backends() if name != "numpy"]

# Inputs are drawn without the system's mathematics, which differs between processors.
COMPUTING = """
import hashlib, os, signal, threading
import numpy as np
import elman
from elman import backends
from elman.backends import native

SMALL, ROWS, COLUMNS = (9, 3, 2, 5), (4, 700, 16, 64), (30, 2, 8, 1500)  # T, B, I, H; what many threads divide

def digest(backend, *sizes):
    "Of all bits of layers, forward and backward."
    bits = hashlib.sha256()
    for T, B, I, H in sizes:
        rnn = elman.RNN(I, H, seed=0, backend=backend)
        y, h_n, pullback = rnn.vjp(np.random.default_rng(0).random((T, B, I), np.float32) - np.float32(0.5))
        d_x, d_h_0, gradients = pullback(y, h_n)
        for array in (y, h_n, d_x, d_h_0, *gradients.values()):
            bits.update(array.tobytes())
    return bits.hexdigest()

def losses(backend):
    model = elman.SequenceModel(elman.Tokens(9), elman.Categories(9), hidden_size=20, seed=0, backend=backend)
    x = np.arange(60).reshape(12, 5) % 9
    return [float(model.train_step(x, (x + 1) % 9, optimizer=elman.Adam(0.1))) for _ in range(5)]
"""


def start(program: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program after COMPUTING, in an environment that says nothing of threads and instruction sets itself."""
    silent = {name: value for name, value in os.environ.items() if not name.startswith(("ELMAN_", "OMP_"))}
    done = subprocess.run(
        [*(command or [sys.executable]), "-c", COMPUTING + program],
        env=silent | environment,
        capture_output=True,
        text=True,
        timeout=300,  # where the kernels are yet to be compiled by Numba; else a second or two
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done


def words(program: str, *command: str, **environment: str) -> list[str]:
    return start(program, *command, **environment).stdout.split()


@functools.cache
def expected() -> str:
    """The digest on one thread, which is that of either compiled backend on this machine's best instruction set."""
    (digest,) = words("print(digest('cython', SMALL, ROWS, COLUMNS))", ELMAN_NUM_THREADS="1")
    return digest


@pytest.mark.parametrize("backend", COMPILED)
def test_none_of_the_newer_instruction_sets(backend: str):
    program = f"print(backends.get({backend!r}).instruction_set(), *losses({backend!r}))"
    chosen, *losses = words(program, ELMAN_ISA="baseline")
    assert chosen == "baseline"
    reference = words("print(*losses('numpy'))")
    assert [*map(float, losses)] == pytest.approx([*map(float, reference)], rel=1e-4)
    assert float(losses[-1]) < float(losses[0]) / 2, "it learns"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="emulates processors of this kind")
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs an emulator: apt install qemu-user")
@pytest.mark.parametrize(("processor", "best"), [("Nehalem", "baseline"), ("Haswell", "avx2")])
def test_old_processors(processor: str, best: str):
    """The best of what they have is found, and nothing else is executed, which they would not survive."""
    program = "print(native.instruction_set(), digest('cython', SMALL, ROWS))"
    emulated = words(program, "qemu-x86_64", "-cpu", processor, sys.executable)
    assert emulated[0] == best
    if best in native.instruction_sets():
        assert emulated == words(program, ELMAN_ISA=best)


needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity here")


@needs_affinity
@pytest.mark.parametrize("backend", COMPILED)
def test_one_cpu_of_several(backend: str):
    program = "os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
    program += f"print(elman.get_num_threads(), digest({backend!r}, SMALL, ROWS, COLUMNS), elman.get_num_threads())"
    assert words(program) == ["1", expected(), "1"]


@needs_affinity
@pytest.mark.parametrize("backend", COMPILED)
def test_many_threads_on_two_cpus(backend: str):
    program = "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])\nelman.set_num_threads(64)\n"
    program += f"print(digest({backend!r}, SMALL, ROWS, COLUMNS))\n"
    program += "print(*(native.plan(*sizes, is_backward=True)['threads'] for sizes in (ROWS, COLUMNS)))"
    digest, *used = words(program)
    assert digest == expected()
    assert min(map(int, used)) > 2, "so that they have to wait for one another"


@pytest.mark.skipif(sys.platform == "win32", reason="where Numba asks the system, not variables, for a user's folder")
def test_nowhere_to_write(tmp_path: Path):
    """Files stand where folders would have to, as nothing else stops root."""
    package, file = tmp_path / "elman", tmp_path / "file"
    shutil.copytree(Path(elman.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(native.__file__, package / "backends")  # which an editable installation has elsewhere
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()
    file.touch()
    program = "print(elman.__file__, losses('cython') == losses('cython'))\n"
    if "numba" in COMPILED:  # of which this is quick to compile
        program += "print(*(backends.get('numba').clip_norm(np.ones(9, real), max_norm=1.0) for real in 'fd'))"
    done = start(
        program,
        *(sys.executable, "-S", "-W", "always"),  # without site, so that no editable installation is found first
        PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
        **dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), str(file)),
    )
    with_numba = ["3.0", "3.0"] * ("numba" in COMPILED)
    assert done.stdout.split() == [str(package / "__init__.py"), "True", *with_numba]
    assert done.stderr.count("Warning") == done.stderr.count("set NUMBA_CACHE_DIR") == ("numba" in COMPILED)


@pytest.mark.parametrize("backend", COMPILED)
def test_small_stacks(backend: str):
    """Of 256 KiB, as some systems give threads; kernels keep what is large elsewhere."""
    pytest.importorskip("resource", reason="there are no limits of this kind here")
    program = f"""
import resource
elman.set_num_threads(2)
SIZE = 256 * 1024
resource.setrlimit(resource.RLIMIT_STACK, (SIZE, resource.getrlimit(resource.RLIMIT_STACK)[1]))
threading.stack_size(SIZE)
compute = lambda: print(digest({backend!r}, SMALL, ROWS, COLUMNS))
thread = threading.Thread(target=compute)
thread.start()
thread.join()
compute()
"""
    assert words(program) == [expected()] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("backend", COMPILED)
def test_forks(backend: str):
    """A child has none of the threads of its parent, and starts its own; the parent keeps them."""
    program = f"""
elman.set_num_threads(2)
compute = lambda: digest({backend!r}, SMALL, ROWS, COLUMNS)
before = compute()
child = os.fork()
if child == 0:
    signal.alarm(60)  # rather than wait for threads that are not there
    os._exit(compute() != before)
status = os.waitpid(child, 0)[1]
print(before, status, compute())
"""
    assert words(program) == [expected(), "0", expected()]
