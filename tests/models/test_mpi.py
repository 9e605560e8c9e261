"""`fit` on ranks of MPI: test_ranks.py has what is tested more closely. Needs ``pip install 'elman[mpi]'``."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .test_ranks import CASES

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
ROOT = Path(__file__).parents[2]


def started(n: int, what: str, folder: Path) -> "subprocess.Popen[str]":
    assert MPIEXEC is not None
    command = [MPIEXEC, "-n", str(n), sys.executable, "-m", "tests.models.trained_by_ranks", what, str(folder)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    return subprocess.Popen(command, env=os.environ | {"ELMAN_NUM_THREADS": "1"}, **options)  # type: ignore[call-overload,no-any-return]


def output(n: int, what: str, folder: Path, *, fails: bool = False) -> str:
    with started(n, what, folder) as process:
        found, _ = process.communicate(timeout=120)
    assert (process.returncode != 0) == fails, found
    return found


def test_the_same_bits_for_any_number_of_ranks(tmp_path: Path):
    expected = output(1, "cases", tmp_path)
    assert len(expected.splitlines()) == len(CASES)
    for n in (2, 3, 4, 8):
        assert output(n, "cases", tmp_path) == expected


def test_a_rank_that_dies_ends_all(tmp_path: Path):
    assert "KILL" in output(3, "dies", tmp_path, fails=True).upper()


def test_an_error_in_one_rank_ends_all(tmp_path: Path):
    found = output(3, "fails", tmp_path, fails=True)
    assert "ValueError: Y[0] must hold -1 (no target) or categories from 0 to 4, got 9" in found
    assert "training has ended, as rank 1 did" in found


def test_ctrl_c_and_another_number_of_ranks(tmp_path: Path):
    (tmp_path / "whole").mkdir()
    expected = output(1, "quick", tmp_path / "whole")
    with started(3, "slow", tmp_path) as process:
        assert process.stdout is not None
        assert any(line == "epoch 3\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode != 0
    assert output(2, "quick", tmp_path) == expected
