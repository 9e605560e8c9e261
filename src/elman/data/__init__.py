"""What goes into models and comes out of them: kinds of input and output, patterns, data sets in batches.

>>> from elman.data import Features, Tokens
"""

from elman.data.inputs import Features, Tokens
from elman.data.kinds import Pattern
from elman.data.outputs import Binary, Categories, Reals

__all__ = ["Binary", "Categories", "Features", "Pattern", "Reals", "Tokens"]
