"""Which backend computes, with how many threads, and what show_config() says about it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import elman
from elman import backends, threads
from elman.backends import reference


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ELMAN_BACKEND", raising=False)
    monkeypatch.setattr(backends, "_chosen", None)
    monkeypatch.setattr(backends, "_default", None)  # as in a fresh process, that has not asked the environment


def absent() -> str:
    """The name of a backend that is not installed."""
    for name in backends.NAMES:
        if name not in elman.available_backends():
            return name
    pytest.skip("every backend is installed")


def python(program: str, **environment: str) -> str:
    """What a program prints in a fresh interpreter."""
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_names():
    assert backends.NAMES == ("numpy", "numba", "cython")
    assert set(elman.available_backends()) <= set(backends.NAMES)
    assert elman.available_backends()[0] == "numpy"
    for name in elman.available_backends():
        assert backends.get(name) is backends.get(name)
    assert backends.get("numpy") is reference


def test_looking_does_not_import():
    program = "import sys, elman; elman.available_backends(); print(*sys.modules)"
    assert not {"numba", "elman.backends.native", "elman.backends.jit.backend"} & set(python(program).split())


def test_default_is_fixed():
    assert backends.DEFAULT == backends.current() == "cython"
    if "cython" in elman.available_backends():
        assert backends.resolve() is backends.get("cython")
    else:
        with pytest.raises(ImportError, match=r"'cython' is not installed here.*To get it: .*Available: 'numpy'"):
            backends.resolve()


def test_precedence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "_loaded", {name: name for name in backends.NAMES})
    assert backends.resolve() == "cython"
    monkeypatch.setenv("ELMAN_BACKEND", "numba")
    assert backends.resolve() == backends.current() == "cython"  # the environment is asked once
    monkeypatch.setattr(backends, "_default", None)
    assert backends.resolve() == backends.current() == "numba"
    elman.use_backend("numpy")
    assert backends.resolve() == backends.current() == "numpy"
    assert backends.resolve("cython") == "cython"


def test_use_backend_in_a_block():
    def fail() -> None:
        with elman.use_backend("numpy"):
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()
        assert backends.current() == "cython"
    with elman.use_backend("numpy"), elman.use_backend("numpy"):
        assert backends.current() == "numpy"
    assert backends.current() == "cython"
    elman.use_backend("numpy")
    assert backends.current() == "numpy"


def test_a_layer_asks_at_every_call(monkeypatch: pytest.MonkeyPatch):
    class Called(Exception):
        pass

    def forward(*_: object, **__: object) -> None:
        raise Called

    rnn, x = elman.RNN(2, 3), np.ones((4, 1, 2))
    other = elman.RNN(2, 3, backend="cython")
    monkeypatch.setattr(reference, "forward", forward)
    with elman.use_backend("numpy"):
        with pytest.raises(Called):
            rnn(x)
        if "cython" in elman.available_backends():
            other(x)
    monkeypatch.setenv("ELMAN_BACKEND", "numpy")
    monkeypatch.setattr(backends, "_default", None)
    with pytest.raises(Called):
        rnn(x)


def test_unknown(monkeypatch: pytest.MonkeyPatch):
    expected = "backend must be one of 'numpy', 'numba', 'cython', got 'fortran'"
    for call in (elman.use_backend, backends.get, backends.resolve, lambda name: elman.RNN(2, 3, backend=name)):
        with pytest.raises(ValueError, match=expected):
            call("fortran")
        with pytest.raises(TypeError, match="backend must be one of"):
            call(7)
    assert backends.current() == "cython"
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.setenv("ELMAN_BACKEND", "fortran")
    with pytest.raises(ValueError, match="ELMAN_BACKEND must be one of"):
        backends.resolve()


def test_missing():
    name = absent()
    rnn = elman.RNN(2, 3, backend=name)  # known: an error only where it is needed
    for call in (lambda: elman.use_backend(name), lambda: backends.get(name), lambda: rnn(np.ones((4, 1, 2)))):
        with pytest.raises(ImportError, match=f"'{name}' is not installed here .*To get it: .*Available: 'numpy'"):
            call()
    assert backends.current() == "cython"


def test_numba_needs_its_module_and_numba(monkeypatch: pytest.MonkeyPatch):
    needed = {"elman.backends.jit.backend", "elman.backends.native", "numba"}
    for there in (needed, *(needed - {name} for name in needed)):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, there=there: name if name in there else None)
        assert ("numba" in elman.available_backends()) == (there == needed)


# Threads


def test_number_of_threads(threads):
    for n in (1, np.int32(3), 2):
        threads(n)
        assert elman.get_num_threads() == n
    for bad, error in [
        *((0, ValueError), (-1, ValueError), (1025, ValueError), (2**31, ValueError), (2**64, ValueError)),
        *((1.5, TypeError), (True, TypeError), ("2", TypeError)),
    ]:
        with pytest.raises(error, match=r"^n must be an int from 1 to 1024, got"):
            threads(bad)
    assert elman.get_num_threads() == 2


@pytest.mark.parametrize("backend", elman.available_backends())
def test_number_of_threads_before_and_after_loading(backend: str):
    program = f"""
import elman
from elman import backends
{{}}
before = elman.get_num_threads()
backends.get({backend!r})
print(before, elman.get_num_threads())
"""
    assert python(program.format(""), ELMAN_NUM_THREADS="3") == "3 3"
    assert python(program.format("elman.set_num_threads(5)"), ELMAN_NUM_THREADS="3") == "5 5"


BAD_NUMBERS = ["0", "-2", "two", "1.5", "1025", "99999999999", "9" * 5000, " ", "1_0", "²", "٣", "\udcff"]


@pytest.mark.parametrize("name", elman.available_backends())
@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_bad_number_of_threads_in_the_environment(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    """At the first use and at the second one, of each backend, as in a new process."""
    loaded: dict[str, object] = {}
    for module, attribute, as_new in [
        (backends, "_loaded", loaded),
        (threads, "_pool", None),
        (threads, "_n_threads", None),
    ]:
        monkeypatch.setattr(module, attribute, as_new)
    monkeypatch.setenv("ELMAN_NUM_THREADS", value)
    threads._default_num_threads.cache_clear()
    calls = [elman.get_num_threads, elman.show_config]
    if name != "numpy":
        calls.append(lambda: elman.RNN(2, 3, backend=name)(np.ones((1, 1, 2))))
    for call in [*calls, *calls]:
        with pytest.raises(ValueError, match=r"^ELMAN_NUM_THREADS must be an int from 1 to 1024, got '"):
            call()
    assert not loaded.keys() - {"cython"}


def test_threads_in_the_environment_with_spaces(monkeypatch: pytest.MonkeyPatch):
    for text, n in [(" 4 ", 4), ("007", 7), ("1024", 1024)]:
        monkeypatch.setenv("ELMAN_NUM_THREADS", text)
        assert threads._default_num_threads.__wrapped__() == n


def test_bad_instruction_set_in_the_environment():
    """At each use: what could not be loaded is not there at the next one, either."""
    bad = ["mmx", " ", "²", "AVX2", "9" * 5000, "\udcff"]
    program = f"""
import os
import numpy as np
import elman
compiled = [name for name in elman.available_backends() if name != "numpy"]
calls = [lambda name=name: elman.RNN(2, 3, backend=name)(np.ones((1, 1, 2))) for name in [*compiled, *compiled]]
for value in {bad!a}:
    os.environ["ELMAN_ISA"] = value
    for call in [*calls, elman.show_config]:
        try:
            call()
        except ValueError as error:
            print(ascii(str(error))[1:10], end=" ")
"""
    n_calls = 2 * (len(elman.available_backends()) - 1) + 1
    assert python(program).split() == ["ELMAN_ISA"] * len(bad) * n_calls


@pytest.mark.parametrize("value", ["fortran", " ", "²", "NumPy", "9" * 5000, "\udcff"])
def test_bad_backend_in_the_environment(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("ELMAN_BACKEND", value)
    rnn = elman.RNN(2, 3)
    for _ in range(2):
        for call in (lambda: rnn(np.ones((1, 1, 2))), elman.show_config, backends.current):
            with pytest.raises(ValueError, match=r"^ELMAN_BACKEND must be one of 'numpy', 'numba', 'cython', got '"):
                call()
    assert capsys.readouterr().out == ""


def test_empty_variables_are_as_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ELMAN_BACKEND", "")
    monkeypatch.setenv("ELMAN_NUM_THREADS", "")
    assert backends.current() == "cython"
    assert threads._default_num_threads.__wrapped__() >= 1
    if "cython" in elman.available_backends():
        assert python("from elman import backends; backends.get('cython'); print('good')", ELMAN_ISA="") == "good"


def test_default_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    for name in ("ELMAN_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for affinity, n in [(6, 6), (1024, 1024), (4096, 1024)]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=affinity: set(range(n)), raising=False)
        monkeypatch.setattr(threads, "_cgroup_quota", lambda: float("inf"))
        assert threads._default_num_threads.__wrapped__() == n
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for quota, n in [(float("inf"), 6), (100.0, 6), (2.5, 3), (0.1, 1)]:
        monkeypatch.setattr(threads, "_cgroup_quota", lambda quota=quota: quota)
        assert threads._default_num_threads.__wrapped__() == n


def test_openmp_limits_the_default_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ELMAN_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: 4.0)
    texts = [("3", 3), ("2,8", 2), (" 1 ", 1), ("64", 4), ("", 4), ("0", 4), ("-1", 4), ("many", 4)]
    for text, n in [*texts, ("²", 4), ("٣", 4), ("1_0", 4), ("9" * 5000, 4), ("0" * 5000 + "3", 3)]:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert threads._default_num_threads.__wrapped__() == n
    monkeypatch.setenv("ELMAN_NUM_THREADS", "5")
    assert threads._default_num_threads.__wrapped__() == 5


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_cgroup_quota(tmp_path: Path):
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    assert threads._cgroup_quota(proc, root) == float("inf")
    proc.write_text("0::/a/b\n")
    assert threads._cgroup_quota(proc, root) == float("inf")
    write(root / "a/b/cpu.max", "max 100000\n")
    assert threads._cgroup_quota(proc, root) == float("inf")
    write(root / "a/cpu.max", "150000 100000\n")  # the group above
    assert threads._cgroup_quota(proc, root) == 1.5
    proc.write_text("4:memory:/m\n3:cpu,cpuacct:/c\n")  # version 1
    assert threads._cgroup_quota(proc, root) == float("inf")
    write(root / "cpu/cpu.cfs_quota_us", "-1\n")
    assert threads._cgroup_quota(proc, root) == float("inf")
    write(root / "cpu/c/cpu.cfs_quota_us", "50000\n")
    write(root / "cpu/c/cpu.cfs_period_us", "100000\n")
    assert threads._cgroup_quota(proc, root) == 0.5
    write(root / "cpu/c/cpu.cfs_period_us", "nonsense\n")
    assert threads._cgroup_quota(proc, root) == float("inf")


def test_show_config(capsys: pytest.CaptureFixture[str]):
    elman.show_config()
    shown = capsys.readouterr().out
    for expected in (elman.__version__, np.__version__, ", ".join(elman.available_backends()), "instruction set"):
        assert expected in shown
    assert f"threads          {elman.get_num_threads()}\n" in shown
    assert "numba            " in shown
