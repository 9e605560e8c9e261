"""The layer: recurrent layers above one another, in one direction or both, and the memory that they work in."""
