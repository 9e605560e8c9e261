"""The cells: each file of this folder is one, as csrc/cells/ has it.

A cell is two functions of n elements of a row, from column j on: `output`, its y from a, and `delta`, from the
gradient by y that by a, with that of f. What they need besides is in the epilogue `e` (EPILOGUE of gemm.py).
"""

import importlib
import pkgutil

CELLS = {found.name: importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)}
