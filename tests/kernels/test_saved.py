"""Machine code on disk (jit/saved.py): what is not of these sources, for this machine, by this Numba is never run."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

saved = pytest.importorskip("elman.backends.jit.saved", reason="there is no Numba for this Python")

NAME, CODE = "elman_test", bytes(range(256))


@pytest.fixture(autouse=True)
def made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sources of its own, a folder of its own, and nothing known of either."""
    copy = tmp_path / "sources"
    shutil.copytree(saved._HERE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(saved, "_HERE", copy)
    monkeypatch.setattr(saved, "_warned", False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "not" / "yet"))
    forget()
    yield
    forget()


def forget() -> None:
    saved._maker.cache_clear()
    saved._sources.cache_clear()


def other_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    other = saved._HERE.with_name("numba")
    other.mkdir()
    (other / "_version.py").write_text("version = '0.0'")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=str(other / "__init__.py")))


def other_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    other = saved._HERE.with_name("native.so")
    other.write_bytes(b"other C")
    monkeypatch.setattr(saved.native, "__file__", str(other))


def other_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved.llvm, "get_host_cpu_features", lambda: SimpleNamespace(flatten=str))


@pytest.mark.parametrize(
    "change",
    [
        other_numba,
        other_extension,
        lambda monkeypatch: monkeypatch.setattr(saved.llvmlite, "__version__", "0.0"),
        lambda monkeypatch: monkeypatch.setattr(saved.llvm, "get_host_cpu_name", lambda: "other"),
        other_features,
        lambda monkeypatch: monkeypatch.setenv("NUMBA_OPT", "1"),
        lambda _: (saved._HERE / "gemm.py").write_text("other"),
        lambda _: (saved._HERE / "cells" / "further.py").write_text("other"),
        lambda _: (saved._HERE / "tile.py").unlink(),
    ],
    ids=["numba", "extension", "llvmlite", "cpu", "features", "settings", "source", "further", "fewer"],
)
def test_what_others_made_is_not_read(change, monkeypatch: pytest.MonkeyPatch):
    saved.write(NAME, CODE)
    forget()
    assert saved.read(NAME) == CODE
    change(monkeypatch)
    forget()
    assert saved.read(NAME) is None
    saved.write(NAME, CODE[::-1])
    assert saved.read(NAME) == CODE[::-1]


def test_settings_that_change_no_code(monkeypatch: pytest.MonkeyPatch):
    saved.write(NAME, CODE)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    forget()
    assert saved.read(NAME) == CODE


def test_a_user_without_a_home_has_no_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert [path.parent for path in saved._places(NAME)] == [saved._HERE / "__pycache__"]


def test_no_file_that_is_short_of_anything_is_read(recwarn: pytest.WarningsRecorder):
    saved.write(NAME, CODE)
    (path,) = saved._places(NAME)
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        assert saved.read(NAME) is None
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert saved.read(NAME) is None
    assert len(recwarn) == 1  # for all of them
    saved.write(NAME, CODE)
    assert saved.read(NAME) == CODE


AT_ONCE = """
import sys, threading
from elman.backends.jit import saved

def use(i):
    for _ in range(20):
        saved.write("elman_test", bytes([i]) * 200_000)
        code = saved.read("elman_test")
        assert len(code) == 200_000 and len(set(code)) == 1
    done.append(i)

first, done = int(sys.argv[1]), []
threads = [threading.Thread(target=use, args=(first + i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(done))
"""


def test_processes_and_threads_that_write_and_read_at_once():
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", AT_ONCE, str(4 * i)], stdout=subprocess.PIPE)
        for i in range(6)
    ]
    assert [process.communicate(timeout=300)[0].split() for process in processes] == 6 * [[b"4"]]
    (path,) = saved._places(NAME)
    assert [file.suffix for file in path.parent.iterdir()] == [".kernel"]  # none is left half written


def test_where_nothing_can_be_written_it_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="set NUMBA_CACHE_DIR to a folder where it can"):
        saved.write(NAME, CODE)
    saved.write(NAME, CODE)
    assert saved.read(NAME) is None


def test_the_user_has_a_folder_where_the_package_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Even where the package's holds code of other sources, which cannot be replaced."""
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own, of_user = saved._places(NAME)
    saved.write(NAME, CODE)
    content = own.read_bytes()
    own.write_bytes(bytes(32) + content[32:])
    assert saved.read(NAME) is None
    of_user.parent.mkdir()
    of_user.write_bytes(content)
    assert saved.read(NAME) == CODE
    shutil.rmtree(own.parent)
    own.parent.touch()
    of_user.unlink()
    saved.write(NAME, CODE)
    assert of_user.read_bytes() == content
    assert saved.read(NAME) == CODE


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes among files")
def test_a_pipe_in_its_place_is_not_waited_for():
    (place,) = saved._places(NAME)
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    assert saved.read(NAME) is None
