"""Makes the functions of csrc/pool.c known to LLVM, so that kernels find them by name; or stand-ins of one thread."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import numpy as np
from numba import cfunc, types

from elman.backends.jit.structs import call, ints


def publish(addresses: dict[str, int] | None) -> None:
    """Given `native.pool_addresses()`, or None without the C pool."""
    for name, address in (addresses or _stand_ins()).items():
        llvm.add_symbol(name, address)


_kept: list[object] = []  # stand-ins that must not be freed


def _stand_ins() -> dict[str, int]:
    @cfunc(types.void(types.int64, types.int64, types.int64, types.int64))
    def run(task, argument, n, threads):  # type: ignore[no-untyped-def]  # noqa: ARG001
        for i in range(n):
            call(task, (argument, i))

    @cfunc(types.int32())
    def one():  # type: ignore[no-untyped-def]
        return 1

    @cfunc(types.int32(types.int64, types.int64, types.int64))
    def run_team(task, argument, n):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return 0

    @cfunc(types.int32(types.int64, types.int64))
    def meet(come, expected):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return 0

    reason = np.zeros(1, np.int64)  # why a call was stopped: one for all threads
    place = reason.ctypes.data

    @cfunc(types.void(types.int64))
    def begin(call):  # type: ignore[no-untyped-def]  # noqa: ARG001
        ints(place)[0] = 0

    @cfunc(types.int32(types.int64))
    def end(call):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return ints(place)[0]

    @cfunc(types.void(types.int32))
    def stop(why):  # type: ignore[no-untyped-def]
        ints(place)[0] = why

    @cfunc(types.int32())
    def stopped():  # type: ignore[no-untyped-def]
        return ints(place)[0]

    _kept.extend((run, one, run_team, meet, reason, begin, end, stop, stopped))
    c = ctypes.CDLL(None) if hasattr(ctypes, "pythonapi") else ctypes.CDLL("msvcrt")
    malloc, free = (ctypes.cast(getattr(c, name), ctypes.c_void_p).value or 0 for name in ("malloc", "free"))
    return {
        "elman_run": run.address,
        "elman_run_team": run_team.address,
        "elman_meet": meet.address,
        "elman_begin": begin.address,
        "elman_end": end.address,
        "elman_stop": stop.address,
        "elman_stopped": stopped.address,
        "elman_get_num_threads": one.address,
        "elman_lease": malloc,
        "elman_return": free,
    }
