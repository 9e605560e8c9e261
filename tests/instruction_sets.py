"""Fails where an installed wheel has lost an instruction set that Linux says this x86-64 processor has."""

from pathlib import Path

from elman.backends import native

NEEDS = {"avx512": "avx512f avx512vl avx512dq avx512bw fma", "avx2": "avx2 fma", "baseline": ""}
flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
expected = tuple(name for name, needed in NEEDS.items() if flags >= set(needed.split()))
assert native.instruction_sets() == expected, (native.__file__, native.instruction_sets(), expected)
