"""Files that are written whole or not at all, and what stands in those of models."""
