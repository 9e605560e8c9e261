"""The kernels of csrc/ in Numba, file by file: gemm.py is gemm.h, recurrence.py is recurrence.h (docs/jit.md)."""
