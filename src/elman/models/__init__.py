"""Models: the layer with a kind of input and a readout with its loss, what is done with them."""
