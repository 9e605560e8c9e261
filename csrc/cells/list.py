"""Writes cells.h, for kernels.c: all cells, each of which is a file beside this one."""

from pathlib import Path

names = sorted(path.stem for path in Path(__file__).parent.glob("*.h"))
print(*(f'#include "cells/{name}.h"' for name in names), sep="\n")
print("#define CELLS(F)", *(f"F({name})" for name in names))
