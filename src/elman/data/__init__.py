"""What goes into models and comes out of them: kinds of input and output, patterns, data sets in batches."""

from elman.data.inputs import Features, Tokens
from elman.data.kinds import Pattern

__all__ = ["Features", "Pattern", "Tokens"]  # where pickles of 0.1 find them
