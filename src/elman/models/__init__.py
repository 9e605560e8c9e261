"""Models: the layer with a kind of input and a readout with its loss, what is done with them."""

from elman.models.sequence import SequenceModel

__all__ = ["SequenceModel"]  # where pickles of 0.1 find it
