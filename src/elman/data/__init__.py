"""What goes into models and comes out of them: kinds of input and output, patterns, data sets in batches."""
