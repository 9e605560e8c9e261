"""The backend "numba": the kernels of csrc/ in Python, file by file, compiled by a JIT. See docs/jit.md."""
