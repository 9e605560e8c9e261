"""The cases of `elman bench` under pytest-benchmark, for comparisons between two states of the source:

    pytest bench/ --benchmark-save=before    # then change something
    pytest bench/ --benchmark-compare
    pytest bench/ -k "quick and cython"

Results are checked outside the timed call. `pytest` alone does not come here.
"""

import pytest

import elman
from elman.benchmark.contestants import PEERS, missing, peer
from elman.benchmark.contestants.own import backend
from elman.benchmark.program import Unsupported
from elman.benchmark.truth import Truth
from elman.benchmark.workloads import SETS, Case, Workload

NAMES = ("quick", "table", "seq", "small", "dropout", "many")
WORKLOADS = {f"{name}-{work.what}-{work.shape}": work for name in NAMES for work in SETS[name]}
CONTESTANTS = {name: backend(name) for name in ("cython", "numba")} | {
    name: peer(name) for name in PEERS if name not in missing()
}


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("work", WORKLOADS.values(), ids=WORKLOADS)
def test_speed(benchmark, work: Workload, contestant: str) -> None:
    case = Case.of(work)
    try:
        program = CONTESTANTS[contestant].prepare(case, elman.get_num_threads())
    except Unsupported as reason:
        pytest.skip(str(reason))
    assert Truth(case).complaint(program.results(program.run())) is None
    benchmark.extra_info["flops"] = work.flops
    benchmark(program.run)
